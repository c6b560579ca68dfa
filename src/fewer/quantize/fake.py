"""Fake quantisers of quantization-aware training: fp32 tensors with the values of few bits, and gradients pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.methods import Method, MethodTable

__all__ = ["QUANTISERS", "FakeQuantiser", "Role", "pass_through"]

Role = Literal["weight", "signed", "unsigned"]
"""What is rounded: a weight, or an input of a layer with both signs or with one."""

_EMA = 0.99  # of the range of activations that ``ste`` follows
_EWGS = 1e-3  # the paper derives it from the curvature; a constant of this size is its own simple variant
_TINY = 1e-8
_SAMPLES = 50_000  # values that the start of a step is found on


class _PassThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rounded: Tensor) -> Tensor:  # type: ignore[override]
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return gradient, None


class _Steps(torch.autograd.Function):
    """``clamp(round(x / s)) s`` with LSQ's gradient for s; with EWGS's for x where ``delta`` is not 0.

    One function in place of a chain of operations: every one of those would write and keep a tensor of its own.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor, ends: tuple[int, int], delta: float) -> Tensor:  # type: ignore[override]
        scaled = x / step
        ctx.save_for_backward(scaled)
        ctx.ends, ctx.delta, ctx.shape = ends, delta, step.shape
        return scaled.clamp(*ends).round_().mul_(step)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        (scaled,) = ctx.saved_tensors
        rounded = scaled.clamp(*ctx.ends)
        passing = gradient * (rounded == scaled)
        if ctx.delta:
            # larger where the step would move the value away from where it was rounded to
            error = rounded - rounded.round()
            passing.mul_(error.mul_(gradient.sign()).mul_(ctx.delta).add_(1))
        rounded.round_()
        of_step = None
        if ctx.needs_input_grad[1]:
            of_step = _for_steps(gradient * rounded, ctx.shape) - _for_steps(passing * scaled, ctx.shape)
        return passing if ctx.needs_input_grad[0] else None, of_step, None, None


def _for_steps(values: Tensor, shape: torch.Size) -> Tensor:
    """Sum of values over all that share a step; steps are one, or one for each row."""
    if not shape:
        return values.sum(dtype=torch.float32)
    return values.flatten(1).sum(1, dtype=torch.float32).view(shape)


def pass_through(x: Tensor, rounded: Tensor) -> Tensor:
    """The value of ``rounded``, with the gradient of ``x`` (Bengio et al. 2013, section 2.1).

    Examples
    --------
    >>> x = torch.tensor([0.4], requires_grad=True)
    >>> pass_through(x, x.round()).sum().backward()
    >>> x.grad
    tensor([1.])
    """
    found = _PassThrough.apply(x, rounded)
    assert isinstance(found, Tensor)
    return found


def _gradient_scaled(parameter: Tensor, scale: float) -> Tensor:
    return pass_through(parameter * scale, parameter)


class FakeQuantiser(nn.Module):
    """Rounds a tensor to few bits, so that gradients pass.

    Attributes
    ----------
    bits
        From 2 to 8; a weight may have 1 (binary) or ``"t"`` (ternary).
    role
        See :data:`Role`.

    Notes
    -----
    A weight that is zero stays zero in every format, also in those that have no zero, so that what a plan has cut stays
    cut.
    """

    def __init__(self, bits: int | str, role: Role) -> None:
        super().__init__()
        self.bits, self.role = bits, role
        if bits in (1, "t"):
            if role != "weight":
                raise FewerError("inputs of layers take 2 to 8 bits; only weights can be binary or ternary")
            self.low, self.high = -1, 1
        elif isinstance(bits, int) and 2 <= bits <= 8:
            # symmetric: the value that has no partner is left out, so that a weight can be stored as it was trained
            self.low = 0 if role == "unsigned" else 1 - 2 ** (bits - 1)
            self.high = 2**bits - 1 if role == "unsigned" else 2 ** (bits - 1) - 1
        else:
            raise FewerError(f"there are no quantisers of {bits} bits; use 2 to 8, or ternary or binary weights")

    def calibrate(self, x: Tensor) -> None:
        """Take starting values from the weight, or from inputs of a first batch."""

    def forward(self, x: Tensor) -> Tensor:
        """The tensor with the values of few bits."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Bits and role."""
        return f"{self.bits} bits, {self.role}"


class StraightThrough(FakeQuantiser):
    """Nearest with a range that is measured; gradients pass as if nothing had been rounded.

    Weights have a scale for each output, from the largest magnitude (binary and ternary: the closed forms of XNOR-Net
    and TWN). The range of inputs is a moving average of their largest magnitude, which stays as it is in evaluation;
    of the first hundred batches it is the plain mean, so that a start far off is left behind at once.
    """

    def __init__(self, bits: int | str, role: Role) -> None:
        super().__init__(bits, role)
        self.peak: Tensor
        if role != "weight":
            self.register_buffer("peak", torch.ones(()))
            self.batches: Tensor
            self.register_buffer("batches", torch.ones(()))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Inputs: the largest magnitude of a first batch."""
        if self.role != "weight":
            self.peak.copy_(x.abs().amax().clamp(min=_TINY))

    def forward(self, x: Tensor) -> Tensor:
        """The tensor with the values of few bits."""
        if self.role == "weight":
            return pass_through(x, _weight(x.detach(), self.bits))
        if self.training:
            with torch.no_grad():
                low, high = torch.aminmax(x)
                self.batches.add_(1)
                share = (1 / self.batches).clamp(min=1 - _EMA).to(self.peak.dtype)
                self.peak.lerp_(torch.maximum(high, -low).clamp(min=_TINY).to(self.peak.dtype), share)
        scale = self.peak / self.high
        with torch.no_grad():
            rounded = (x / scale).round_().clamp_(self.low, self.high).mul_(scale)
        return pass_through(x, rounded)


def _weight(weight: Tensor, bits: int | str) -> Tensor:
    from fewer.formats.integers import quantize_rows
    from fewer.formats.number import Format, rounded_to

    if bits == 1:  # the closed form of XNOR-Net, over the weights that are there
        rows = weight.flatten(1)
        size = rows.abs().sum(1, keepdim=True) / (rows != 0).sum(1, keepdim=True).clamp(min=1)
        return (rows.sign() * size).view_as(weight)
    if isinstance(bits, int):  # the very integers of storage and kernels, 64 at most for 8 bits
        return quantize_rows(weight.flatten(1), bits).dense().view_as(weight)
    return rounded_to(weight, Format("ternary", "channel"))


def _mean_size(rows: Tensor) -> Tensor:
    """Mean magnitude of the weights of each row that are there: the best size of binary ones."""
    return rows.abs().sum(1) / (rows != 0).sum(1).clamp(min=1)


class DoReFa(FakeQuantiser):
    """Weights through tanh, inputs clipped to 0..1 (DoReFa-Net, arXiv 1606.06160, equations 9 and 11).

    Weights come out between -1 and 1 whatever their size was, which a BatchNorm behind the layer makes up for; a layer
    without one should keep 8 bits. Chosen here: weights are multiplied by the spread that they had at the start, which
    the paper does not do, so that a trained network stays near to what it was. Inputs with a sign are clipped to -1..1.
    """

    def __init__(self, bits: int | str, role: Role) -> None:
        super().__init__(bits, role)
        self.size: Tensor
        self.register_buffer("size", torch.ones(()))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Weights: how much smaller they are than what the rounding gives."""
        if self.role == "weight":
            self.size.fill_(1.0)
            self.size.copy_(x.std() / self(x).std().clamp(min=_TINY))

    def forward(self, x: Tensor) -> Tensor:
        """The tensor with the values of few bits."""
        if self.role != "weight":
            clipped = x.clamp(0 if self.role == "unsigned" else -1, 1)
            with torch.no_grad():
                rounded = (clipped * self.high).round_().div_(self.high)
            return pass_through(clipped, rounded)
        bent = x.tanh() / x.tanh().abs().amax().clamp(min=_TINY)
        if self.bits == 1:
            return self.size * pass_through(bent, bent.sign())
        top = 2 if self.bits == "t" else 2 ** int(self.bits) - 1
        share = bent / 2 + 0.5
        return self.size * (2 * pass_through(share, (share * top).round() / top) - 1) * (x.detach() != 0)


class Pact(StraightThrough):
    """Inputs are clipped to a range that is learnt (PACT, arXiv 1805.06085, equation 1).

    The paper rounds weights as DoReFa does; here they are rounded straight-through with a scale for each output, which
    a network that has been trained survives. Its decay of the range is the training's own weight decay.
    """

    def __init__(self, bits: int | str, role: Role) -> None:
        super().__init__(bits, role)
        if role != "weight":
            del self.peak, self.batches
            self.clip = nn.Parameter(torch.ones(()))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Inputs: mean magnitude plus three standard deviations of a first batch."""
        if self.role != "weight":
            self.clip.copy_((x.abs().mean() + 3 * x.std()).clamp(min=_TINY))

    def forward(self, x: Tensor) -> Tensor:
        """The tensor with the values of few bits."""
        if self.role == "weight":
            return super().forward(x)
        clip = self.clip.clamp(min=_TINY)
        # the gradient goes to the clip where a value is clipped, and to the value where it is not
        clipped = torch.minimum(x, clip)
        clipped = clipped.relu() if self.role == "unsigned" else torch.maximum(clipped, -clip)
        scale = clip.detach() / self.high
        with torch.no_grad():
            rounded = (clipped / scale).round_().mul_(scale)
        return pass_through(clipped, rounded)


class LearnedStep(FakeQuantiser):
    """The step between two values is learnt by its gradient (LSQ, arXiv 1902.08153, equations 1 to 3).

    d q / d s is ``round(x / s) - x / s`` within the range and its end outside, times 1 / sqrt(N high) as in section
    2.2. Binary weights are minus or plus the step: there d q / d s is the sign, and gradients pass everywhere. The
    paper starts at 2 mean|x| / sqrt(high), which is far too coarse for weights in 4 bits and takes a long training to
    leave; chosen here is the step with the least squared error. Weights have a step for each output, as kernels store
    them, where the paper has one for a layer.

    Attributes
    ----------
    step
        In units of ``unit``, the step that it starts from, so it begins at 1. Optimisers of the Adam family move every
        parameter by about the rate, however small it is: a step of 0.01 would double in ten steps at a rate of 0.001.
        Its gradient is divided by the unit as well, so that gradient descent moves the step as in the paper.
    """

    delta = 0.0

    def __init__(self, bits: int | str, role: Role) -> None:
        super().__init__(bits, role)
        self.unit: Tensor
        self.register_buffer("unit", torch.ones(()))
        self.step = nn.Parameter(torch.ones(()))

    def size(self) -> Tensor:
        """The step as it is used."""
        return (self.step.detach() * self.unit).abs().clamp(min=_TINY)

    @torch.no_grad()
    def _start(self, size: Tensor) -> None:
        self.unit = size.detach().clamp(min=_TINY).clone()
        self.step = nn.Parameter(torch.ones_like(self.unit))

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """The step with the least squared error, of 48 that reach from all of the range to a fortieth of it."""
        rows = x.detach().float().flatten(1) if self.role == "weight" else x.detach().float().flatten()[None]
        if self.bits == 1:
            found = _mean_size(rows)
        else:
            peak, some = rows.abs().amax(1), rows[:, :: max(1, rows.shape[1] // _SAMPLES)]
            shares = torch.logspace(0, -1.6, 48, device=x.device)
            steps = (peak / self.high * shares[:, None]).clamp(min=_TINY)
            errors = [
                ((some / s[:, None]).clamp(self.low, self.high).round() * s[:, None] - some).square().sum(1)
                for s in steps
            ]
            found = steps.gather(0, torch.stack(errors).argmin(0)[None])[0]
        self._start(found if self.role == "weight" else found[0])

    def forward(self, x: Tensor) -> Tensor:
        """The tensor with the values of few bits."""
        count = x[0].numel()  # that share a step: a row of a weight, or one sample
        # the value is step * unit; its gradient reaches the parameter divided by the unit
        step = pass_through(self.step * ((count * self.high) ** -0.5 / self.unit), self.step * self.unit)
        step = step.abs().clamp(min=_TINY)
        if step.ndim:
            step = step.view(-1, *[1] * (x.ndim - 1))
        if self.bits == 1:
            values = x.detach().sign() * step
            return values + (x - x.detach())
        found = _Steps.apply(x, step, (self.low, self.high), self.delta)
        assert isinstance(found, Tensor)
        return found


class LearnedStepOffset(LearnedStep):
    """LSQ with an offset of inputs that is learnt too, and other starts (LSQ+, arXiv 2004.09576, section 3).

    Weights start at max(|mean - 3 std|, |mean + 3 std|) / 2^(b-1) (equation 6). Inputs start with the range of a first
    batch. The paper searches that start by gradient descent on the squared error; here it is the range itself.
    """

    def __init__(self, bits: int | str, role: Role) -> None:
        super().__init__(bits, role)
        if role != "weight":
            self.offset = nn.Parameter(torch.zeros(()))
            if isinstance(bits, int):
                self.low, self.high = 0, 2**bits - 1

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """See the class."""
        if self.bits == 1:
            self._start(_mean_size(x.flatten(1)))
        elif self.role == "weight":
            rows = x.flatten(1)
            mean, spread = rows.mean(1), 3 * rows.std(1, correction=0)
            reach = torch.maximum((mean - spread).abs(), (mean + spread).abs())
            self._start(reach / max(1, self.high))
        else:
            low, high = x.amin(), x.amax()
            self._start((high - low) / self.high)
            self.offset.copy_(low)

    def forward(self, x: Tensor) -> Tensor:
        """The tensor with the values of few bits."""
        if self.role == "weight":
            return super().forward(x)
        offset = _gradient_scaled(self.offset, (x[0].numel() * self.high) ** -0.5)
        return super().forward(x - offset) + offset


class Ewgs(LearnedStep):
    """LSQ's step, and gradients that are scaled element by element by the error of the rounding (EWGS, CVPR 2021).

    The gradient is g (1 + d sign(g) (x - q)), equation 5 of arXiv 2104.00903. Chosen here: d is 0.001 throughout, where
    the paper follows the trace of the Hessian; and the range is LSQ's step, where the paper learns both of its ends.
    """

    delta = _EWGS


QUANTISERS: MethodTable[Callable[[Any, Role], FakeQuantiser]] = MethodTable(
    "quantiser",
    [
        Method("lsq", LearnedStep, "the step between values is learnt", "LSQ (ICLR 2020)"),
        Method("lsq+", LearnedStepOffset, "step and offset are learnt", "LSQ+ (CVPRW 2020)"),
        Method("ste", StraightThrough, "measured ranges; weights fit the integers of kernels", "arXiv 1308.3432"),
        Method("pact", Pact, "the clip of inputs is learnt", "PACT (arXiv 1805.06085)"),
        Method("dorefa", DoReFa, "weights through tanh, inputs within 0..1", "DoReFa-Net (arXiv 1606.06160)"),
        Method("ewgs", Ewgs, "gradients scaled by the rounding error", "EWGS (CVPR 2021)"),
    ],
)
"""Fake quantisers by name: ``run(bits, role)``."""
