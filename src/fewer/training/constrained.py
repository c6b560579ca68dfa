"""What training may not change: which weights are zero, and which values a stored precision has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.formats.integers import BITS, rounded

__all__ = ["Constrained", "Held"]


@dataclass(frozen=True)
class Held:
    """What is fixed of one layer's weight.

    Attributes
    ----------
    mask
        True where a weight stays, in the weight's shape; None where all stay.
    precision
        ``fp32``, ``bf16``, ``fp16``, ``int8`` or ``int4``.
    """

    mask: Tensor | None = None
    precision: str = "fp32"


@dataclass(eq=False)
class _Trained:
    name: str
    live: nn.Parameter
    latent: nn.Parameter
    held: Held


class Constrained:
    """The parameters of a model under training, so that the model always is one that can be saved.

    A weight of a low precision is trained as a latent fp32 copy. The model itself holds what is stored: the latent
    weight, cut by its mask and rounded. Gradients are those of the rounded weight (straight-through).

    Parameters
    ----------
    model
        Compressed; its weights are zero outside of their masks.
    held
        By layer name. Other parameters are trained without constraint.
    frozen
        Names of modules whose parameters stay as they are.
    only_trainable
        Leave parameters as they are that ask for no gradient; by default every floating one is made to learn.

    Raises
    ------
    FewerError
        When a name is no layer or a mask does not fit.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 1, bias=False))
    >>> mask = torch.tensor([[True, False]])
    >>> weights = Constrained(net, {"0": Held(mask, "int8")})
    >>> net(torch.ones(1, 2)).sum().backward()
    >>> weights.collect()
    >>> weights.parameters()[0].grad
    tensor([[1., 0.]])
    >>> with torch.no_grad():
    ...     weights.parameters()[0] += 3.0
    >>> weights.install()
    >>> net[0].weight[0, 1].item()
    0.0
    """

    def __init__(
        self,
        model: nn.Module,
        held: Mapping[str, Held],
        frozen: Sequence[str] = (),
        *,
        only_trainable: bool = False,
    ) -> None:
        self.model = model
        weights: dict[int, Held] = {}
        for name, what in held.items():
            weight = getattr(model.get_submodule(name), "weight", None)
            if weight is None:
                raise FewerError(f"{name!r} has no weight to train")
            if what.mask is not None and what.mask.shape != weight.shape:
                raise FewerError(
                    f"the mask of {name!r} has shape {tuple(what.mask.shape)}, its weight {tuple(weight.shape)}"
                )
            weights[id(weight)] = what
        still = {id(p) for name in frozen for p in model.get_submodule(name).parameters()}
        self.entries: list[_Trained] = []
        for name, live in model.named_parameters():  # each once, also if it is tied
            learns = live.requires_grad or not only_trainable
            live.requires_grad_(learns and live.is_floating_point() and id(live) not in still)
            if not live.requires_grad:
                continue
            what = weights.get(id(live), Held())
            own = what.precision != "fp32" or live.dtype not in (torch.float32, torch.float64)
            latent = nn.Parameter(live.detach().float().clone()) if own else live
            self.entries.append(_Trained(name, live, latent, what))

    def parameters(self) -> list[nn.Parameter]:
        """What an optimiser steps on: latent weights, and the model's own parameters where they are not rounded."""
        return [entry.latent for entry in self.entries]

    def live(self) -> list[nn.Parameter]:
        """The model's own parameters, in the order of :meth:`parameters`."""
        return [entry.live for entry in self.entries]

    def names(self) -> list[str]:
        """Names of :meth:`parameters` in the model's state."""
        return [entry.name for entry in self.entries]

    @torch.no_grad()
    def scales(self, least: float = 1e-3) -> list[float]:
        """Root mean square of the entries that stay, of each parameter: what a step is small or large against."""
        found = []
        for entry in self.entries:
            mask = entry.held.mask
            kept = int(mask.sum()) if mask is not None else entry.latent.numel()
            found.append(max(least, float((entry.latent.double().square().sum() / max(1, kept)).sqrt())))
        return found

    @torch.no_grad()
    def collect(self) -> None:
        """Hand the model's gradients to the latent weights, without those of weights that are gone."""
        for entry in self.entries:
            gradient = entry.live.grad
            if gradient is not None and entry.held.mask is not None:
                gradient = gradient.masked_fill(~entry.held.mask, 0.0)
            if entry.latent is not entry.live:
                entry.live.grad = None
            entry.latent.grad = None if gradient is None else gradient.to(entry.latent.dtype)

    @torch.no_grad()
    def install(self) -> None:
        """Write what would be stored into the model: latent weights cut and rounded."""
        for index, entry in enumerate(self.entries):
            value = self.stored(index, entry.latent)
            if value is not entry.live:
                entry.live.copy_(value)

    @torch.no_grad()
    def stored(self, index: int, value: Tensor) -> Tensor:
        """What would be stored for ``value`` of the parameter at ``index``: cut by its mask and rounded.

        Returns
        -------
        Tensor
            ``value`` itself where nothing is held.
        """
        held = self.entries[index].held
        if held.mask is not None:
            value = value.masked_fill(~held.mask, 0.0)
        if held.precision != "fp32":
            matrix = value.float().flatten(1) if held.precision in BITS else value
            value = rounded(matrix, held.precision).view(value.shape)
        return value
