"""Convolutions of other classes as plain ones, where they compute the same: padding is padding, whoever does it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError

__all__ = ["Padded", "padding_of", "plain_convolutions", "unpadded"]

Pads = tuple[int, int, int, int]
_SAME = 1e-5


class _Pad:
    """Pads what a convolution gets by another amount on each side; for images of one size."""

    def __init__(self, pads: Pads, size: tuple[int, int]) -> None:
        self.pads, self.size = pads, size

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        x = inputs[0]
        if tuple(x.shape[-2:]) != self.size:
            raise FewerError(
                f"this model was made fast for images on which a layer gets {self.size[0]} x {self.size[1]} pixels, "
                f"not {x.shape[-2]} x {x.shape[-1]}; accelerate it again with an example of that size"
            )
        return (F.pad(x, self.pads), *inputs[1:])


class Padded(nn.Module):
    """A kernel that takes the place of a convolution whose input is padded first."""

    def __init__(self, pad: _Pad, kernel: nn.Module) -> None:
        super().__init__()
        self.pad, self.kernel = pad, kernel

    def forward(self, x: Tensor) -> Tensor:
        """Like the convolution."""
        return self.kernel(self.pad(self, (x,))[0])


def unpadded(module: nn.Module) -> nn.Module:
    """The kernel itself."""
    return module.kernel if isinstance(module, Padded) else module  # type: ignore[return-value]


def padding_of(module: nn.Module) -> _Pad | None:
    """What is done to a convolution's input before it, by :func:`plain_convolutions`."""
    return next((hook for hook in module._forward_pre_hooks.values() if isinstance(hook, _Pad)), None)


def plain_convolutions(model: nn.Module, run: Callable[[nn.Module], object]) -> nn.Module:
    """Replace subclasses of ``nn.Conv2d`` that only pad by ``nn.Conv2d``, in place; each is compared on real inputs.

    Parameters
    ----------
    model
        A private copy.
    run
        Calls the model on an example.

    Returns
    -------
    nn.Module
        The same model. A layer whose padding is even and does not depend on the size is an ordinary one now; any other
        has a hook that pads, and refuses images of another size.

    Examples
    --------
    >>> class Same(nn.Conv2d):
    ...     def forward(self, x):
    ...         return super().forward(F.pad(x, (0, 1, 0, 1)))
    >>> net = plain_convolutions(nn.Sequential(Same(3, 4, 3, 2)).eval(), lambda m: m(torch.randn(1, 3, 8, 8)))
    >>> type(net[0]).__name__, padding_of(net[0]).pads
    ('Conv2d', (0, 1, 0, 1))
    """
    others = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and type(m) is not nn.Conv2d}
    if not others:
        return model
    seen: dict[str, tuple[Tensor, Any]] = {}
    handles = []
    for name, module in others.items():

        def keep(_module: nn.Module, inputs: tuple[Any, ...], output: Any, name: str = name) -> None:
            if name not in seen and len(inputs) == 1 and isinstance(inputs[0], Tensor) and inputs[0].ndim == 4:
                seen[name] = (inputs[0], output)

        handles.append(module.register_forward_hook(keep))
    with torch.no_grad():
        try:
            run(model)
        finally:
            for handle in handles:
                handle.remove()
        for name, (x, y) in seen.items():
            made = _plain(others[name], x, y)
            if made is not None:
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, made)
    return model


def _plain(module: Any, x: Tensor, y: Any) -> nn.Conv2d | None:
    if not isinstance(y, Tensor) or module._forward_hooks or module._forward_pre_hooks:
        return None
    for pads in _candidates(module, x, y):
        if not _gives(module, pads, x, y):
            continue
        even = pads[0] == pads[1] and pads[2] == pads[3]
        smaller = x[..., :-1, :-1].contiguous()
        made = nn.Conv2d(
            module.in_channels, module.out_channels, module.kernel_size, module.stride,
            padding=(pads[2], pads[0]) if even else 0, dilation=module.dilation, groups=module.groups,
            bias=module.bias is not None,
        )  # fmt: skip
        made.weight, made.bias = module.weight, module.bias
        if not (even and min(smaller.shape) > 0 and _same(module, made, smaller)):
            made.padding = (0, 0)
            made._reversed_padding_repeated_twice = [0, 0, 0, 0]
            made.register_forward_pre_hook(_Pad(pads, (x.shape[-2], x.shape[-1])))
        return made.eval()
    return None


def _candidates(module: nn.Conv2d, x: Tensor, y: Tensor) -> Iterator[Pads]:
    """Paddings (left, right, top, bottom) with which the output has the size that it has."""
    missing = []
    for axis in (-1, -2):
        reach = module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
        missing.append((y.shape[axis] - 1) * module.stride[axis] + reach - x.shape[axis])
    if not isinstance(module.padding, str):
        down, right = module.padding
        yield right, right, down, down
    wide, high = (max(0, m) for m in missing)
    yield wide // 2, wide - wide // 2, high // 2, high - high // 2
    yield wide - wide // 2, wide // 2, high - high // 2, high // 2
    yield 0, wide, 0, high
    yield wide, 0, high, 0


def _gives(module: nn.Conv2d, pads: Pads, x: Tensor, y: Tensor) -> bool:
    padded = F.pad(x, pads)
    if padded.shape[-2] < module.kernel_size[0] or padded.shape[-1] < module.kernel_size[1]:
        return False
    got = F.conv2d(padded, module.weight, module.bias, module.stride, 0, module.dilation, module.groups)
    return got.shape == y.shape and float((got - y).norm()) <= _SAME * max(1e-12, float(y.norm()))


def _same(module: nn.Module, made: nn.Module, x: Tensor) -> bool:
    try:
        expected, got = module(x), made(x)
    except Exception:  # whatever a stranger's layer raises on another size
        return False
    return expected.shape == got.shape and float((got - expected).norm()) <= _SAME * float(expected.norm())
