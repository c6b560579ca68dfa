"""The images of a recovery: which it learns from, which it is chosen by, and which it is judged by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.data.crops import FileViews, SampleViews, TensorViews
from fewer.data.images import list_images, open_images, split_files
from fewer.data.samples import Samples, TensorSamples, join_samples
from fewer.engine.prepare import Prepared
from fewer.engine.samples import all_paths
from fewer.tasks import reads_inputs

__all__ = ["Views", "views_of"]

_FEWEST = 4  # files: one is held out
_MOST = 64  # images of unused held-out files that choose: more cost time at every examination


@dataclass(frozen=True, eq=False)
class Views:
    """Training images, and the held-out ones that choose the best state.

    Attributes
    ----------
    training
        Draws random views.
    choosing
        Samples that choose the best state; of files that are never drawn, and that the repair never saw:
        on images that it was fitted to the start would look better than anything that comes after it.
    judges
        Shape (held-out images of the run,), True for those that chose nothing, and tell what was won.
    names
        What identifies the training images.
    source
        For people.
    """

    training: FileViews | TensorViews | SampleViews
    choosing: Samples
    judges: Tensor
    names: list[str]
    source: str
    dtype: torch.dtype

    def __len__(self) -> int:
        return len(self.training)

    def draw(self, step: int, count: int) -> Samples:
        """The samples of a step."""
        drawn = self.training.draw(step, count)
        return (TensorSamples(drawn) if isinstance(drawn, Tensor) else drawn).to(self.dtype)

    def step(self, step: int, count: int) -> Any:
        """The batch of a step of training; fewer samples where they do not all fit into one batch."""
        return self.draw(step, count).split(count)[0].batch()


def views_of(prepared: Prepared, images: Any, seed: int = 0) -> Views:
    """Split the images of a run into those to learn from, those to choose by, and those to judge by.

    All images that the compression was calibrated with teach. Held-out files that the run had no use for choose, where
    there are enough of them, and all of the run's held-out images tell what was won. Otherwise half of these choose as
    well, and the other half choose nothing and tell.

    Raises
    ------
    FewerError
        When there are too few images to set some apart.
    """
    files = None if reads_inputs(prepared.loaded.task, images) else _files(images)
    heldout_files = prepared.heldout.files
    chooses = _every_second(heldout_files, len(prepared.heldout))
    if files is None:
        return _of_samples(prepared, chooses, seed)
    paths, keys, source = files
    if len(paths) < _FEWEST:
        raise FewerError(
            f"{source} holds {len(paths)} image{'s' if len(paths) != 1 else ''}: too few to learn from some and be "
            f"judged by others; give at least {_FEWEST}, better 50 or more"
        )
    key_of = dict(zip(paths, keys, strict=True))
    unreadable = {name for name, _ in prepared.inputs.skipped}
    taught = sorted(path for path in split_files(paths, keys, "calibration") if str(path) not in unreadable)
    if not taught:
        raise FewerError(f"{source} holds too few readable images; give at least {_FEWEST}, better 50 or more")
    # where there are files enough, the held-out ones are whole images, and so should be what is learnt from
    whole = len(set(heldout_files)) == len(prepared.heldout)
    training = FileViews(taught, prepared.loaded.preprocess, seed, whole)
    spare = _spare(prepared, split_files(paths, keys, "heldout"), seed) if whole else None
    if spare is not None and len(spare) >= int(chooses.sum()):
        choosing, judges = spare, torch.ones_like(chooses)
    else:
        own = prepared.heldout[chooses]
        choosing, judges = own if spare is None else join_samples([own, spare]), ~chooses
    return Views(training, choosing, judges, [key_of[path] for path in taught], source, _dtype(prepared))


def _spare(prepared: Prepared, heldout: Sequence[Path], seed: int) -> Samples | None:
    """Images of held-out files that the run did not look at; None without any."""
    used = set(prepared.heldout.files)
    unused = [path for path in heldout if path not in used]
    if not unused:
        return None
    try:
        images = open_images(unused, _MOST, seed, prepared.loaded.preprocess)
    except FewerError:  # none of them can be read
        return None
    return images.to(_dtype(prepared))


def _dtype(prepared: Prepared) -> torch.dtype:
    """In which the model takes its inputs."""
    return next((p.dtype for p in prepared.model.parameters() if p.is_floating_point()), torch.float32)


def _every_second(files: Sequence[Path], count: int) -> Tensor:
    """Which of ``count`` images choose: all of every second file, or every second one where there is but one file.

    Examples
    --------
    >>> _every_second([Path("a"), Path("a"), Path("b"), Path("c")], 4)
    tensor([ True,  True, False,  True])
    >>> _every_second([], 3)
    tensor([ True, False,  True])
    """
    names = list(dict.fromkeys(files))
    places = [names.index(file) for file in files] if len(names) > 1 else range(count)
    return torch.tensor([place % 2 == 0 for place in places])


def _files(images: Any) -> tuple[list[Path], list[str], str] | None:
    """Files of a folder or list, names that are the same on every machine, and where they are from."""
    if isinstance(images, (str, Path)):
        paths = list_images(images)
        return paths, [path.relative_to(images).as_posix() for path in paths], f"the folder {images}"
    if all_paths(images):
        paths = [Path(i) for i in images]
        return paths, [f"{path.parent.name}/{path.name}" for path in paths], f"the list of {len(paths)} files"
    return None


def _of_samples(prepared: Prepared, chooses: Tensor, seed: int) -> Views:
    samples = prepared.calibration
    if len(samples) < 2 or len(prepared.heldout) < 2:
        count = len(samples) + len(prepared.heldout)
        raise FewerError(f"{count} images are too few to learn from some and be judged by others; give at least 8")
    tensor = samples.tensor
    training = SampleViews(samples, seed) if tensor is None else TensorViews(tensor, seed)
    choosing = prepared.heldout[chooses]
    return Views(training, choosing, ~chooses, [samples.digest()], prepared.inputs.source, _dtype(prepared))
