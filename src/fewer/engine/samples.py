"""The inputs that a run uses: which samples calibrate, which are held out, and where they come from."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from fewer.core.errors import FewerError
from fewer.data.collect import Trial, collect_samples
from fewer.data.images import ImageSet, list_images, open_images
from fewer.data.pictures import are_pictures, read_pictures
from fewer.data.samples import Samples, TensorSamples
from fewer.distortion.outputs import output_tensors, samples_of
from fewer.engine.datafree import batchnorm_inputs, gaussian_noise
from fewer.engine.settings import Settings
from fewer.models.arguments import advice, arguments_of
from fewer.models.running import Forward, call, evaluating
from fewer.models.spec import LoadedModel
from fewer.tasks import open_task, reads_inputs

__all__ = ["Inputs", "all_paths", "by_file", "find_inputs", "sensing_share"]

# fewer calibration samples than this are all needed for the repair
_ENOUGH = 6


def sensing_share(count: int, wanted: int, near: int | None = None) -> tuple[int, int]:
    """How many samples to measure distortion on, and where the samples for the repair that is measured begin.

    ``near`` is the number of leading samples that share no file with the others, or None where files are not known.

    Examples
    --------
    >>> sensing_share(64, 16), sensing_share(12, 16), sensing_share(2, 16), sensing_share(64, 16, 25)
    ((16, 16), (4, 4), (2, 0), (16, 25))
    """
    if count < _ENOUGH:
        return min(wanted, count), 0
    measured = min(wanted, count // 3, near or count)
    return measured, near or measured


def by_file(files: Sequence[Path]) -> tuple[list[int], int]:
    """An order in which the crops of two fifths of the files come first, in turns; and how many crops those are.

    Distortion is measured on the first images: from many files, because one photo is not like another.

    Examples
    --------
    >>> by_file([Path(name) for name in "aabbccddeef"])
    ([0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10], 4)
    """
    names = list(dict.fromkeys(files))
    first = set(names[: max(1, len(names) * 2 // 5)])
    seen: Counter[Path] = Counter()
    turn = []
    for name in files:
        turn.append(seen[name])
        seen[name] += 1
    near = sorted((i for i, name in enumerate(files) if name in first), key=lambda i: turn[i])
    return near + [i for i, name in enumerate(files) if name not in first], len(near)


@dataclass(frozen=True, eq=False)
class Inputs:
    """The samples of a run.

    Attributes
    ----------
    calibration, heldout
        Samples to work with, and samples that judge.
    deciding
        Samples that decide between finished models, and neither make nor judge them; None where none can be spared.
    source
        Where they come from, for people.
    notes
        What a reader of the report should know about them.
    near
        As for :func:`sensing_share`.
    """

    calibration: Samples
    heldout: Samples
    source: str
    notes: list[str]
    near: int | None = None
    deciding: Samples | None = None

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Files that could not be read, and why."""
        third = self.deciding.skipped if self.deciding is not None else []
        found = dict.fromkeys([*self.calibration.skipped, *self.heldout.skipped, *third])
        return [(str(path), reason) for path, reason in found]


def find_inputs(loaded: LoadedModel, images: Any, settings: Settings, forward: Forward | None = None) -> Inputs:
    """Read the inputs of a run, and split them into those that calibrate and those that judge.

    Parameters
    ----------
    loaded
        The model; its task reads files where it has one.
    images
        Folder, files, or anything that :func:`fewer.data.collect.collect_samples` takes.
    settings
        How many of each, and the seed.
    forward
        ``forward(model, batch)``.

    Raises
    ------
    FewerError
        When there are none, or the model does not run on them.
    """
    if settings.data_free is not None:
        return _made_up(loaded, images, settings, forward)
    if images is None:
        raise FewerError("images are missing: give a folder of images, a tensor, or data_free='noise'")
    if reads_inputs(loaded.task, images):
        return _of_task(loaded, images, settings)
    if isinstance(images, (str, Path)) or all_paths(images):
        return _of_files(loaded, images, settings)
    if forward is None and are_pictures(images):
        return _of_pictures(loaded, images, settings)
    names = None if forward is not None else arguments_of(loaded.model)
    told = partial(advice, loaded.model) if forward is None else Trial.told
    trial = Trial(lambda batch: _samples_given(loaded.model, batch, forward), names, forward is not None, told)
    ndim = max(1, len(loaded.preprocess.input_size))
    whole = collect_samples(images, settings.calibration + _apart(settings), trial, sample_ndim=ndim)
    notes = [] if len(whole) > 1 else [_SAME]
    source = "a tensor given in Python" if whole.tensor is not None else "samples given in Python"
    return _cut(whole, settings, source, notes)


_ASSUMED = (
    "3 x 224 x 224 and ImageNet's mean and deviation are assumed; say otherwise with --input-size, --mean and --std, "
    "or let the function return (model, {'input_size': (3, 96, 96)})"
)
_FEWEST = 4
"""Samples that may decide between models: fewer say nothing."""
_SAME = "Too few images to keep any apart: the held-out numbers come from the calibration image itself."


def all_paths(images: Any) -> bool:
    """Whether inputs are a list of files."""
    return isinstance(images, (list, tuple)) and bool(images) and all(isinstance(i, (str, Path)) for i in images)


def _samples_given(model: nn.Module, batch: Any, forward: Forward | None) -> int | None:
    """Samples in what a model gives for a batch; None when it does not run on it."""
    try:
        with evaluating(model):
            return samples_of(output_tensors(call(model, batch, forward)))
    except FewerError:
        return None


def _of_task(loaded: LoadedModel, images: str | Path, settings: Settings) -> Inputs:
    reader = open_task(str(loaded.task)).images
    parts = []
    for part, wanted in (("calibration", settings.calibration), ("heldout", _apart(settings))):
        found = reader(loaded, images, wanted, part=part, seed=settings.seed)
        parts.append(TensorSamples(found.tensor, found.files, found.skipped) if isinstance(found, ImageSet) else found)
    first, second = parts
    what = "patches" if len(set(first.files)) < len(first) else "samples"
    return _ordered(first, second, settings, str(images), what, "images")


def _of_files(loaded: LoadedModel, images: Any, settings: Settings) -> Inputs:
    common: dict[str, Any] = {"seed": settings.seed, "preprocess": loaded.preprocess, "crops": settings.crops}
    wanted, apart = settings.calibration, _apart(settings)
    files = list_images(images) if isinstance(images, (str, Path)) else list(images)
    source = str(images) if isinstance(images, (str, Path)) else f"{len(files)} files"
    more = _preprocessed(loaded)
    if len(files) == 1:
        whole = open_images(images, wanted + apart, **common)
        return _cut(whole, settings, source, [_SAME])
    first = open_images(images, wanted, part="calibration", **common)
    second = open_images(images, apart, part="heldout", **common)
    if len(first) == 0 or len(second) == 0:
        raise FewerError(f"{source} holds too few readable images to keep some apart for the report")
    return _ordered(first, second, settings, source, "images", "files", more)


def _of_pictures(loaded: LoadedModel, images: Any, settings: Settings) -> Inputs:
    note = _preprocessed(loaded).strip()
    whole = read_pictures(images, settings.calibration + _apart(settings), loaded.preprocess)
    return _cut(whole, settings, "pictures given in Python", [note] if len(whole) > 1 else [_SAME, note])


def _preprocessed(loaded: LoadedModel) -> str:
    """How pictures become inputs, in words; of a model that does not say so people are warned."""
    if not loaded.assumed:
        return f" {loaded.preprocess.words()}"
    warnings.warn(f"fewer: {loaded.name} does not say how files become its input; {_ASSUMED}", stacklevel=3)
    return f" {loaded.preprocess.words()} The model does not say so; this was assumed."


def _many(number: int, noun: str) -> str:
    """A number and its noun, which is given in the plural."""
    one = noun.removesuffix("es") if noun.endswith("ches") else noun.removesuffix("s")
    return f"1 {one}" if number == 1 else f"{number:,} {noun}"


def _ordered(
    first: Samples, second: Samples, settings: Settings, source: str, what: str, of: str, more: str = ""
) -> Inputs:
    """Samples of files, with what a reader should know of them."""
    heldout, deciding = _shared_out(second, settings)
    told = [("calibration ", first, ""), ("held-out ", heldout, "other ")]
    said = [(_many(len(s), kind + what), _many(len(set(s.files)), other + of)) for kind, s, other in told]
    note = ", ".join(f"{images} from {files}" for images, files in said)
    if deciding is not None:
        images, files = _many(len(deciding), what), _many(len(set(deciding.files)), f"more {of}")
        note += f"; {images} from {files} {'decides' if len(deciding) == 1 else 'decide'} between finished models"
    note += "." + more
    if not first.files:
        return Inputs(first, heldout, source, [note], deciding=deciding)
    order, near = by_file(first.files)
    calibration = first.take(order)
    calibration.skipped = first.skipped
    return Inputs(calibration, heldout, source, [note], near, deciding)


def _cut(whole: Samples, settings: Settings, source: str, notes: list[str]) -> Inputs:
    """Calibration first, held out last: a third at most is held out, a quarter where none of them can decide."""
    n = len(whole)
    if n == 1:
        return Inputs(whole, whole, source, notes)
    most = max(n // 3, _FEWEST + 3) if n >= 4 * _FEWEST else n // 4
    held = max(1, min(_apart(settings) if n >= 4 * _FEWEST else settings.heldout, most))
    calibration = whole[: min(settings.calibration, n - held)]
    calibration.skipped = whole.skipped
    heldout, deciding = _shared_out(whole[n - held :], settings)
    return Inputs(calibration, heldout, source, notes, deciding=deciding)


def _apart(settings: Settings) -> int:
    """Samples that calibrate nothing: those that judge, and those that decide."""
    return settings.heldout + max(_FEWEST, settings.heldout // 2)


def _shared_out(samples: Samples, settings: Settings) -> tuple[Samples, Samples | None]:
    """Samples that judge and samples that decide, of other files where files are known."""
    total = len(samples)
    count = max(_FEWEST, round(total * (1 - settings.heldout / _apart(settings))))
    if total < _FEWEST + 3:
        return samples, None
    if samples.files:
        samples, skipped = samples.take(sorted(range(total), key=lambda i: str(samples.files[i]))), samples.skipped
        samples.skipped = skipped
        edges = [i for i in range(1, total) if samples.files[i - 1] != samples.files[i]]
        count = total - min(edges, key=lambda i: abs(total - count - i), default=total)
        if not count:
            return samples, None
    heldout, deciding = samples[: total - count], samples[total - count :]
    heldout.skipped = samples.skipped
    return heldout, deciding


def _made_up(loaded: LoadedModel, images: Any, settings: Settings, forward: Forward | None) -> Inputs:
    size = loaded.preprocess.input_size
    if settings.data_free == "noise":
        made, note = gaussian_noise(size, settings.calibration, settings.seed), "Gaussian noise instead of images."
    else:
        made, note = batchnorm_inputs(loaded.model, size, settings.calibration, settings.seed)
    if images is not None:
        # real images may still judge the result; none of them calibrates it
        real = Settings.of({**settings.model_dump(), "data_free": None})
        found = find_inputs(loaded, images, real, forward)
        source = f"data-free ({settings.data_free}); judged on {found.source}"
        return replace(found, calibration=TensorSamples(made), source=source, notes=[note, *found.notes], near=None)
    heldout = gaussian_noise(size, settings.heldout, settings.seed + 1) if settings.data_free == "noise" else made
    notes = [note, "Judged on made-up inputs as well."]
    return Inputs(TensorSamples(made), TensorSamples(heldout), f"data-free ({settings.data_free})", notes)
