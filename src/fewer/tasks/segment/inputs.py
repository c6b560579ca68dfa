"""Patches of images as a trained model sees them, for the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from fewer.core.errors import FewerError
from fewer.data.images import ImageSet, left_out, list_images, split_files
from fewer.models.spec import LoadedModel
from fewer.tasks.folders import pictures_and_masks, pictures_of
from fewer.tasks.segment.dataset import (
    Case,
    SegmentData,
    channels_together,
    find_pictures,
    image_pool,
    masks_apart,
    nnunet_pool,
    open_data,
)
from fewer.tasks.segment.loaded import preparation_of, unseen_cases
from fewer.tasks.segment.sampling import CaseStore, PatchSampler
from fewer.tasks.segment.settings import TrainSettings

__all__ = ["cases_in", "images"]

STREAM = 3
"""Keeps the draws of calibration patches apart from those of the training."""


def images(loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> ImageSet:
    """Patches of images as the model sees them, for a method that needs inputs and no labels.

    Parameters
    ----------
    loaded
        A trained model.
    folder
        A data set (masks are not read), or any folder of images.
    count
        Patches.
    part
        ``calibration`` or ``heldout``: of different cases. Of the data set that the model was trained on, the cases
        that judged are held out.
    seed
        Chooses cases and places.

    Raises
    ------
    FewerError
        When the folder holds too few images.
    """
    preparation = preparation_of(loaded)
    place = Path(folder)
    try:
        data = open_data(place)
        cases = [Case(c.name, c.images) for c in (*data.cases, *data.unlabelled)]
        held = {case.name for case in unseen_cases(loaded, data)}
        known = 0 < len(held) < len(data.cases)
    except FewerError:
        cases, held, known = _without_masks(place, preparation.channels), set(), False
        data = SegmentData(place, "folder", (), tuple(cases))
    if known:
        chosen = [case for case in cases if (case.name in held) == (part == "heldout")]
    else:
        keys = SegmentData(place, "folder", tuple(cases)).subjects().of  # slices of one scan are on one side
        files = split_files([case.images[0] for case in cases], [keys[case.name] for case in cases], part)
        chosen = [case for case in cases if case.images[0] in set(files)]
    settings = TrainSettings(seed=seed, foreground=0.0, augment="none")
    store = CaseStore(data, chosen, preparation, settings.cache * 2**30, masks=False)
    good, skipped = [], []
    for index in np.random.default_rng([seed, STREAM]).permutation(len(chosen)):
        try:
            _ = store[int(index)]
            good.append(int(index))
        except FewerError as error:
            skipped.append((chosen[index].images[0], str(error)))
        if len(good) == count:
            break
    if not good:
        reason = f"; the first: {skipped[0][1]}" if skipped else ""
        raise FewerError(f"{folder} holds no readable image for the {part} part{reason}")
    skipped += [(place / name, reason) for name, reason in left_out(place)[0]]
    sampler = PatchSampler(store, settings)
    # as many of each image as can be, and those of one image together
    rows = sorted(good[number % len(good)] for number in range(count))
    patches = [
        sampler.draw(index, np.random.default_rng([seed, STREAM, number]))[0] for number, index in enumerate(rows)
    ]
    return ImageSet(torch.stack(patches), [chosen[index].images[0] for index in rows], skipped)


def cases_in(place: Path, channels: int) -> list[Case]:
    """The images of a folder of any layout, or of a file, for a network that takes so many channels.

    Raises
    ------
    FewerError
        When there is none.

    Examples
    --------
    >>> [case.name for case in cases_in(Path("scans/"), 1)]  # doctest: +SKIP
    ['a', 'b']
    """
    if place.is_file():
        return list(image_pool([place]).unlabelled)
    raw = (place / "dataset.json").is_file()
    if raw or pictures_and_masks(place) is not None:
        try:
            data = open_data(place)
        except FewerError:  # nobody needs its masks, which may be missing or of a kind that is not read
            if raw:
                return list(nnunet_pool(place).unlabelled)
            raise
        return [*data.cases, *data.unlabelled]
    if not place.is_dir():
        raise FewerError(f"{place} does not exist; give a folder of images")
    within = pictures_of(place)  # images/ or imagesTr/, without masks beside it
    files, _ = masks_apart((find_pictures(within) if within is not None else []) or find_pictures(place))
    if not files:
        raise FewerError(f"{place} holds no image (PNG, TIFF, JPEG or NIfTI)")
    return channels_together(image_pool(files).unlabelled, channels)


def _without_masks(place: Path, channels: int) -> list[Case]:
    try:
        return cases_in(place, channels)
    except FewerError:  # images may lie deeper
        return list(image_pool(list_images(place)).unlabelled)
