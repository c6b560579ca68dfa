"""Evaluate a network, or a folder of masks, on annotated cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from fewer.core.errors import FewerError, near_match
from fewer.core.progress import Progress, Silent
from fewer.tasks.segment.dataset import Case, SegmentData, find_pictures
from fewer.tasks.segment.evaluation import Evaluation
from fewer.tasks.segment.files import LOSSLESS, picture_stem, read_picture
from fewer.tasks.segment.inference import predict_mask
from fewer.tasks.segment.metrics import Score, score_case
from fewer.tasks.segment.preparation import Preparation
from fewer.tasks.segment.reading import Sample, class_indices, read_case

__all__ = ["evaluate_cases", "evaluate_folder", "with_classes"]


def evaluate_cases(
    model: nn.Module,
    data: SegmentData,
    cases: Sequence[Case],
    preparation: Preparation,
    *,
    distances: bool = True,
    progress: Progress | None = None,
) -> Evaluation:
    """Predict cases and score them on their own voxels.

    Raises
    ------
    FewerError
        When there is no case, the classes of data and network differ, or a file cannot be used.

    Examples
    --------
    >>> evaluate_cases(model, data, data.cases, preparation).overall.missed  # doctest: +SKIP
    0
    """
    data = with_classes(data, preparation)
    guesses = ((s, predict_mask(model, s, preparation)) for s in _samples(data, cases, preparation.channels))
    return _score(guesses, len(cases), list(preparation.classes), distances, progress or Silent())


def with_classes(data: SegmentData, preparation: Preparation) -> SegmentData:
    """The data set with the classes that a network was trained on.

    A data set that declares none gets the network's, so that a part of it that lacks a class means the same.

    Raises
    ------
    FewerError
        When it declares others.
    """
    trained = dict(zip(preparation.classes, preparation.values, strict=True))
    if data.declared is None:
        return replace(data, declared=trained)
    if tuple(data.classes) != tuple(trained) and tuple(data.classes.values()) != tuple(trained.values()):
        raise FewerError(f"{data.root} has the classes {data.classes}, the network was trained on {trained}")
    return data


def evaluate_folder(
    predictions: str | Path, data: SegmentData, *, distances: bool = True, progress: Progress | None = None
) -> Evaluation:
    """Score a folder of predicted masks, called like their cases, against a data set.

    Raises
    ------
    FewerError
        When a case has no prediction, a prediction no case, or a mask does not fit.

    Examples
    --------
    >>> evaluate_folder("predictions/", open_data("lesions/"))  # doctest: +SKIP
    """
    files = {picture_stem(path): path for path in find_pictures(Path(predictions), LOSSLESS)}
    known = {case.name: case for case in data.cases}
    if not files:
        raise FewerError(f"{predictions} holds no mask (PNG, TIFF or NIfTI)")
    for name in files:
        if name not in known:
            raise FewerError(f"{files[name]} belongs to no annotated case of {data.root}{near_match(name, known)}")

    def pairs() -> Iterator[tuple[Sample, np.ndarray]]:
        for name, path in files.items():
            sample, picture = read_case(data, known[name]), read_picture(path)
            if picture.space != sample.picture.space:
                raise FewerError(f"{path} has the shape {picture.space}, its image {sample.picture.space}")
            yield sample, class_indices(picture.array[0], data.classes, str(path))

    return _score(pairs(), len(files), list(data.classes), distances, progress or Silent())


def _samples(data: SegmentData, cases: Sequence[Case], channels: int) -> Iterator[Sample]:
    for case in cases:
        yield read_case(data, case, channels)


def _score(
    pairs: Iterator[tuple[Sample, np.ndarray]], count: int, classes: list[str], distances: bool, progress: Progress
) -> Evaluation:
    scores: list[Score] = []
    spaced = False
    with progress.stage("evaluate", count) as stage:
        for sample, guess in pairs:
            assert sample.mask is not None
            spaced = spaced or sample.picture.spaced
            scores += score_case(guess, sample.mask, classes, sample.spacing, case=sample.name, distances=distances)
            stage.advance(1, sample.name)
    if not scores:
        raise FewerError("there is no annotated case to evaluate on")
    return Evaluation(tuple(scores), "mm" if spaced else "pixels")
