"""Frames: an outer choice. A model that judges a sequence as a whole may look at every second frame of it only.

Neighbouring frames are alike, so that a network of which none is needed in particular loses little; and nothing else
makes the work between its layers, such as pooling and copies, less as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.engine.offers import Offer, choose_offer
from fewer.engine.prepare import Prepared
from fewer.engine.sense import Sensed
from fewer.engine.work import Work
from fewer.kernels.copies import copied_module
from fewer.kernels.frames import fewer_frames, frames_of
from fewer.models.running import call, evaluating, model_input, tensors_of

__all__ = ["choose_frames", "leaves_out_frames", "offered_steps"]

_STEPS = (2, 3, 4)
_PLANES = 4
"""So many numbers for a pixel, or fewer, are colours; an axis with more of them is one of places or of frames."""
_FEWEST = 8
"""A sequence with fewer frames than this has none to spare."""


def offered_steps(prepared: Prepared) -> tuple[int, int, list[int]]:
    """Frames of the example, their axis, and every how manyth frame may be looked at alone.

    It is found out once for a model.

    Raises
    ------
    FewerError
        When the model takes no sequences of images, or its answer depends on how many frames there are.
    """
    if "frames" not in prepared.shared:
        prepared.shared["frames"] = _steps(prepared)
    return prepared.shared["frames"]


def leaves_out_frames(prepared: Prepared) -> bool:
    """Whether the model takes sequences, and gives an answer of the same shape for fewer frames."""
    try:
        return bool(offered_steps(prepared))
    except FewerError:
        return False


def _axis_of(example: Tensor) -> int | None:
    """Where frames are: [N, T, H, W], and with colours [N, T, C, H, W] or [N, C, T, H, W]; None where nowhere."""
    shape = example.shape
    if example.ndim == 4 and shape[3] > _PLANES:  # with so few, it is an image whose colours come last
        return 1
    if example.ndim == 5:
        return 1 if shape[2] <= _PLANES < shape[1] else 2 if shape[1] <= _PLANES < shape[2] else None
    return None


def _steps(prepared: Prepared) -> tuple[int, int, list[int]]:
    example = model_input(prepared.model, prepared.example)
    floats = isinstance(example, Tensor) and example.is_floating_point()
    axis = _axis_of(example) if floats and prepared.forward is None else None
    if axis is None or example.shape[axis] < _FEWEST:
        raise FewerError("frames are a choice for models that take one tensor of sequences of images")
    if frames_of(prepared.model):
        raise FewerError("the model leaves out frames already")
    twin = copied_module(prepared.model)
    with evaluating(twin):
        usual = _shapes(call(twin, example))
        found = [step for step in _STEPS if _fits(fewer_frames(twin, step, axis), example, usual)]
    if not found:
        raise FewerError("the model does not give an answer of the same shape for fewer frames")
    return int(example.shape[axis]), axis, found


def _shapes(output: object) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in tensors_of(output)]


def _fits(model: object, example: Tensor, usual: list[tuple[int, ...]]) -> bool:
    try:
        return _shapes(call(model, example)) == usual  # type: ignore[arg-type]
    except Exception:  # a model may refuse a number of frames in any way
        return False


def choose_frames(work: Work, sensed: Sensed, budgets: Sequence[Budget], store: Path | None = None) -> Sensed:
    """The frames that stay where the best plan distorts least, as curves at its costs (:func:`choose_offer`).

    Parameters
    ----------
    work
        The model and how it is compressed.
    sensed
        Curves on all frames.
    budgets
        All that must hold.
    store
        Folder with the repaired weights of every option; without it predictions decide.

    Returns
    -------
    Sensed
        As given when all frames are best. Otherwise ``curves.meta["frames"]`` says which stay (the first of ``every``
        so many along ``axis``) and what was tried, and ``plain`` holds the curves as given.

    Raises
    ------
    FewerError
        When the model cannot take fewer frames, or the budgets cannot be met even with them.
    """
    whole, axis, steps = offered_steps(work.prepared)

    def offers() -> Iterator[Offer]:
        for step in steps:
            left = -(-whole // step)
            sparser = fewer_frames(copied_module(work.prepared.model), step, axis)
            facts = {"every": step, "axis": axis, "kept": left, "of": whole}
            yield Offer(f"1 of {step} frames", facts, sparser, left, left / whole, lambda: 0.0)

    return choose_offer(work, sensed, budgets, store, "frames", whole, offers(), len(steps))
