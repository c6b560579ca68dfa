"""Pixels: an outer choice. A model that judges an image as a whole can make it smaller first; all layers get quicker.

Cuts take from a network what it has learnt. Fewer pixels take from the image, of which a network trained at one size
usually needs less. Without any training that is often the better bargain.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.cost.stopwatch import Stopwatch
from fewer.data.samples import Samples
from fewer.engine.deploy import measured_here
from fewer.engine.frames import choose_frames, leaves_out_frames, offered_steps
from fewer.engine.offers import Offer, choose_offer
from fewer.engine.prepare import Prepared
from fewer.engine.sense import Sensed
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.kernels.copies import copied_module
from fewer.kernels.pixels import fewer_pixels, pixels_of
from fewer.models.running import call, evaluating, model_input, tensors_of, use_threads

__all__ = ["choose_less", "choose_pixels", "gain_of", "least_share", "offers_pixels", "shrinkable"]

_WORK = ("latency", "flops", "macs", "energy")
"""What fewer pixels take less of."""

_CHANNELS = 16
"""An image tensor has at most so many; more of them in the second place are the height of images in another layout."""
_LEAST_GAIN = 0.25
_SHARES = (0.93, 0.86, 0.79, 0.71, 0.64, 0.57, 0.5)
"""Of a side; the last one leaves a quarter of the pixels."""


def shrinkable(prepared: Prepared) -> tuple[int, list[int]]:
    """The longer side of the images, and the shorter ones at which the model gives an answer of the same shape.

    It is found out once for a model.

    Raises
    ------
    FewerError
        When there are none, with what is in the way.
    """
    if "pixels" not in prepared.shared:
        prepared.shared["pixels"] = _sizes(prepared)
    return prepared.shared["pixels"]


def _sizes(prepared: Prepared) -> tuple[int, list[int]]:
    if prepared.forward is not None:
        raise FewerError("images cannot be made smaller in a model with its own forward=; leave pixels out")
    example = model_input(prepared.model, prepared.example)
    image = isinstance(example, Tensor) and example.ndim == 4 and example.is_floating_point()
    if not image or example.shape[1] > _CHANNELS or min(example.shape[-2:]) < _CHANNELS:
        raise FewerError("pixels are a choice for models that take one image tensor [N, C, H, W]; leave pixels out")
    if pixels_of(prepared.model):
        raise FewerError("the model makes its images smaller already; leave pixels out")
    side = max(example.shape[-2:])
    step = 8 if side >= 64 else 4
    sizes = sorted({step * round(side * share / step) for share in _SHARES}, reverse=True)
    twin = copied_module(prepared.model)
    with evaluating(twin):
        usual = _shapes(call(twin, example))
        found = [size for size in sizes if 0 < size < side and _fits(fewer_pixels(twin, size, side), example, usual)]
    if not found:
        raise FewerError(
            "the model does not give an answer of the same shape for smaller images, such as one that gives a map or "
            "that has a parameter for each place; leave pixels out"
        )
    return side, found


def offers_pixels(prepared: Prepared, settings: Settings, budgets: Sequence[Budget]) -> bool:
    """Whether smaller images, or fewer frames of sequences, are offered.

    As the settings say, or where they say nothing, where they are of use.

    Raises
    ------
    FewerError
        When they are asked for and impossible.
    """
    if settings.pixels == "auto":
        others = settings.tokens or settings.approximate is not None or settings.schedule == "iterative"
        if others or settings.accelerator is not None or not any(budget.metric in _WORK for budget in budgets):
            return False
        try:
            return leaves_out_frames(prepared) or (bool(shrinkable(prepared)) and _is_vector(prepared))
        except FewerError:
            return False
    return settings.pixels == "on" and (leaves_out_frames(prepared) or bool(shrinkable(prepared)))


def _is_vector(prepared: Prepared) -> bool:
    """Whether the answer says nothing of places: a map may have its size whatever the image's."""
    with evaluating(prepared.model):
        shapes = _shapes(call(prepared.model, prepared.example, prepared.forward))
    return all(len(shape) < 3 or max(shape[2:]) == 1 for shape in shapes)


def least_share(prepared: Prepared) -> float:
    """What the smallest size, or the fewest frames, leave of the work of the layers."""
    if leaves_out_frames(prepared):
        return 1 / offered_steps(prepared)[2][-1]
    side, sizes = shrinkable(prepared)
    return (sizes[-1] / side) ** 2


def _shapes(output: object) -> list[tuple[int, ...]]:
    return [tuple(t.shape) for t in tensors_of(output)]


def _fits(model: torch.nn.Module, example: Tensor, usual: list[tuple[int, ...]]) -> bool:
    try:
        return _shapes(call(model, example)) == usual
    except Exception:  # a model may refuse a size in any way
        return False


def choose_less(work: Work, sensed: Sensed, budgets: Sequence[Budget], store: Path | None = None) -> Sensed:
    """Fewer frames of sequences, smaller images of anything else; see :func:`choose_pixels`."""
    return (choose_frames if leaves_out_frames(work.prepared) else choose_pixels)(work, sensed, budgets, store)


def choose_pixels(work: Work, sensed: Sensed, budgets: Sequence[Budget], store: Path | None = None) -> Sensed:
    """The size of images whose best plan distorts least, as curves at its costs (:func:`choose_offer`).

    Parameters
    ----------
    work
        The model and how it is compressed.
    sensed
        Curves on images as they are.
    budgets
        All that must hold.
    store
        Folder with the repaired weights of every option; without it predictions decide.

    Returns
    -------
    Sensed
        As given when all pixels are best. Otherwise ``curves.meta["pixels"]`` says how many stay along each side
        (``kept`` of ``of``) and what was tried, and ``plain`` holds the curves as given.

    Raises
    ------
    FewerError
        When the model cannot take smaller images, or the budgets cannot be met even with them.
    """
    prepared = work.prepared
    side, sizes = shrinkable(prepared)

    def offers() -> Iterator[Offer]:
        wanted = _answers(prepared.model, sensed.batches)
        for size in sizes:
            smaller = fewer_pixels(copied_module(prepared.model), size, side)
            gain = gain_of(wanted, _answers(smaller, sensed.batches))
            yield Offer(
                f"{size} pixels",
                {"kept": size, "of": side, "gain": gain},
                fewer_pixels(smaller, size, side, gain),
                size,
                (size / side) ** 2,
                partial(_resizing_ms, work, sensed, size, side),
            )

    return choose_offer(work, sensed, budgets, store, "pixels", side, offers(), len(sizes))


def _answers(model: torch.nn.Module, batches: Sequence[Samples]) -> Tensor | None:
    """The answers to some batches, where each is one vector of scores; None where they are anything else."""
    with evaluating(model):
        found = [call(model, batch) for batch in batches]
    if not all(isinstance(answer, Tensor) and answer.ndim == 2 for answer in found):
        return None
    return torch.cat([answer.detach().double().cpu() for answer in found])


def gain_of(wanted: Tensor | None, found: Tensor | None) -> float:
    """By what the answers to smaller images are multiplied, so that they are nearest to those that are wanted.

    Smaller images change how loudly a network answers more than what it answers, and one number makes up for that.
    It is 1 for answers that would no longer be what they are: numbers from 0 to 1, logarithms of probabilities,
    and vectors of one length.

    Examples
    --------
    >>> gain_of(torch.tensor([[1.0, -2.0]]), torch.tensor([[2.0, -4.0]]))
    0.5
    """
    if wanted is None or found is None or wanted.shape != found.shape:
        return 1.0
    if _is_scaled(wanted):
        return 1.0
    gain = float((wanted * found).sum() / found.square().sum().clamp_min(1e-30))
    return min(max(gain, _LEAST_GAIN), 1 / _LEAST_GAIN)


def _is_scaled(answers: Tensor) -> bool:
    """Whether numbers are probabilities, their logarithms, or vectors of one length."""
    ones = torch.ones(len(answers), dtype=answers.dtype)
    lengths = answers.norm(dim=1)
    return bool(
        ((answers >= 0) & (answers <= 1)).all()
        or torch.allclose(answers.exp().sum(1), ones, atol=1e-3)
        or (len(answers) > 1 and torch.allclose(lengths, lengths.mean() * ones, rtol=1e-3))
    )


def _resizing_ms(work: Work, sensed: Sensed, size: int, side: int) -> float:
    """Milliseconds that it takes to make an image smaller; 0 for a device that is not this one."""
    if not measured_here(sensed.curves):
        return 0.0
    example = model_input(work.prepared.model, work.prepared.example)
    resize = fewer_pixels(torch.nn.Identity(), size, side)
    x = example[:1].expand(work.settings.deploy_batch, *example.shape[1:]).contiguous()
    with use_threads(work.settings.threads), torch.inference_mode():
        watch = Stopwatch()
        ratio = watch.time({"resize": lambda: resize(x)}, budget_ms=30.0)["resize"].ratio
        return ratio * watch.reference_ms
