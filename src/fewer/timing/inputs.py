"""What the model is fed while it is timed: the caller's tensors, images, installed photos, or seeded noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.timing.sources import Subject

__all__ = ["CALIBRATION", "Inputs", "make_inputs"]

CALIBRATION = 32
"""Images that the int8 peers are calibrated on, where there are as many."""
JUDGED = 16
"""Images that errors are taken from, where there are as many."""


@dataclass(frozen=True)
class Inputs:
    """The model's arguments, images for the calibration of int8 peers, and where they come from, for people.

    ``judged`` are further batches of the shape of the argument, for the errors; empty where there are none.
    """

    arguments: list[Tensor]
    calibration: Tensor
    origin: str
    judged: tuple[Tensor, ...] = ()


def make_inputs(
    subject: Subject,
    example: Any = None,
    images: Any = None,
    calibration: Tensor | None = None,
    batch: int = 1,
    seed: int = 0,
) -> Inputs:
    """Choose the inputs: ``example`` first, then ``images``, then those of the run, then photos of installed packages.

    With none of these it is noise. Of a run, images that it held out are timed and judged, and the others calibrate.

    Raises
    ------
    FewerError
        When they are empty, no tensors, or the input size is not known.
    """
    if batch < 1:
        raise FewerError(f"the batch must be at least 1; got {batch}")
    if example is not None:
        arguments = _checked(example)
        return Inputs(arguments, arguments[0] if calibration is None else calibration, "the given tensors")
    apart = _of_run(subject, batch, seed) if images is None else None
    if apart is not None:
        heldout, others = apart
        whole = tuple(heldout[at : at + batch].contiguous() for at in range(0, len(heldout) - batch + 1, batch))
        return Inputs([whole[0]], others if calibration is None else calibration, "held-out images of the run", whole)
    photos, origin = _photos(subject, images, batch, seed)
    if photos is None:
        noise = _noise(subject, batch, seed)
        return Inputs(
            [noise], noise if calibration is None else calibration, "seeded noise (so the errors mean little)"
        )
    rest = photos[batch:]
    if calibration is None:
        calibration = rest if len(rest) >= 8 else photos
    whole = [photos[at : at + batch].contiguous() for at in range(0, len(photos) - batch + 1, batch)]
    judged = tuple(whole[: max(1, JUDGED // batch)])
    return Inputs([photos[torch.arange(batch) % len(photos)].contiguous()], calibration, origin, judged)


def _of_run(subject: Subject, batch: int, seed: int) -> tuple[Tensor, Tensor] | None:
    """Held-out and other images of a run, or None where its images are not at hand or too few for a batch."""
    from fewer.core.run import RunFolder
    from fewer.data.images import load_images

    if subject.run is None or subject.preprocess is None:
        return None
    try:
        folder = RunFolder.open(subject.run)
        images = folder.read_config().get("images") if folder.has("config") else None
        there = Path(images).is_dir() if isinstance(images, str) else isinstance(images, list) and bool(images)
        if images is None or not there:
            return None
        count = max(batch, JUDGED // batch * batch)
        heldout = load_images(images, count, seed, subject.preprocess, part="heldout", crops=None).tensor
        others = load_images(images, CALIBRATION, seed, subject.preprocess, part="calibration", crops=None).tensor
    except FewerError:
        return None
    return (heldout, others) if len(heldout) >= batch else None


def _checked(example: Any) -> list[Tensor]:
    arguments = [example] if isinstance(example, Tensor) else list(example)
    if not arguments or not all(isinstance(a, Tensor) for a in arguments):
        raise FewerError("example must be a tensor or a sequence of tensors, the arguments of the model")
    if any(a.dim() == 0 or len(a) == 0 for a in arguments):
        shapes = [tuple(a.shape) for a in arguments]
        raise FewerError(f"the example has shape {shapes[0] if len(shapes) == 1 else shapes}; it needs a batch above 0")
    return [a.detach().cpu().contiguous() for a in arguments]


def _photos(subject: Subject, images: Any, batch: int, seed: int) -> tuple[Tensor | None, str]:
    from fewer.data.calibration import as_calibration
    from fewer.data.photos import real_photos

    given = images is not None
    if not given:
        if subject.preprocess is None or subject.preprocess.input_size[0] != 3:
            return None, ""
        try:
            images = [photo.path for photo in real_photos()]
        except FewerError:
            return None, ""
    found = as_calibration(images, batch + CALIBRATION, seed=seed, preprocess=subject.preprocess)
    skipped = f" ({len(found.skipped)} unreadable skipped)" if found.skipped else ""
    return found.tensor, ("the given images" if given else "photos of installed packages") + skipped


def _noise(subject: Subject, batch: int, seed: int) -> Tensor:
    if subject.input_size is None:
        raise FewerError(f"the input size of {subject.name} is not known; pass example= a tensor, or images=")
    return torch.randn(batch, *subject.input_size, generator=torch.Generator().manual_seed(seed))
