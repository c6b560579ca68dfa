"""Products of linear and convolution layers whose backward pass sees gradients in few bits."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError, near_match
from fewer.formats.gradients import GRADIENTS

__all__ = ["WHERE", "GradientRounding", "convolution", "linear"]

Where = Literal["both", "error", "weight"]
WHERE = ("both", "error", "weight")


class GradientRounding(nn.Module):
    """How a layer's gradient is rounded on its way back.

    The error signal at the output of the layer is rounded once. The gradient of the input and that of the weight are
    products with it; the gradient of the bias is its plain sum in fp32.

    Parameters
    ----------
    method
        A row of :data:`~fewer.formats.gradients.GRADIENTS`.
    bits
        From 2 to 8.
    where
        Which product sees the rounded signal: that of the input's gradient (``error``), of the ``weight``'s, or both.

    Attributes
    ----------
    enabled
        False leaves gradients in fp32 for the moment.
    watched
        Whether the next backward pass writes down how far it is off, which costs a second one.
    seen
        Of the latest pass that was watched: ``error`` (relative, of the error signal), ``cosine`` (of the weight's
        gradient with the one in fp32) and ``weight error`` (relative).

    Examples
    --------
    >>> _ = torch.manual_seed(0)
    >>> how = GradientRounding("stochastic", 8)
    >>> x, w = torch.randn(5, 3), torch.randn(2, 3, requires_grad=True)
    >>> how.watched = True
    >>> linear(x, w, None, how).square().sum().backward()
    >>> bool(how.seen["cosine"] > 0.999)
    True
    """

    def __init__(self, method: str, bits: int, where: str = "both") -> None:
        super().__init__()
        if where not in WHERE:
            raise FewerError(f"unknown place of gradients {where!r}{near_match(where, WHERE)}")
        if not 2 <= bits <= 8:
            raise FewerError(f"gradients of {bits} bits are not supported; use 2 to 8")
        self.method, self.bits, self.where = method, bits, where
        self.run = GRADIENTS[method].run
        self.state: Tensor
        self.register_buffer("state", torch.ones(1))
        self.enabled, self.watched = True, False
        self.seen: dict[str, float] = {}

    def forward(self, gradient: Tensor) -> Tensor:
        """The gradient in few bits."""
        # a half-precision number has no room for the random part that decides between two integers
        return self.run(gradient.float(), self.bits, self.state).to(gradient.dtype)

    def extra_repr(self) -> str:
        """Method, bits and place."""
        return f"{self.method}, {self.bits} bits, {self.where}"

    def note(self, gradient: Tensor, rounded: Tensor, exact: Tensor | None, got: Tensor | None) -> None:
        """Write down how far a backward pass is off."""
        self.seen = {"error": float((rounded - gradient).norm() / gradient.norm().clamp(min=1e-30))}
        if exact is not None and got is not None:
            self.seen["cosine"] = float(F.cosine_similarity(exact.flatten(), got.flatten(), 0))
            self.seen["weight error"] = float((exact - got).norm() / exact.norm().clamp(min=1e-30))
        self.watched = False


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: tuple, how: Any) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.layer, ctx.how = layer, how
        return torch.ops.aten.convolution(x, weight, bias, *layer)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous()

        def product(signal: Tensor, wanted: tuple[bool, bool]) -> Any:
            back = torch.ops.aten.convolution_backward
            return back(signal, x, weight, None, *ctx.layer, [*wanted, False])

        needed = (ctx.needs_input_grad[0], ctx.needs_input_grad[1])
        of_x, of_weight = _products(ctx.how, gradient, needed, product)
        of_bias = gradient.sum((0, *range(2, gradient.ndim))) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, None, None


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, how: Any) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.how = how
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors

        def product(signal: Tensor, wanted: tuple[bool, bool]) -> Any:
            of_x = signal @ weight if wanted[0] else None
            of_weight = signal.flatten(0, -2).T @ x.flatten(0, -2) if wanted[1] else None
            return of_x, of_weight

        of_x, of_weight = _products(ctx.how, gradient, (ctx.needs_input_grad[0], ctx.needs_input_grad[1]), product)
        of_bias = gradient.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None
        return of_x, of_weight, of_bias, None


def _products(how: GradientRounding, gradient: Tensor, needed: tuple[bool, bool], product: Any) -> tuple[Any, Any]:
    """Gradients of the input and of the weight, each from the rounded error signal or from the exact one."""
    if not how.enabled:
        return product(gradient, needed)[:2]
    rounded = how(gradient)
    if how.where == "both":
        of_x, of_weight = product(rounded, needed)[:2]
    else:
        one, other = (rounded, gradient) if how.where == "error" else (gradient, rounded)
        of_x = product(one, (needed[0], False))[0]
        of_weight = product(other, (False, needed[1]))[1]
    if how.watched:
        exact = product(gradient, (False, True))[1] if needed[1] else None
        how.note(gradient, rounded, exact, of_weight)
    return of_x, of_weight


def _autocast(*operands: Tensor | None) -> list[Tensor | None]:
    """Operands in the type of mixed precision, which torch does not give to functions of one's own."""
    assert operands[0] is not None
    kind = operands[0].device.type
    if not torch.is_autocast_enabled(kind):
        return list(operands)
    return [None if one is None else one.to(torch.get_autocast_dtype(kind)) for one in operands]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, how: GradientRounding) -> Tensor:
    """``F.linear`` whose backward products see a rounded error signal.

    Parameters
    ----------
    x
        [..., inputs].
    weight
        [outputs, inputs].
    bias
        [outputs], or None.
    how
        See :class:`GradientRounding`.
    """
    found = _Linear.apply(*_autocast(x, weight, bias), how)
    assert isinstance(found, Tensor)
    return found


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Module, how: GradientRounding) -> Tensor:
    """The product of a convolution layer, whose backward products see a rounded error signal.

    Parameters
    ----------
    x
        [N, inputs, ...].
    weight, bias
        Of the layer, or in their place, such as rounded ones.
    layer
        Gives stride, padding (zeros), dilation and groups.
    how
        See :class:`GradientRounding`.
    """
    conv: Any = layer
    rest = (list(conv.stride), list(conv.padding), list(conv.dilation), False, [0] * len(conv.stride), conv.groups)
    found = _Convolution.apply(*_autocast(x, weight, bias), rest, how)
    assert isinstance(found, Tensor)
    return found
