"""Linear and convolution layers in few bits, and how the layers of a network are exchanged for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fewer.core.errors import FewerError
from fewer.core.precision import PRECISIONS
from fewer.models.inputs import layer_input
from fewer.models.running import Forward, call, evaluating
from fewer.quantize.fake import QUANTISERS, FakeQuantiser, Role
from fewer.quantize.gradients import GradientRounding, convolution, linear

__all__ = [
    "AUTO",
    "Bits",
    "LayerBits",
    "LowBitConv2d",
    "LowBitLinear",
    "exchange",
    "low_bit_layers",
    "parse_bits",
    "plain",
]

Edges = Literal["8", "fp32", "same"]
_KINDS = (nn.Linear, nn.Conv2d, NonDynamicallyQuantizableLinear)
_TERNARY = 2  # bits that three values take
AUTO = "auto"
"""In place of a quantiser: ``ste`` at 8 bits, whose weights are the very integers of storage; ``lsq`` below."""


@dataclass(frozen=True)
class Bits:
    """Bits of weights, of inputs of layers, and of gradients; 32 leaves them in floating point.

    Attributes
    ----------
    weights
        1 is binary, ``"t"`` ternary.
    """

    weights: int | str = 32
    inputs: int = 32
    gradients: int = 32

    def __str__(self) -> str:
        weights = {1: "b"}.get(self.weights, self.weights) if isinstance(self.weights, int) else self.weights
        return f"w{weights}a{self.inputs}g{self.gradients}"


def parse_bits(text: str) -> Bits:
    """Read ``w4a4g4``, ``w8a8``, ``wta4`` (ternary weights) or ``g4``.

    Raises
    ------
    FewerError
        For bits that no format has.

    Examples
    --------
    >>> parse_bits("w4a8g4"), str(parse_bits("wta4"))
    (Bits(weights=4, inputs=8, gradients=4), 'wta4g32')
    >>> parse_bits("w9")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: no format has 9 bits (w9); use 2 to 8, or 32 for floating point
    """
    found = re.fullmatch(r"(?:w(\d+|t|b))?(?:a(\d+))?(?:g(\d+))?", text.strip().lower())
    if not text.strip() or found is None:
        raise FewerError(f"cannot read the bits {text!r}; write w4a4g4: weights, inputs of layers, gradients")
    values: dict[str, int | str] = {}
    for name, letter, part in zip(("weights", "inputs", "gradients"), "wag", found.groups(), strict=True):
        if part in ("t", "b"):
            values[name] = "t" if part == "t" else 1
        elif part is not None:
            if int(part) not in (*range(2, 9), 32):
                more = "; wb has binary weights, wt ternary ones" if letter == "w" and part == "1" else ""
                raise FewerError(
                    f"no format has {part} bits ({letter}{part}); use 2 to 8, or 32 for floating point{more}"
                )
            values[name] = int(part)
    return Bits(**values)  # type: ignore[arg-type]


@dataclass(frozen=True)
class LayerBits:
    """What became of one layer.

    Attributes
    ----------
    name
        Of the module.
    weights, inputs, gradients
        In words: ``4 (lsq)``, ``fp32``.
    why
        Why something stayed in floating point or has other bits than was asked for; empty where nothing did.
    """

    name: str
    weights: str
    inputs: str
    gradients: str
    why: str = ""


class _LowBit(nn.Module):
    """What both kinds of layers share: quantisers of weight and input, and the rounding of gradients."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input and weight, as they are multiplied."""
        weight: Any = self.weight
        if self.weight_quantiser is not None:  # type: ignore[attr-defined]
            weight = self.weight_quantiser(weight)  # type: ignore[attr-defined]
        if self.input_quantiser is not None and x.dtype in (torch.bfloat16, torch.float16):
            x = x.float()  # a number of few digits would be rounded before it is rounded
        return self.input_quantiser(x) if self.input_quantiser is not None else x, weight  # type: ignore[attr-defined]


class LowBitConv2d(nn.Conv2d, _LowBit):
    """A convolution whose weight, input and gradients have few bits; made by :func:`exchange`."""

    def forward(self, input: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H', W']."""
        x, weight = self.operands(input)
        if self.gradient is None or not torch.is_grad_enabled():
            return self._conv_forward(x, weight, self.bias)
        return convolution(x, weight, self.bias, self, self.gradient)  # type: ignore[arg-type]


class LowBitLinear(nn.Linear, _LowBit):
    """A linear layer whose weight, input and gradients have few bits; made by :func:`exchange`."""

    def forward(self, input: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        x, weight = self.operands(input)
        if self.gradient is None or not torch.is_grad_enabled():
            return F.linear(x, weight, self.bias)
        return linear(x, weight, self.bias, self.gradient)  # type: ignore[arg-type]


def low_bit_layers(model: nn.Module) -> dict[str, Any]:
    """The layers of a model that have been exchanged, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, (LowBitConv2d, LowBitLinear))}


def exchange(
    model: nn.Module,
    bits: Bits,
    example: Any,
    *,
    quantiser: str = "lsq",
    gradients: str = "stochastic-sample",
    where: str = "both",
    edges: Edges = "8",
    held: Mapping[str, str] | None = None,
    forward: Forward | None = None,
) -> list[LayerBits]:
    """Exchange the linear and convolution layers of a model for ones in few bits, in place.

    Parameters keep their names and are the same objects. Quantisers start from the weights, and from the inputs that
    the layers see when the model is called with the example, in the mode (training or evaluation) that it is in.

    Parameters
    ----------
    model
        With plain ``nn.Linear`` and ``nn.Conv2d`` layers.
    bits
        See :class:`Bits`.
    example
        A batch, for the first ranges.
    quantiser
        A row of :data:`~fewer.quantize.fake.QUANTISERS`, or :data:`AUTO`.
    gradients, where
        See :class:`~fewer.quantize.gradients.GradientRounding`.
    edges
        The first and the last layer: 8 bits throughout where fewer are asked for (gradients of the last layer too),
        ``fp32``, or the ``same`` bits as all others.
    held
        Layers whose weight has a stored precision that the training keeps anyway; where it has no more bits than are
        asked for, their weight is left alone.
    forward
        ``forward(model, example)``.

    Returns
    -------
    list of LayerBits
        Every layer, in the order of the model, with what stays in floating point and why.

    Raises
    ------
    FewerError
        When no layer can be exchanged.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
    >>> for one in exchange(net, parse_bits("w4a4"), torch.randn(16, 4)):
    ...     print(one.name, one.weights, one.inputs, one.gradients)
    0 8 (lsq) 8 (lsq) fp32
    2 4 (lsq) 4 (lsq) fp32
    3 8 (lsq) 8 (lsq) fp32
    """
    inputs = _inputs(model, example, forward)
    names = [name for name in inputs if name]
    if not names:
        raise FewerError("the model has no linear or two-dimensional convolution layer that runs on the example")
    layers: dict[str, Any] = {name: model.get_submodule(name) for name in names}
    found = []
    of_weights: dict[int, FakeQuantiser | None] = {}
    ends = _ends(model, names, example, forward)
    plans = {name: _wanted(name, layers[name], ends, bits, edges) for name in names}
    held = _shared(plans, layers, held or {})
    for name, layer in layers.items():
        wanted, why = plans[name]
        stored = held.get(name, "fp32")
        key = id(layer.weight)
        if key not in of_weights:
            free = wanted.weights != 32 and stored == "fp32"
            of_weights[key] = _quantiser(quantiser, wanted.weights, "weight", layer.weight) if free else None
        x = inputs[name]
        role = "signed" if bool((x < 0).any()) else "unsigned"
        rounds = None if wanted.inputs == 32 else _quantiser(quantiser, wanted.inputs, role, x)
        back = None if wanted.gradients == 32 else GradientRounding(gradients, wanted.gradients, where)
        _put(model, layer, _made(layer, of_weights[key], rounds, back))
        told = [
            f"{stored} (plan)" if stored != "fp32" else _words(wanted.weights, _chosen(quantiser, wanted.weights)),
            _words(wanted.inputs, _chosen(quantiser, wanted.inputs)),
            _words(wanted.gradients, f"{gradients}, {where}"),
        ]
        found.append(LayerBits(name, told[0], told[1], told[2], why))
    return found + _left(model, inputs)


def _ends(model: nn.Module, names: Sequence[str], example: Any, forward: Forward | None) -> dict[str, str]:
    """The first and the last layer, as the model is used: heads that run in training alone are neither."""
    if model.training:
        with evaluating(model):
            used = [name for name in _inputs(model, example, forward) if name in names]
        names = used or names
    return {names[-1]: "the last layer", names[0]: "the first layer"}


def _wanted(name: str, layer: nn.Module, ends: Mapping[str, str], bits: Bits, edges: Edges) -> tuple[Bits, str]:
    """The bits of a layer, and in words why they are not those that were asked for."""
    edge = ends.get(name)
    wanted, why = bits, ""
    if edge and edges == "fp32":
        wanted, why = Bits(), edge
    elif edge and edges == "8":
        wanted = Bits(*(32 if b == 32 else 8 for b in (bits.weights, bits.inputs, bits.gradients)))
        why = edge if wanted != bits else ""
    refusal = _refusal(layer)
    return (wanted, why) if refusal is None else (Bits(wanted.weights, wanted.inputs), refusal)


def _shared(
    plans: dict[str, tuple[Bits, str]], layers: Mapping[str, Any], held: Mapping[str, str]
) -> Mapping[str, str]:
    """Give layers that share one weight the most bits of them, in place; and the precision that is kept of any.

    A precision of more bits than are asked for is not kept.
    """
    by_weight: dict[int, list[str]] = {}
    for name, layer in layers.items():
        by_weight.setdefault(id(layer.weight), []).append(name)
    kept = dict(held)
    for names in by_weight.values():
        most = max((plans[name][0].weights for name in names), key=lambda b: b if isinstance(b, int) else 1)
        stored = next((held[name] for name in names if held.get(name, "fp32") != "fp32"), "fp32")
        if most != 32 and PRECISIONS[stored].bits > (most if isinstance(most, int) else _TERNARY):
            stored = "fp32"
        for name in names:
            wanted = plans[name][0]
            if wanted.weights != most:
                other = next(n for n in names if plans[n][0].weights == most)
                plans[name] = replace(wanted, weights=most), f"the weight is that of {other}"
            kept[name] = stored
    return kept


def _left(model: nn.Module, known: Mapping[str, Tensor]) -> list[LayerBits]:
    """Modules with weights of their own that stay in floating point, and why; norms are told of elsewhere."""
    found = []
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.ndim > 1]
        if name in known or not own or isinstance(module, FakeQuantiser):
            continue
        kind = type(module).__name__
        why = "it did not run on the example" if _fits(module) else f"parameters of {kind}, which is not exchanged"
        if type(module) in _KINDS and "weight" not in module._parameters:
            why = "its weight is computed in every call"
        found.append(LayerBits(name or "(the model)", "fp32", "fp32", "fp32", why))
    return found


def _chosen(quantiser: str, bits: int | str) -> str:
    if quantiser != AUTO:
        return quantiser
    return "ste" if bits == 8 else "lsq"


def _quantiser(quantiser: str, bits: int | str, role: Role, values: Tensor) -> FakeQuantiser:
    made = QUANTISERS[_chosen(quantiser, bits)].run(bits, role)
    made.calibrate(values)
    return made


def _words(bits: int | str, how: str) -> str:
    named = {"t": "ternary", 1: "binary"}.get(bits, str(bits))
    return "fp32" if bits == 32 else f"{named} ({how})"


def _refusal(layer: nn.Module) -> str | None:
    if isinstance(layer, nn.Conv2d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
        return "gradients in fp32: the layer does not pad with a fixed number of zeros"
    return None


def _fits(module: nn.Module) -> bool:
    """Layers whose product is known; a class made from them may do anything else with its weight.

    A weight that hooks compute in every call, as weight norm and spectral norm do, would not stay rounded.
    """
    return type(module) in _KINDS and "weight" in module._parameters


def _inputs(model: nn.Module, example: Any, forward: Forward | None) -> dict[str, Tensor]:
    """What each layer that can be exchanged is given, in the order in which they run.

    In the mode that the model is in. A network that has not learnt yet gives its layers other numbers in evaluation,
    where norms have no statistics, than in training: after fifty layers, by many orders of magnitude.
    """
    found: dict[str, Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if _fits(module):

            def keep(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], name: str = name) -> None:
                found.setdefault(name, layer_input(inputs, keywords).detach())

            handles.append(module.register_forward_pre_hook(keep, with_kwargs=True))
    try:
        if not (model.training and _ran_as_in_training(model, example, forward)):
            found.clear()
            with evaluating(model):
                call(model, example, forward)
    finally:
        for handle in handles:
            handle.remove()
    return found


@torch.no_grad()
def _ran_as_in_training(model: nn.Module, example: Any, forward: Forward | None) -> bool:
    """Whether the model ran in training mode; buffers and random numbers are as before."""
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng(devices=[]):
            call(model, example, forward)
    except FewerError:  # a norm wants more than one value for each channel
        return False
    finally:
        for buffer, before in kept:
            buffer.copy_(before)
    return True


def _made(layer: nn.Module, weights: Any, inputs: Any, gradient: Any) -> nn.Module:
    kind = LowBitLinear if isinstance(layer, nn.Linear) else LowBitConv2d
    made = kind.__new__(kind)
    nn.Module.__init__(made)
    # parameters, buffers and hooks are the same objects; the dictionaries that hold them are not
    for name, value in vars(layer).items():
        made.__dict__[name] = value.copy() if isinstance(value, dict) else value
    made.weight_quantiser, made.input_quantiser, made.gradient = weights, inputs, gradient
    return made


def _put(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Exchange a module everywhere: a layer that is used under two names stays one layer."""
    new.train(model.training)
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):  # named_children leaves second names out
            if child is old:
                setattr(parent, name, new)


@torch.no_grad()
def plain(model: nn.Module, names: Sequence[str] | None = None) -> nn.Module:
    """Put plain layers back, in place, whose weights are the rounded ones; inputs are no longer rounded.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(4, 2, bias=False))
    >>> _ = exchange(net, Bits(weights=2), torch.randn(3, 4), quantiser="ste", edges="same")
    >>> len(plain(net)[0].weight[0].unique()) <= 3
    True
    """
    done: set[int] = set()
    for name, layer in low_bit_layers(model).items():
        if names is not None and name not in names:
            continue
        if layer.weight_quantiser is not None and id(layer.weight) not in done:
            layer.weight.copy_(layer.weight_quantiser(layer.weight))
            done.add(id(layer.weight))  # layers that share a weight have it rounded once
        kind = nn.Linear if isinstance(layer, LowBitLinear) else nn.Conv2d
        made = kind.__new__(kind)
        nn.Module.__init__(made)
        for part, value in vars(layer).items():
            made.__dict__[part] = value.copy() if isinstance(value, dict) else value
        for part in ("weight_quantiser", "input_quantiser", "gradient"):
            made._modules.pop(part, None)
            made.__dict__.pop(part, None)
        _put(model, layer, made)
    return model
