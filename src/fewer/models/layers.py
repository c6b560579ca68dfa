"""A unit inside a live model: the modules that use its weight, and where its output can be shifted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.models.running import Forward, call, evaluating, tensors_of
from fewer.models.sparse import SparseConvolution
from fewer.patterns import to_matrix, to_weight

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
        """The weight as a matrix, see :func:`fewer.patterns.to_matrix`; not always a view."""
        return to_matrix(self.weight.detach())

    @property
    def centred(self) -> bool:
        """Whether the layer's mean output can be corrected: by its bias or by the BatchNorm behind it."""
        return self.norm is not None or all(getattr(user, "bias", None) is not None for user in self.users)

    @property
    def offset(self) -> Tensor:
        """What the layer (if tied: its first user) or the BatchNorm behind it adds to its output; shape (out,)."""
        if self.norm is not None:
            return -self.norm.running_mean.float()  # type: ignore[operator, union-attr]
        bias = getattr(self.users[0], "bias", None)
        return torch.zeros(self.unit.rows, device=self.weight.device) if bias is None else bias.detach().float()

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
        new = matrix.to(self.weight.dtype)
        if (
            self.weight.dtype == torch.float64
        ):  # repaired in single precision: what was not touched keeps all its digits
            new = torch.where(matrix == self.matrix.float(), self.matrix, new)
        self.weight.copy_(to_weight(new, self.weight.shape).clone())  # it may be a view of this very weight
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

    A BatchNorm is taken when it keeps running statistics, runs once, normalises the layer's outputs (and not another
    axis), its input is the very tensor that the layer gave, the layer ran once, and no other operation reads that
    tensor: only then is a shift of the running mean the same as a bias.

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
    norms = [
        m for m in model.modules() if isinstance(m, _NORMS) and m.track_running_stats and m.running_mean is not None
    ]
    if not norms:
        return {}
    made: dict[int, tuple[nn.Module, Tensor]] = {}  # the tensor is held, so that its id stays its own
    calls: dict[nn.Module, int] = {}
    found: dict[nn.Module, nn.Module] = {}
    watch = _Readers(made)
    handles = []

    def leave(module: nn.Module, _inputs: Any, output: Any) -> None:
        calls[module] = calls.get(module, 0) + 1
        # BatchNorm works on axis 1: a convolution's channels, but a linear layer's outputs only without tokens
        rows = isinstance(module, (nn.Linear, SparseConvolution))
        if isinstance(output, Tensor) and output.ndim == (2 if rows else module.weight.ndim):
            made[id(output)] = (module, output)

    def enter(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls[norm] = calls.get(norm, 0) + 1
        watch.inside += 1
        if inputs and id(inputs[0]) in made:
            module = made[id(inputs[0])][0]
            if module in found:  # two norms read it
                watch.shared.add(module)
            found[module] = norm

    def out(_norm: nn.Module, _inputs: Any, _output: Any) -> None:
        watch.inside -= 1

    try:
        for module in set(modules):
            handles.append(module.register_forward_hook(leave))
        for norm in norms:
            handles.append(norm.register_forward_pre_hook(enter))
            handles.append(norm.register_forward_hook(out))
        with evaluating(model), watch:
            output = call(model, example, forward)
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(output, (Tensor, Mapping, tuple, list)) and hasattr(output, "__dict__"):
        output = vars(output)
    returned = {made[id(t)][0] for t in tensors_of(output) if id(t) in made}
    others = watch.shared | returned
    return {m: norm for m, norm in found.items() if calls[m] == 1 and calls[norm] == 1 and m not in others}


class _Readers(TorchDispatchMode):
    """Notes which of some tensors an operation outside BatchNorm reads; ``inside`` counts BatchNorms under way."""

    def __init__(self, made: Mapping[int, tuple[nn.Module, Tensor]]) -> None:
        super().__init__()
        self.made, self.inside = made, 0
        self.shared: set[nn.Module] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self.inside:
            for tensor in tensors_of((args, kwargs or {})):
                if id(tensor) in self.made:
                    self.shared.add(self.made[id(tensor)][0])
        return func(*args, **(kwargs or {}))


def channel_axis(module: nn.Module, output: Tensor) -> int:
    """The axis of a layer's output that its rows make; a convolution may be given one image without a batch.

    Examples
    --------
    >>> conv = nn.Conv2d(1, 1, 1)
    >>> channel_axis(conv, torch.zeros(1, 2, 2)), channel_axis(conv, torch.zeros(1, 1, 2, 2))
    (0, 1)
    """
    if isinstance(module, nn.Linear):
        return -1
    return 1 if isinstance(module, SparseConvolution) else output.ndim - module.weight.ndim + 1  # type: ignore[operator, union-attr]


@dataclass(frozen=True, eq=False)
class Fit:
    """One step of a sweep.

    Attributes
    ----------
    option
        What was asked for.
    mask
        Shape (rows, columns), True where a weight is kept.
    weight
        Shape (rows, columns).
    shift
        What to add to the layer's output per row so that its mean stays (bias correction), shape (rows,).
    spread
        Factor on the output's variance, shape (rows,), where a BatchNorm behind should learn of it.
    """

    option: Option
    mask: Tensor
    weight: Tensor
    shift: Tensor
    spread: Tensor | None = None
