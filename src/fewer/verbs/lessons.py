"""The images of a recovery: which it learns from, and which it is chosen by; none of the report's."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fewer.core.errors import FewerError
from fewer.data.crops import FileViews, TensorViews
from fewer.data.images import list_images, split_files
from fewer.tasks import TASKS
from fewer.verbs.prepare import Prepared
from fewer.verbs.settings import Settings

__all__ = ["Views", "views_of"]

_SHARE = 5  # one of so many files chooses
_FEWEST = 4  # files: one is held out, one chooses, two teach


@dataclass(frozen=True, eq=False)
class Views:
    """Training images, and those that choose the best state.

    Attributes
    ----------
    training
        Draws random views.
    choosing
        A fixed tensor; of files that are never drawn.
    names
        What identifies the training images.
    source
        For people.
    """

    training: FileViews | TensorViews
    choosing: Tensor
    names: list[str]
    source: str

    def __len__(self) -> int:
        return len(self.training.files) if isinstance(self.training, FileViews) else len(self.training.images)

    def draw(self, step: int, count: int) -> Tensor:
        """The images of a step."""
        return self.training.draw(step, count)


def views_of(prepared: Prepared, images: Any, settings: Settings, seed: int = 0) -> Views:
    """Split the images of a run into those to learn from and those to choose by.

    The report's held-out images are in neither. Files: a fifth of those that are not held out choose, by the hash of
    their names. Tensors and patches of a task: those that harm was measured on choose.

    Raises
    ------
    FewerError
        When there are too few images to set some apart.
    """
    files = _files(images) if prepared.loaded.task not in TASKS else None
    if files is None:
        return _of_tensor(prepared, seed)
    paths, keys, source = files
    if len(paths) < _FEWEST:
        raise FewerError(
            f"{source} holds {len(paths)} image{'s' if len(paths) != 1 else ''}: too few to learn from some and be "
            f"judged by others; give at least {_FEWEST}, better 50 or more"
        )
    key_of = dict(zip(paths, keys, strict=True))
    unreadable = {name for name, _ in prepared.skipped}
    usable = [path for path in split_files(paths, keys, "calibration") if str(path) not in unreadable]
    usable.sort(key=lambda path: hashlib.sha256(b"choose" + key_of[path].encode()).digest())
    count = max(1, len(usable) // _SHARE)
    chosen, taught = usable[:count], sorted(usable[count:])
    if not taught:
        raise FewerError(f"{source} holds too few readable images; give at least {_FEWEST}, better 50 or more")
    choosing = FileViews(chosen, prepared.loaded.preprocess, settings.seed + 1)
    tensor = choosing.draw(0, settings.sensing).to(prepared.calibration.dtype)
    training = FileViews(taught, prepared.loaded.preprocess, seed)
    return Views(training, tensor, [key_of[path] for path in taught], source)


def _files(images: Any) -> tuple[list[Path], list[str], str] | None:
    """Files of a folder or list, names that are the same on every machine, and where they are from."""
    if isinstance(images, (str, Path)):
        paths = list_images(images)
        return paths, [path.relative_to(images).as_posix() for path in paths], f"the folder {images}"
    if isinstance(images, (list, tuple)) and images and all(isinstance(i, (str, Path)) for i in images):
        paths = [Path(i) for i in images]
        return paths, [f"{path.parent.name}/{path.name}" for path in paths], f"the list of {len(paths)} files"
    return None


def _of_tensor(prepared: Prepared, seed: int) -> Views:
    choosing, rest = prepared.sensing_images, prepared.repair_images
    if prepared.apart[1] == 0 or not len(rest):
        count = len(prepared.calibration) + len(prepared.heldout)
        raise FewerError(f"{count} images are too few to learn from some and be judged by others; give at least 8")
    names = [hashlib.sha256(rest.double().contiguous().numpy().tobytes()).hexdigest()]
    return Views(TensorViews(rest, seed), choosing, names, prepared.source)
