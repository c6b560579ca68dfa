"""MetaGrad: a small network rewrites low-bit gradients, and learns from the loss of the iteration that follows.

What the paper fixes (Xu et al., *MetaGrad: Adaptive Gradient Quantization with Hypernetworks*, ICIP 2023, arXiv
2303.02347), as far as its abstract tells: the quantized gradient becomes part of the next iteration's graph through a
hypernetwork, and the loss of that iteration trains the hypernetwork.

What is chosen here, since its method section could not be read. The hypernetwork's input, size and form are ours. The
next iteration is evaluated at the point that is committed, ``W - rate * u`` with u the optimiser's direction for what
the hypernetwork gives, so its gradient for the hypernetwork is ``-<g', dH(g)>`` with g' the next gradient; nothing has
to be kept in a graph. The direction's derivative is taken to be that of H, as MetaQuant (NeurIPS 2019) does. Products
are divided by the norms of both gradients, so that the hypernetwork learns at the same pace whatever the rate is. Its
gain is bounded: without a bound nothing in that loss keeps steps from growing as long as gradients agree. A second loss
is offered: now and then a backward pass in fp32 of the same batch is the target itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError, near_match
from fewer.core.methods import Method, MethodTable
from fewer.formats.gradients import GRADIENTS

__all__ = ["HYPERNETWORKS", "MetaGrad", "base_rounding", "bounded", "hypernetwork_of"]

GAIN = 2.0
"""The norm of what a hypernetwork gives lies between 1 / 2 and 2 times that of the gradient."""
_MEAN = 0.9  # of the moving average of past gradients
_TINY = 1e-12

State = dict[str, Tensor]


def bounded(given: Tensor, gradient: Tensor) -> Tensor:
    """A rewritten gradient whose norm lies within :data:`GAIN` of the gradient's.

    Examples
    --------
    >>> bounded(torch.tensor([9.0]), torch.tensor([1.0]))
    tensor([2.])
    """
    ratio = given.norm() / gradient.norm().clamp(min=_TINY)
    return given * (ratio.clamp(1 / GAIN, GAIN) / ratio.clamp(min=_TINY))


class Hypernetwork(nn.Module):
    """Rewrites the gradient of one weight; one network is shared by all layers."""

    def forward(self, gradient: Tensor, weight: Tensor, state: State) -> Tensor:
        """The rewritten gradient, in the shape of the gradient.

        Parameters
        ----------
        gradient, weight
            Of the layer.
        state
            ``mean``: moving average of its past gradients; a form may keep more there.
        """
        raise NotImplementedError


class ScalarGain(Hypernetwork):
    """One learnt factor for all: the control that tells a learnt rate from a learnt gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, gradient: Tensor, weight: Tensor, state: State) -> Tensor:
        """The gradient times the factor."""
        return gradient * self.gain.clamp(-math.log(GAIN), math.log(GAIN)).exp()


class Elementwise(Hypernetwork):
    """A perceptron from each gradient to its new value, in units of their spread; it begins close to the identity."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(1, width), nn.Linear(width, 1)
        with torch.no_grad():
            self.inside.weight.mul_(0.1 / self.inside.weight.abs())
            self.outside.weight.copy_(self.inside.weight.T * (100 / width))
            self.inside.bias.zero_()
            self.outside.bias.zero_()

    def forward(self, gradient: Tensor, weight: Tensor, state: State) -> Tensor:
        """Element by element."""
        spread = _spread(gradient)
        return spread * self.outside((self.inside(gradient[..., None] / spread)).tanh())[..., 0]


class Residual(Hypernetwork):
    """``g (1 + a) + spread b``, where a and b see gradient, weight and past gradients without their scale.

    The last layer is zero at first, so the training begins as one without a hypernetwork.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.inside, self.outside = nn.Linear(4, width), nn.Linear(width, 2)
        nn.init.zeros_(self.outside.weight)
        nn.init.zeros_(self.outside.bias)

    def forward(self, gradient: Tensor, weight: Tensor, state: State) -> Tensor:
        """Element by element."""
        spread = _spread(gradient)
        size = (spread / _spread(weight)).log().clamp(-20, 20).expand_as(gradient) / 10
        seen = torch.stack([gradient / spread, weight / _spread(weight), state["mean"] / spread, size], -1)
        gain, offset = self.outside(self.inside(seen).tanh()).unbind(-1)
        return gradient * (1 + gain) + spread * offset


class Recurrent(Hypernetwork):
    """A gain for each output of a layer from an LSTM, which sees how large and how steady its gradient is.

    MetaQuant's LSTM has a state for each weight; one for each output is chosen here, which costs next to nothing.
    """

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.cell, self.outside = nn.LSTMCell(2, width), nn.Linear(width, 1)
        nn.init.zeros_(self.outside.weight)
        nn.init.zeros_(self.outside.bias)

    def forward(self, gradient: Tensor, weight: Tensor, state: State) -> Tensor:
        """Row by row; the state of each row is kept in ``state``."""
        rows, mean = gradient.flatten(1), state["mean"].flatten(1)
        size = (rows.square().mean(1).sqrt() / _spread(gradient)).clamp(min=1e-6).log()
        seen = torch.stack([size, F.cosine_similarity(rows, mean, 1)], 1)
        width = self.cell.hidden_size
        before = [state.get(name, rows.new_zeros(len(rows), width)) for name in ("hidden", "cell")]
        hidden, cell = self.cell(seen, (before[0], before[1]))
        state["next hidden"], state["next cell"] = hidden.detach(), cell.detach()
        gain = self.outside(hidden).clamp(-math.log(GAIN), math.log(GAIN)).exp()
        return gradient * gain.reshape(-1, *[1] * (gradient.ndim - 1))


def _spread(x: Tensor) -> Tensor:
    return x.square().mean().sqrt().clamp(min=_TINY)


HYPERNETWORKS: MethodTable[Callable[[], Hypernetwork]] = MethodTable(
    "hypernetwork",
    [
        Method("metagrad", Residual, "a residual perceptron with scale-free inputs", "after MetaGrad (ICIP 2023)"),
        Method("metagrad-fc", Elementwise, "a perceptron on each gradient alone", "after MetaQuant (NeurIPS 2019)"),
        Method("metagrad-lstm", Recurrent, "a gain per output from an LSTM", "after MetaQuant (NeurIPS 2019)"),
        Method("scalar-gain", ScalarGain, "one learnt gain for all: the control"),
    ],
)
"""Forms by name; ``run()`` makes one."""


def hypernetwork_of(gradients: str) -> str | None:
    """The hypernetwork of a ``--gradients`` value such as ``metagrad`` or ``scalar-gain+nearest``; None without one.

    Raises
    ------
    FewerError
        For a name that is no rounding and no hypernetwork.

    Examples
    --------
    >>> hypernetwork_of("luq"), hypernetwork_of("metagrad+nearest"), base_rounding("metagrad+nearest")
    (None, 'metagrad', 'nearest')
    """
    form, plus, rounding = gradients.partition("+")
    if not plus and form in GRADIENTS:
        return None
    if form not in HYPERNETWORKS:
        raise FewerError(f"unknown gradients {form!r}{near_match(form, (*GRADIENTS, *HYPERNETWORKS))}")
    _ = GRADIENTS[rounding or GRADIENTS.default]
    return form


def base_rounding(gradients: str) -> str:
    """The rounding below a hypernetwork, or the rounding itself; see :func:`hypernetwork_of`."""
    if hypernetwork_of(gradients) is None:
        return gradients
    return gradients.partition("+")[2] or GRADIENTS.default


class MetaGrad(torch.optim.Optimizer):
    """An optimiser around another one: gradients of some weights pass a hypernetwork that learns while they do.

    Parameters
    ----------
    base
        Takes the steps; its moments see the rewritten gradients.
    weights
        Those of its parameters whose gradients are rewritten: the weights of layers with low-bit gradients.
    form
        A row of :data:`HYPERNETWORKS`.
    next_loss
        Learn from the loss of the next iteration; False leaves only :meth:`teach`.
    rate
        Of Adam, for the hypernetwork.
    seed
        Of its first weights.

    Attributes
    ----------
    network
        The hypernetwork.

    Examples
    --------
    >>> w = nn.Parameter(torch.tensor([[4.0, -3.0]]))
    >>> meta = MetaGrad(torch.optim.SGD([w], 0.2), [w], "scalar-gain", rate=0.1)
    >>> for _ in range(8):
    ...     w.grad = 0.5 * w.detach().clone()
    ...     meta.step()
    >>> bool(meta.network.gain > 0.3)  # successive gradients agree, so longer steps are better
    True
    """

    def __init__(
        self,
        base: torch.optim.Optimizer,
        weights: Sequence[nn.Parameter],
        form: str = "metagrad",
        *,
        next_loss: bool = True,
        rate: float = 1e-3,
        seed: int = 0,
    ) -> None:
        super().__init__([p for group in base.param_groups for p in group["params"]], {})
        self.base, self.param_groups = base, base.param_groups
        self.weights, self.next_loss = list(weights), next_loss
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = HYPERNETWORKS[form].run()
        if self.weights:
            self.network.to(self.weights[0].device)
        self.adam = torch.optim.Adam(self.network.parameters(), rate)
        self.kept: list[State] = [{} for _ in self.weights]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Let the hypernetwork learn from this gradient what it should have given, rewrite the gradient, and step."""
        if self.next_loss:
            self._learn()
        with torch.no_grad():
            for weight, state in zip(self.weights, self.kept, strict=True):
                if weight.grad is not None:
                    self._rewrite(weight, state)
        self.base.step()

    def _rewrite(self, weight: nn.Parameter, state: State) -> None:
        assert weight.grad is not None
        gradient = weight.grad.detach().clone()
        if "gradient" in state:  # what was the present is the past now
            state["mean"] = _MEAN * state["mean"] + (1 - _MEAN) * state["gradient"]
            for part in ("hidden", "cell"):
                if f"next {part}" in state:
                    state[part] = state[f"next {part}"]
        else:
            state["mean"] = torch.zeros_like(gradient)
        state["gradient"], state["weight"] = gradient, weight.detach().clone()
        weight.grad.copy_(bounded(self.network(gradient, state["weight"], state), gradient))

    def _again(self, state: State) -> Tensor:
        """What the hypernetwork gives for the kept gradient, with its own gradient."""
        with torch.enable_grad():
            given = self.network(state["gradient"], state["weight"], dict(state))
            return bounded(given, state["gradient"])

    def _learn(self) -> None:
        losses = []
        for weight, state in zip(self.weights, self.kept, strict=True):
            if weight.grad is None or "gradient" not in state:
                continue
            sizes = weight.grad.norm() * state["gradient"].norm()
            losses.append(-(weight.grad.detach() * self._again(state)).sum() / sizes.clamp(min=_TINY))
        self._descend(losses)

    def teach(self, exact: Sequence[Tensor | None]) -> None:
        """Learn from full-precision gradients of the weights for the batch of the latest step.

        The loss is 1 - cosine plus the squared logarithm of the ratio of norms, mean over layers.
        """
        losses = []
        for target, state in zip(exact, self.kept, strict=True):
            if target is None or "gradient" not in state or not bool(target.any()):
                continue
            given = self._again(state)
            ratio = given.norm().clamp(min=_TINY) / target.norm()
            losses.append(1 - F.cosine_similarity(given.flatten(), target.flatten(), 0) + ratio.log().square())
        self._descend(losses)

    def _descend(self, losses: list[Tensor]) -> None:
        if not losses:
            return
        self.adam.zero_grad()
        with torch.enable_grad():
            torch.stack(losses).mean().backward()
        # gradients of other parameters are not touched: everything else in the graph is detached
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """Of the base, with what this one keeps under numbers that no parameter has."""
        state = dict(self.base.state_dict()["state"])
        state |= {_KEPT + i: dict(kept) for i, kept in enumerate(self.kept) if kept}
        moments = self.adam.state_dict()["state"]
        for i, value in enumerate(self.network.parameters()):
            state[_NETWORK + i] = {"value": value.detach().clone(), **moments.get(i, {})}
        return {"state": state, "param_groups": self.base.state_dict()["param_groups"]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        state = state_dict["state"]
        own = {i: s for i, s in state.items() if i < _KEPT}
        self.base.load_state_dict({"state": own, "param_groups": state_dict["param_groups"]})
        self.param_groups = self.base.param_groups
        self.kept = [dict(state.get(_KEPT + i, {})) for i in range(len(self.weights))]
        moments = {}
        for i, value in enumerate(self.network.parameters()):
            entry = dict(state.get(_NETWORK + i, {}))
            if "value" in entry:
                with torch.no_grad():
                    value.copy_(entry.pop("value"))
            if entry:
                moments[i] = entry
        self.adam.load_state_dict({"state": moments, "param_groups": self.adam.state_dict()["param_groups"]})


_KEPT, _NETWORK = 10**6, 2 * 10**6
