"""The distance between two outputs of a model, sample by sample, whatever the output is made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fewer.core.errors import FewerError, near_match
from fewer.models.running import numbers_of

_HINT = (
    "such a change cannot be measured: give forward=, a function (model, batch) that returns what comes before that "
    "choice, such as all scores"
)


def output_tensors(output: Any) -> list[Tensor]:
    """All floating-point tensors of an output that is a tensor, tuple, list, mapping or a nest of them.

    Complex numbers are pairs of real ones in a last dimension.

    Objects with attributes (such as the outputs of transformers) count as mappings.

    Raises
    ------
    FewerError
        When the output holds no floating-point tensor.

    Examples
    --------
    >>> [t.shape[0] for t in output_tensors({"a": torch.zeros(2), "b": (torch.ones(3), 1)})]
    [2, 3]
    """
    found = numbers_of(output)
    if not found:
        raise FewerError(
            "the model's output holds no floating-point tensor, so its change cannot be measured; give forward=, a "
            "function (model, batch) that returns tensors, such as all scores"
        )
    if any(t.is_nested for t in found):
        raise FewerError(
            "the model's output is a nested tensor, whose change cannot be measured; give forward=, a function (model, "
            "batch) that returns it padded, with torch.nested.to_padded_tensor"
        )
    if any(str(t.layout) != "torch.strided" for t in found):
        raise FewerError(
            "the model's output is a sparse tensor, whose change cannot be measured; give forward=, a function (model, "
            "batch) that returns it with .to_dense()"
        )
    return found


_ONE = 1e-3
"""How far a sum of probabilities may be from 1, where their format is no coarser."""


def dimension_of_classes(output: Tensor) -> int | None:
    """Along which dimension an output holds probabilities: not negative, and 1 in all. None where it holds none.

    Of scores for each image, of those for each place of a sequence (last dimension, or first behind the images), and
    of maps of classes.

    Examples
    --------
    >>> dimension_of_classes(torch.randn(2, 5).softmax(1)), dimension_of_classes(torch.randn(2, 5))
    (1, None)
    >>> dimension_of_classes(torch.randn(2, 30, 97).softmax(2))
    2
    """
    if output.ndim < 2 or not output.numel() or bool((output < 0).any()):
        return None
    near = max(_ONE, torch.finfo(output.dtype).eps) if output.is_floating_point() else _ONE
    places = (2, 1) if output.ndim == 3 else (1,)
    one = (place for place in places if output.shape[place] > 1)
    return next((p for p in one if bool(((output.sum(p, dtype=torch.float64) - 1).abs() < near).all())), None)


class Reference:
    """Dense outputs of a calibration set, and the relative squared change of others against them.

    The change of one sample is ``|f~(x) - f(x)|^2`` over the mean of ``|f(x)|^2`` over all samples; 0 means the same
    output. Where a model has several output tensors, each is scaled by its own energy and they count alike.

    Parameters
    ----------
    outputs
        Outputs of the dense model, one per batch.

    Raises
    ------
    FewerError
        When an output is NaN or infinite.

    Examples
    --------
    >>> reference = Reference([torch.tensor([[3.0, 4.0]])])
    >>> reference.change(0, torch.tensor([[3.0, 0.0]]))
    tensor([0.6400], dtype=torch.float64)
    """

    def __init__(self, outputs: Sequence[Any]) -> None:
        self.tensors = [[t.detach() for t in output_tensors(o)] for o in outputs]
        energies = torch.zeros(len(self.tensors[0]), dtype=torch.float64)
        samples = 0
        for tensors in self.tensors:
            if [t.shape[1:] for t in tensors] != [t.shape[1:] for t in self.tensors[0]]:
                raise FewerError(f"the shape of the model's output depends on the images; {_HINT}")
            for i, t in enumerate(tensors):
                energies[i] += t.double().square().sum().cpu()
            samples += samples_of(tensors)
        if not bool(torch.isfinite(energies).all()):
            raise FewerError("the dense model's output holds NaN or infinity on the calibration images.")
        energies /= samples
        self.samples = samples
        # an output that is zero everywhere has no scale of its own; any change of it is measured as it is
        self.scale = torch.where(energies > 0, energies, torch.ones_like(energies)) * len(energies)

    def directions(self, batch: int, outputs: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Random signs over the outputs, each on its own scale; see :mod:`fewer.distortion.distance`."""
        return [
            (torch.randint(0, 2, t.shape, generator=generator).to(t) * 2 - 1) / scale.sqrt().to(t)
            for t, scale in zip(outputs, self.scale, strict=True)
        ]

    def part(self, start: int, stop: int) -> Reference:
        """The batches ``start`` to ``stop`` alone, on the scale of the whole."""
        part = object.__new__(Reference)
        part.tensors, part.scale = self.tensors[start:stop], self.scale
        part.samples = sum(samples_of(t) for t in part.tensors)
        return part

    def change(self, batch: int, output: Any) -> Tensor:
        """Relative squared change of each sample of one batch, float64, shape (samples of the batch,)."""
        wanted, got = self.tensors[batch], output_tensors(output)
        if [t.shape for t in wanted] != [t.shape for t in got]:
            raise FewerError(f"the shape of the model's output depends on its weights; {_HINT}")
        total = torch.zeros(samples_of(wanted), dtype=torch.float64)
        for scale, a, b in zip(self.scale, wanted, got, strict=True):
            difference = (b - a).float().square()
            if difference.ndim and difference.shape[0] % len(total) == 0:
                total += difference.reshape(len(total), -1).sum(1, dtype=torch.float64).cpu() / scale
            else:  # one value for the whole batch: its samples share the change
                total += difference.sum(dtype=torch.float64).cpu() / (scale * len(total))
        return total


def samples_of(tensors: Sequence[Tensor]) -> int:
    """Samples of a batch: the first dimension of its first output tensor."""
    return tensors[0].shape[0] if tensors[0].ndim else 1


def reduction(name: str) -> Callable[[Tensor], Tensor]:
    """Return a function from per-sample distortions, shape (..., samples), to one distortion per option.

    ``mean``; ``max`` (the worst sample, as in the ICCV 2023 rate-distortion pruning code); or ``cvar`` and ``cvar:0.2``
    (mean of the worst tenth, or fifth, of the samples), which is less at the mercy of one image than ``max``.

    Raises
    ------
    FewerError
        For an unknown name or a share outside 0 to 1.

    Examples
    --------
    >>> distortion = torch.tensor([1.0, 2.0, 3.0, 10.0])
    >>> [float(reduction(n)(distortion)) for n in ("mean", "max", "cvar:0.5")]
    [4.0, 10.0, 6.5]
    """
    kind, _, share = name.partition(":")
    if kind == "mean" and not share:
        return lambda distortion: distortion.mean(-1)
    if kind == "max" and not share:
        return lambda distortion: distortion.amax(-1)
    if kind == "cvar":
        try:
            fraction = float(share or 0.1)
        except ValueError:
            fraction = -1.0
        if 0 < fraction <= 1:
            return lambda distortion: distortion.topk(
                max(1, round(fraction * distortion.shape[-1])), dim=-1
            ).values.mean(-1)
        raise FewerError(f"'{name}' needs a share between 0 and 1, for example cvar:0.1")
    raise FewerError(
        f"unknown reduction '{name}'{near_match(kind, ('mean', 'max', 'cvar'))}; use mean, max or cvar:0.1"
    )
