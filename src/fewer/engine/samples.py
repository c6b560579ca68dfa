"""The inputs that a run uses: which images calibrate, which are held out, and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from fewer.core.errors import FewerError
from fewer.data.calibration import as_calibration
from fewer.data.images import ImageSet, list_images
from fewer.engine.datafree import batchnorm_inputs, gaussian_noise
from fewer.engine.settings import Settings
from fewer.models.spec import LoadedModel
from fewer.tasks import open_task, reads_inputs

__all__ = []


# fewer calibration images than this are all needed for the repair
_ENOUGH = 6


def _apart(count: int, wanted: int, near: int | None = None) -> tuple[int, int]:
    """How many images to measure harm on, and where the images for the repair that is measured begin.

    ``near`` is the number of leading images that share no file with the others, or None where files are not known.

    Examples
    --------
    >>> _apart(64, 16), _apart(12, 16), _apart(2, 16), _apart(64, 16, 25)
    ((16, 16), (4, 4), (2, 0), (16, 25))
    """
    if count < _ENOUGH:
        return min(wanted, count), 0
    measured = min(wanted, count // 3, near or count)
    return measured, near or measured


def _by_file(files: Sequence[Path]) -> tuple[list[int], int]:
    """An order in which the crops of two fifths of the files come first, in turns; and how many crops those are.

    Harm is measured on the first images: from many files, because one photo is not like another.

    Examples
    --------
    >>> _by_file([Path(name) for name in "aabbccddeef"])
    ([0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10], 4)
    """
    names = list(dict.fromkeys(files))
    first = set(names[: max(1, len(names) * 2 // 5)])
    turn = [files[:i].count(name) for i, name in enumerate(files)]
    near = sorted((i for i, name in enumerate(files) if name in first), key=lambda i: turn[i])
    return near + [i for i, name in enumerate(files) if name not in first], len(near)


@dataclass(frozen=True, eq=False)
class _Images:
    """The images of a run, as in :class:`Prepared`; ``near`` as for :func:`_apart`."""

    calibration: Tensor
    heldout: Tensor
    source: str
    skipped: list[tuple[str, str]]
    notes: list[str]
    near: int | None = None
    heldout_files: tuple[Path, ...] = ()


def _of_files(first: ImageSet, second: ImageSet, source: str, note: str) -> _Images:
    order, near = _by_file(first.files)
    skipped = _named(first) + _named(second)
    return _Images(first.tensor[order], second.tensor, source, skipped, [note], near, tuple(second.files))


def _images(loaded: LoadedModel, images: Any, settings: Settings) -> _Images:
    wanted, apart = settings.calibration, settings.heldout
    if settings.data_free is not None:
        return _made_up(loaded, images, settings)
    if images is None:
        raise FewerError("images are missing: give a folder of images, a tensor, or data_free='noise'")
    if reads_inputs(loaded.task, images):
        reader = open_task(str(loaded.task)).images
        first = reader(loaded, images, wanted, part="calibration", seed=settings.seed)
        second = reader(loaded, images, apart, part="heldout", seed=settings.seed)
        note = (
            f"{len(first)} calibration patches from {len(set(first.files))} images, {len(second)} held-out patches "
            f"from {len(set(second.files))} other images."
        )
        return _of_files(first, second, str(images), note)
    common: dict[str, Any] = {"seed": settings.seed, "preprocess": loaded.preprocess, "crops": settings.crops}
    if isinstance(images, (str, Path)) or (isinstance(images, (list, tuple)) and _all_paths(images)):
        files = list_images(images) if isinstance(images, (str, Path)) else list(images)
        source = str(images) if isinstance(images, (str, Path)) else f"{len(files)} files"
        if len(files) == 1:
            whole = as_calibration(images, wanted + apart, **common)
            return _Images(*_cut(whole, wanted, apart), source, _named(whole), [_SAME])
        first = as_calibration(images, wanted, part="calibration", **common)
        second = as_calibration(images, apart, part="heldout", **common)
        if len(first) == 0 or len(second) == 0:
            raise FewerError(f"{source} holds too few readable images to keep some apart for the report")
        note = (
            f"{len(first)} calibration images from {len(set(first.files))} files, {len(second)} held-out images "
            f"from {len(set(second.files))} other files."
        )
        return _of_files(first, second, source, note)
    ndim = max(1, len(loaded.preprocess.input_size))
    whole = as_calibration(images, wanted + apart, sample_ndim=ndim)
    notes = [] if len(whole) > 1 else [_SAME]
    return _Images(*_cut(whole, wanted, apart), "a tensor given in Python", _named(whole), notes)


_SAME = "Too few images to keep any apart: the held-out numbers come from the calibration image itself."


def _all_paths(images: list[Any] | tuple[Any, ...]) -> bool:
    return bool(images) and all(isinstance(i, (str, Path)) for i in images)


def _cut(whole: ImageSet, wanted: int, apart: int) -> tuple[Tensor, Tensor]:
    """Calibration first, held out last; a quarter at most is held out."""
    n = len(whole)
    if n == 1:
        return whole.tensor, whole.tensor
    held = max(1, min(apart, n // 4))
    return whole.tensor[: min(wanted, n - held)], whole.tensor[n - held :]


def _named(images: ImageSet) -> list[tuple[str, str]]:
    return [(str(path), reason) for path, reason in images.skipped]


def _made_up(loaded: LoadedModel, images: Any, settings: Settings) -> _Images:
    size = loaded.preprocess.input_size
    if settings.data_free == "noise":
        made, note = gaussian_noise(size, settings.calibration, settings.seed), "Gaussian noise instead of images."
    else:
        made, note = batchnorm_inputs(loaded.model, size, settings.calibration, settings.seed)
    if images is not None:
        # real images may still judge the result; none of them calibrates it
        real = Settings.of({**settings.model_dump(), "data_free": None})
        found = _images(loaded, images, real)
        source = f"data-free ({settings.data_free}); judged on {found.source}"
        return replace(found, calibration=made, source=source, notes=[note, *found.notes], near=None)
    heldout = gaussian_noise(size, settings.heldout, settings.seed + 1) if settings.data_free == "noise" else made
    return _Images(made, heldout, f"data-free ({settings.data_free})", [], [note, "Judged on made-up inputs as well."])
