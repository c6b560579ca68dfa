"""What a trained network does, as a chain of linear layers and activations that a circuit can be made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.private.polynomial import Squares

__all__ = ["Activation", "Convolution", "Dense", "Layer", "read_network", "run_chain", "run_layers"]

FUNCTIONS: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.ReLU: F.relu,
    nn.GELU: F.gelu,
    nn.SiLU: F.silu,
    nn.Tanh: torch.tanh,
    nn.Sigmoid: torch.sigmoid,
    nn.ELU: F.elu,
}
_NOTHING = (nn.Dropout, nn.Dropout2d, nn.Identity, nn.Flatten)
_POOLS = (nn.MaxPool2d, nn.AvgPool2d)


@dataclass(frozen=True)
class Convolution:
    """A convolution, with what was folded into it: a BatchNorm before the activation, and average pooling.

    ``bias`` is ``[out]`` or, when a constant went through zero padding, ``[out, height, width]``.
    """

    name: str
    weight: Tensor
    bias: Tensor
    stride: int = 1
    padding: int = 0

    def __call__(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, None, self.stride, self.padding)
        # an average over windows of the padded convolution sees nothing beyond the last whole window
        return y + self.bias.reshape(1, len(self.weight), *(self.bias.shape[1:] or (1, 1)))


@dataclass(frozen=True)
class Dense:
    """A linear layer on all values."""

    name: str
    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight.t() + self.bias


@dataclass(frozen=True)
class Activation:
    """A function of each number that is still to be made a polynomial."""

    name: str
    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


Layer = Convolution | Dense | Activation


def run_layers(layers: list[Layer], x: Tensor) -> Tensor:
    """All layers in order."""
    for layer in layers:
        x = layer(x)
    return x


def run_chain(chain: Sequence[Convolution | Dense | Squares], x: Tensor) -> Tensor:
    """All layers of a chain whose activations are polynomials, in double precision."""
    for layer in chain:
        x = torch.from_numpy(layer(x.numpy())) if isinstance(layer, Squares) else layer(x)
    return x


def read_network(model: nn.Module, example: Tensor) -> list[Layer]:
    """Layers of a network whose modules follow each other, in double precision.

    BatchNorm becomes a part of the layer before it. Pooling becomes a part of the convolution before it: the average of
    its window, in front of the activation. For maxima and for pooling behind an activation this is another network near
    the first one: its accuracy is won back by :func:`fewer.private.adapt.adapt` and has to be measured again.

    Parameters
    ----------
    model
        Convolutions (one group, square kernels), linear layers, activations, BatchNorm, pooling, dropout, flatten.
    example
        One input [1, channels, height, width].

    Raises
    ------
    FewerError
        For a module that has no place in a circuit, or modules that do not follow each other.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    >>> [type(layer).__name__ for layer in read_network(net, torch.zeros(1, 1, 4, 4))]
    ['Convolution', 'Activation', 'Dense']
    """
    layers: list[Layer] = []
    for name, module in _in_order(model, example):
        if isinstance(module, _NOTHING):
            continue
        last = layers[-1] if layers else None
        if isinstance(module, nn.Conv2d):
            layers.append(_convolution(name, module))
        elif isinstance(module, nn.Linear):
            layers.append(Dense(name, _double(module.weight), _double(module.bias, module.out_features)))
        elif isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            if not isinstance(last, (Convolution, Dense)):
                raise FewerError(f"{name!r}: a BatchNorm follows no linear layer, so it cannot be folded into one")
            layers[-1] = _fold_norm(last, module)
        elif isinstance(module, _POOLS):
            layers = _pool_last(name, layers, module)
        elif type(module) in FUNCTIONS:
            layers.append(Activation(name, FUNCTIONS[type(module)]))
        else:
            known = ", ".join(c.__name__ for c in (nn.Conv2d, nn.Linear, nn.BatchNorm2d, *_POOLS, *FUNCTIONS))
            raise FewerError(f"{name!r} is a {type(module).__name__}, which no circuit has; known are {known}")
    if not any(isinstance(layer, (Convolution, Dense)) for layer in layers):
        raise FewerError(f"{type(model).__name__} has no linear layer that could be made a circuit")
    return layers


def _double(t: Tensor | None, size: int = 0) -> Tensor:
    return torch.zeros(size, dtype=torch.float64) if t is None else t.detach().double()


def _convolution(name: str, m: nn.Conv2d) -> Convolution:
    plain = m.groups == 1 and len({*m.kernel_size, m.kernel_size[0]}) == 1 and m.stride[0] == m.stride[1]
    plain = plain and m.dilation == (1, 1) and not isinstance(m.padding, str) and m.padding[0] == m.padding[1]
    if not plain or m.padding_mode != "zeros":
        raise FewerError(f"{name!r}: circuits have convolutions of one group, square kernels and zero padding only")
    padding = m.padding[0]
    assert isinstance(padding, int)
    return Convolution(name, _double(m.weight), _double(m.bias, m.out_channels), m.stride[0], padding)


def _fold_norm(layer: Convolution | Dense, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Convolution | Dense:
    assert norm.running_mean is not None and norm.running_var is not None
    factor = 1 / (norm.running_var.double() + norm.eps).sqrt()
    factor = factor * (_double(norm.weight) if norm.affine else 1)
    shift = (_double(norm.bias) if norm.affine else 0) - norm.running_mean.double() * factor
    weight = layer.weight * factor.reshape(-1, *[1] * (layer.weight.dim() - 1))
    return replace(layer, weight=weight, bias=layer.bias * factor + shift)


def _pool_last(name: str, layers: list[Layer], pool: nn.MaxPool2d | nn.AvgPool2d) -> list[Layer]:
    size = pool.kernel_size if isinstance(pool.kernel_size, int) else pool.kernel_size[0]
    stride = pool.stride if isinstance(pool.stride, int) else (pool.stride or (size,))[0]
    at = next((i for i in range(len(layers) - 1, -1, -1) if not isinstance(layers[i], Activation)), -1)
    conv = layers[at] if at >= 0 else None
    if not isinstance(conv, Convolution) or size != stride or pool.padding not in (0, (0, 0)):
        raise FewerError(f"{name!r}: pooling has to follow a convolution, with windows side by side and no padding")
    # the average of a window of convolutions is one convolution with a larger kernel
    out, inputs, k, _ = conv.weight.shape
    wide = k + conv.stride * (size - 1)
    weight = torch.zeros(out, inputs, wide, wide, dtype=torch.float64)
    for i in range(size):
        for j in range(size):
            y, x = i * conv.stride, j * conv.stride
            weight[:, :, y : y + k, x : x + k] += conv.weight / size**2
    layers = list(layers)
    layers[at] = replace(conv, weight=weight, stride=conv.stride * size)
    return layers


def _in_order(model: nn.Module, example: Tensor) -> list[tuple[str, nn.Module]]:
    """Leaf modules in the order in which they run, each on what the one before it made."""
    calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []
    handles = [
        m.register_forward_hook(lambda m, x, y, name=name: calls.append((name, m, x[0].detach(), y.detach())))
        for name, m in model.named_modules()
        if not list(m.children())
    ]
    was = model.training
    try:
        with torch.no_grad():
            result = model.eval()(example)
    finally:
        model.train(was)
        for handle in handles:
            handle.remove()
    before = example
    for name, _, x, y in calls:
        if x.numel() != before.numel() or not torch.equal(x.flatten(), before.flatten()):
            raise FewerError(f"{name!r} does not work on what the layer before it made; circuits are chains so far")
        before = y
    if not calls or not torch.equal(before.flatten(), result.flatten()):
        raise FewerError(
            "the network does something after its last layer that is no module; circuits are chains so far"
        )
    return [(name, m) for name, m, _, _ in calls]
