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
from fewer.tasks.segment.files import LOSSLESS, picture_stem, read_picture, suffix_of
from fewer.tasks.segment.geometry import onto
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

    A data set that declares none gets the network's, so that a part of it that lacks a class means the same. One that
    gives the same names to other numbers is read by the names; one that gives other names to the same numbers is read
    by the numbers.

    Raises
    ------
    FewerError
        When it declares others.
    """
    trained = dict(zip(preparation.classes, preparation.values, strict=True))
    if data.declared is None:
        return replace(data, declared=trained)
    own = data.classes
    if set(own) == set(trained):
        return replace(data, declared={name: own[name] for name in trained})
    moved = [name for name, known in zip(own, trained, strict=False) if name in trained and name != known]
    if moved or tuple(own.values()) != tuple(trained.values()):
        raise FewerError(f"{data.root} has the classes {data.classes}, the network was trained on {trained}")
    return data


def evaluate_folder(
    predictions: str | Path, data: SegmentData, *, distances: bool = True, progress: Progress | None = None
) -> Evaluation:
    """Score a folder of predicted masks, called like their cases, against a data set.

    A case without a prediction counts as one in which nothing was found, and is named in the result. A mask that is
    stored in another order of axes than its image is turned; one that lies elsewhere in space is refused.

    Raises
    ------
    FewerError
        When a prediction has no case, two have the same, or a mask does not fit.

    Examples
    --------
    >>> evaluate_folder("predictions/", open_data("lesions/"))  # doctest: +SKIP
    """
    files = _masks(Path(predictions))
    known = {case.name: case for case in data.cases}
    for name in files:
        if name not in known:
            raise FewerError(f"{files[name]} belongs to no annotated case of {data.root}{near_match(name, known)}")
    missing = tuple(name for name in known if name not in files)

    def pairs() -> Iterator[tuple[Sample, np.ndarray]]:
        for name, case in known.items():
            sample = read_case(data, case)
            if name in missing:  # nothing was found in it
                assert sample.mask is not None
                yield sample, np.zeros_like(sample.mask)
                continue
            path = files[name]
            picture = onto(read_picture(path, mask=True), sample.picture, str(path), "its image")
            if picture.numbers is None:
                raise FewerError(f"{path} has {len(picture.array)} channels; a mask has one, of class numbers")
            yield sample, class_indices(picture.numbers, data.classes, str(path))

    found = _score(pairs(), len(known), list(data.classes), distances, progress or Silent())
    return replace(found, missing=missing)


def _masks(folder: Path) -> dict[str, Path]:
    """The masks of a folder by the name of their case; nothing that could be one is passed over."""
    files: dict[str, Path] = {}
    for path in find_pictures(folder):
        if suffix_of(path) not in LOSSLESS:
            raise FewerError(f"the mask {path} is of a kind that loses detail; save masks as PNG, TIFF or NIfTI")
        name = picture_stem(path)
        if name in files:
            raise FewerError(f"{path} and {files[name].name} are two masks of one case; leave one of them")
        files[name] = path
    if not files:
        raise FewerError(f"{folder} holds no mask (PNG, TIFF or NIfTI)")
    return files


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
