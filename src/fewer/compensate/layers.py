"""A unit inside a live model: the modules that use its weight, and where its output can be shifted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.unit import Unit
from fewer.models.running import Forward, call, evaluating

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@dataclass(frozen=True, eq=False)
class Layer:
    """One unit of one model instance.

    Parameters
    ----------
    unit
        What it is called and how large it is.
    users
        Modules that hold the weight; several when it is tied.
    norm
        The BatchNorm that takes the output of this layer and of nothing else, or None.
    """

    unit: Unit
    users: tuple[nn.Module, ...]
    norm: nn.Module | None = None

    @property
    def weight(self) -> nn.Parameter:
        """The live weight."""
        return self.users[0].weight  # type: ignore[return-value]

    @property
    def matrix(self) -> Tensor:
        """The weight as a matrix of shape (out, inputs per group times kernel); a view."""
        return self.weight.detach().flatten(1)

    @property
    def centred(self) -> bool:
        """Whether the layer's mean output can be corrected: by its bias or by the BatchNorm behind it."""
        return self.norm is not None or all(getattr(user, "bias", None) is not None for user in self.users)

    @property
    def offset(self) -> Tensor:
        """What the layer (of a tied weight: its first user) or the BatchNorm behind it adds; shape (out,)."""
        if self.norm is not None:
            return -self.norm.running_mean.float()  # type: ignore[operator, union-attr]
        bias = getattr(self.users[0], "bias", None)
        return torch.zeros(self.unit.rows) if bias is None else bias.detach().float()

    @torch.no_grad()
    def install(self, matrix: Tensor, shift: Tensor | None = None, spread: Tensor | None = None) -> None:
        """Write a weight, shift the output's mean and rescale BatchNorm's variance, in place.

        Parameters
        ----------
        matrix
            Shape (out, columns).
        shift
            Added to the output per channel, shape (out,).
        spread
            Factor on the variance that BatchNorm expects, shape (out,).
        """
        self.weight.copy_(matrix.view_as(self.weight))
        if shift is not None:
            if self.norm is not None:
                self.norm.running_mean -= shift.to(self.norm.running_mean)  # type: ignore[operator, union-attr]
            else:
                biases = {id(user.bias): user.bias for user in self.users if getattr(user, "bias", None) is not None}
                for bias in biases.values():
                    bias += shift.to(bias)  # type: ignore[operator]
        if spread is not None and self.norm is not None:
            self.norm.running_var *= spread.to(self.norm.running_var)  # type: ignore[operator, union-attr]

    @contextmanager
    def borrowed(self) -> Iterator[None]:
        """Give every tensor that :meth:`install` touches its old value back at the end, bit for bit."""
        tensors: list[Tensor] = [self.weight.data]
        if self.norm is not None:
            tensors += [self.norm.running_mean, self.norm.running_var]  # type: ignore[list-item]
        tensors += [user.bias.data for user in self.users if getattr(user, "bias", None) is not None]  # type: ignore[union-attr]
        saved = [t.clone() for t in tensors]
        try:
            yield
        finally:
            with torch.no_grad():
                for tensor, old in zip(tensors, saved, strict=True):
                    tensor.copy_(old)


def find_layers(
    model: nn.Module, units: Sequence[Unit], example: Any, forward: Forward | None = None
) -> dict[str, Layer]:
    """Look up units in a model, and the BatchNorm right behind each.

    A BatchNorm is taken when it runs once, its input is the very tensor that the layer gave, the layer ran once, and
    it keeps running statistics.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4))
    >>> layers = find_layers(net, [Unit("0", "conv2d", (4, 3, 1, 1))], torch.zeros(1, 3, 2, 2))
    >>> layers["0"].norm is net[1]
    True
    """
    users = {u.name: tuple(model.get_submodule(n) for n in (u.name, *u.aliases)) for u in units}
    norms = _norms_behind(model, [m for ms in users.values() if len(ms) == 1 for m in ms], example, forward)
    return {u.name: Layer(u, users[u.name], norms.get(users[u.name][0])) for u in units}


def _norms_behind(
    model: nn.Module, modules: Sequence[nn.Module], example: Any, forward: Forward | None
) -> Mapping[nn.Module, nn.Module]:
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensor is held, so that its id stays its own
    calls: dict[nn.Module, int] = {}
    found: dict[nn.Module, nn.Module] = {}
    handles = []

    def leave(module: nn.Module, _inputs: Any, output: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(output, Tensor):
            made[id(output)] = (module, output)

    def enter(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[norm] = calls.get(norm, 0) + 1
        if inputs and id(inputs[0]) in made:
            found[made[id(inputs[0])][0]] = norm

    try:
        for module in set(modules):
            handles.append(module.register_forward_hook(leave))
        for norm in model.modules():
            if isinstance(norm, _NORMS) and norm.track_running_stats and norm.running_mean is not None:
                handles.append(norm.register_forward_pre_hook(enter))
        with evaluating(model):
            call(model, example, forward)
    finally:
        for handle in handles:
            handle.remove()
    return {module: norm for module, norm in found.items() if calls[module] == 1 and calls[norm] == 1}
