"""Layers of somebody's own class that multiply with another weight than the one they hold.

A weight-standardised convolution subtracts the mean of its weight and divides by its deviation in every call; an
equalised layer multiplies it by a constant; a masked one by its mask. A zero in such a weight is no zero in the
product, so that what is cut would still be there. Where the weight in use depends on nothing but the layer, it takes
the place of the one that is held, and the layer becomes one of torch's own. A layer of another kind is left alone.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fewer.core.errors import FewerError

__all__ = ["SameConv2d", "fold_computed", "fold_named", "unusual"]

_CLOSE = 1e-4
_PRODUCTS = (F.linear, F.conv1d, F.conv2d, F.conv3d)
_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


class SameConv2d(nn.Conv2d):
    """A convolution whose output has a stride-th of the input's sides; a surplus pixel goes right and below.

    Examples
    --------
    >>> SameConv2d(1, 1, 3, stride=2)(torch.zeros(1, 1, 8, 9)).shape
    torch.Size([1, 1, 4, 5])
    """

    def forward(self, x: Tensor) -> Tensor:
        """Pad by what the size asks for, then convolve."""
        sides: list[int] = []
        for size, kernel, stride, dilation in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1], strict=True
        ):
            total = max(0, (-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size)
            sides += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


@dataclass(frozen=True, eq=False)
class _Product:
    """What a layer's forward pass called a product of torch with."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None


class _Record(TorchFunctionMode):
    """Notes every linear product and convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[_Product] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _PRODUCTS:
            self.products.append(_product_of(*args, **(kwargs or {})))
        return func(*args, **(kwargs or {}))


def _product_of(input: Tensor, weight: Tensor, bias: Tensor | None = None, *_: Any, **__: Any) -> _Product:
    return _Product(input, weight, bias)


def _own(module: nn.Module) -> Any:
    """The layer of torch that a module is a subclass of with a forward pass of its own; None for others."""
    kind: Any = type(module)
    plain: Any = next((one for one in _KINDS if isinstance(module, one)), None)
    if plain is None or kind.__module__.startswith("fewer.") or "weight" not in module._parameters:
        return None
    parts = ("forward", "_conv_forward") if plain is not nn.Linear else ("forward",)
    return plain if any(getattr(kind, part) is not getattr(plain, part) for part in parts) else None


def _inputs(module: Any) -> list[Tensor]:
    """Two inputs of different sizes and content."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(module, nn.Linear):
        shapes = [(3, module.in_features)] * 2
    else:
        least = []
        for axis, (kernel, stride, dilation) in enumerate(
            zip(module.kernel_size, module.stride, module.dilation, strict=True)
        ):
            padding = 0 if isinstance(module.padding, str) else module.padding[axis]
            least.append(max(dilation * (kernel - 1) + 1, 2 * padding + 1) + 2 * stride)
        shapes = [(2, module.in_channels, *(side + more for side in least)) for more in (0, 1)]
    weight = module.weight
    return [torch.randn(shape, generator=generator).to(weight) for shape in shapes]


def _called(kind: Any, twin: nn.Module, x: Tensor) -> tuple[Tensor, list[_Product]]:
    own = type(twin)
    twin.__class__ = kind  # its forward pass calls other methods of the class
    try:
        with torch.no_grad(), _Record() as record:
            output = kind.forward(twin, x.clone())
    finally:
        twin.__class__ = own
    return output, record.products


def _alike(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor) or a.shape != b.shape:
        return False
    return bool((a - b).abs().max() <= _CLOSE * a.abs().max().clamp_min(1e-12))


def _forms(plain: Any) -> dict[str, Any]:
    """Layers that another one may turn out to be once its weight is computed."""
    return {"plain": plain, "same": SameConv2d} if plain is nn.Conv2d else {"plain": plain}


def _look(module: Any) -> tuple[str, _Product | None, str]:
    """What a layer is with the weight that it uses: a form and that weight; else in words why it is none."""
    plain = _own(module)
    if plain is None or module.weight.is_meta:
        return "", None, ""
    kind = type(module)
    try:
        twin = copy.deepcopy(module).train(False)  # as the model is used
        inputs = _inputs(twin)
        runs = [_called(kind, twin, x) for x in inputs]
        usual = [_called(plain, twin, x)[0] for x in inputs]
    except Exception:  # it wants more than one argument, or inputs of a certain size: nothing is known of it
        return "", None, ""
    if all(_alike(run[0], other) for run, other in zip(runs, usual, strict=True)):
        return "", None, ""
    held = [p for p in runs[0][1] if p.weight is twin.weight]
    if held:
        changed = plain is nn.Linear and not any(_same(p.x, inputs[0]) for p in held)
        return "", None, "its forward pass changes the input before it multiplies" if changed else ""
    used = [[p for p in products if p.weight.shape == twin.weight.shape] for _, products in runs]
    if not used[0]:
        return "", None, ""
    reason = "its forward pass computes the weight that it multiplies with"
    if any(len(found) != 1 for found in used) or not _same(used[0][0].weight, used[1][0].weight):
        return "", None, reason
    found = used[0][0]
    if (found.bias is None) != (module.bias is None):
        return "", None, reason
    fixed = copy.deepcopy(module).train(False)
    _settle(fixed, found)
    for name, form in _forms(plain).items():
        if all(_alike(run[0], _called(form, fixed, x)[0]) for run, x in zip(runs, inputs, strict=True)):
            return name, found, ""
    return "", None, reason


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a, b)


def _settle(module: Any, product: _Product) -> None:
    """Hold the weight and the bias that are multiplied and added."""
    module.weight.data = product.weight.detach().clone().to(module.weight)
    if product.bias is not None:
        module.bias.data = product.bias.detach().clone().to(module.bias)


def unusual(module: nn.Module) -> str:
    """Why the weight of a layer is not what its input is multiplied with; empty where it is, or where nobody can tell.

    Examples
    --------
    >>> class Cosine(nn.Linear):
    ...     __module__ = "somebody"  # layers of this library are known
    ...     def forward(self, x):
    ...         return F.linear(F.normalize(x), F.normalize(self.weight))
    >>> unusual(Cosine(4, 2, bias=False)), unusual(nn.Linear(4, 2))
    ('its forward pass computes the weight that it multiplies with', '')
    """
    form, _, reason = _look(module)
    return "its forward pass computes the weight that it multiplies with" if form else reason


def fold_computed(model: nn.Module) -> dict[str, str]:
    """Make plain layers of those that compute their weight from what they hold, in place; they compute the same.

    A weight that several places hold is left alone.

    Returns
    -------
    dict of str to str
        For each layer what it is now, as :func:`fold_named` takes it.

    Examples
    --------
    >>> class Scaled(nn.Linear):
    ...     __module__ = "somebody"
    ...     def forward(self, x):
    ...         return F.linear(x, self.weight * 0.5, self.bias)
    >>> net = nn.Sequential(Scaled(4, 2))
    >>> fold_computed(net), net[0]
    ({'0': 'plain'}, Linear(in_features=4, out_features=2, bias=True))
    """
    holders: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            holders[id(parameter)] = holders.get(id(parameter), 0) + 1
    done = {}
    for name, module in model.named_modules():
        layer: Any = module
        plain = _own(layer)
        if plain is None or holders[id(layer.weight)] > 1 or (layer.bias is not None and holders[id(layer.bias)] > 1):
            continue
        form, product, _ = _look(layer)
        if product is not None:
            _settle(layer, product)
            layer.__class__ = _forms(plain)[form]
            done[name] = form
    return done


def fold_named(model: nn.Module, forms: Mapping[str, str]) -> None:
    """Give layers of a bare architecture the class that :func:`fold_computed` gave them before they were saved.

    Raises
    ------
    FewerError
        When there is no such layer.

    Examples
    --------
    >>> net = nn.Sequential(SameConv2d(1, 1, 3))
    >>> fold_named(net, {"0": "plain"})
    >>> type(net[0]).__name__
    'Conv2d'
    """
    inside = dict(model.named_modules())
    for name, form in forms.items():
        module: Any = inside.get(name)
        plain = next((one for one in _KINDS if isinstance(module, one)), None)
        if plain is None or form not in _forms(plain):
            raise FewerError(
                f"the recipe says that layer {name!r} became a {form!r} one, which this model does not have; save the "
                "run again"
            )
        module.__class__ = _forms(plain)[form]
