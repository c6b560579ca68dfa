"""Around a quantization-aware training: BatchNorm folded in, and what is left when it ends: storage and export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.precision import PRECISIONS
from fewer.formats.integers import exact_scales, rounded
from fewer.formats.ranges import levels
from fewer.models.running import Forward, call, evaluating
from fewer.quantize.fake import DoReFa, LearnedStep, LearnedStepOffset, Pact, StraightThrough
from fewer.quantize.lowbit import low_bit_layers
from fewer.quantize.qdq import InputRange

__all__ = ["fold_norms", "stored_precision", "stored_ranges", "trained_ranges"]


def fold_norms(model: nn.Module, example: Any, forward: Forward | None = None) -> list[str]:
    """Multiply every BatchNorm into the convolution whose output it alone reads, in place.

    Folded with the statistics of evaluation, the model gives the same as before in evaluation mode. A training that
    follows rounds the very weights that a kernel would store, but it has no BatchNorm left.

    Parameters
    ----------
    model
        In any mode.
    example
        A batch on which it is followed which norm reads which convolution.
    forward
        ``forward(model, example)``.

    Returns
    -------
    list of str
        The norms that are gone; identities stand in their place.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    >>> net[1].running_var.fill_(4.0), fold_norms(net, torch.zeros(1, 1, 5, 5))  # doctest: +ELLIPSIS
    (tensor([4., 4.]), ['1'])
    """
    pairs = _pairs(model, example, forward)
    for norm_name, conv_name in pairs.items():
        norm: Any = model.get_submodule(norm_name)
        conv: Any = model.get_submodule(conv_name)
        with torch.no_grad():
            size = norm.weight if norm.weight is not None else torch.ones_like(norm.running_var)
            shift = norm.bias if norm.bias is not None else torch.zeros_like(norm.running_mean)
            factor = size * torch.rsqrt(norm.running_var + norm.eps)
            before = conv.bias if conv.bias is not None else torch.zeros_like(norm.running_mean)
            conv.weight.mul_(factor.reshape(-1, *[1] * (conv.weight.ndim - 1)))
            conv.bias = nn.Parameter((before - norm.running_mean) * factor + shift)
        parent, _, last = norm_name.rpartition(".")
        setattr(model.get_submodule(parent), last, nn.Identity())
    return list(pairs)


def _pairs(model: nn.Module, example: Any, forward: Forward | None) -> dict[str, str]:
    """Norms, each with the convolution whose output it reads; both run once, and nothing else reads the output."""
    given: list[tuple[str, Tensor]] = []  # kept, or another tensor may get the same identity
    readers: dict[str, list[str]] = {}
    runs: dict[str, int] = {}

    def gave(name: str):
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            runs[name] = runs.get(name, 0) + 1
            given.append((name, output))

        return hook

    def got(name: str):
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            for conv, tensor in given:
                if inputs and inputs[0] is tensor:
                    readers.setdefault(conv, []).append(name)

        return hook

    handles = []
    modules = dict(model.named_modules())
    for name, module in modules.items():
        if isinstance(module, nn.Conv2d):
            handles.append(module.register_forward_hook(gave(name)))
        if not list(module.children()):
            handles.append(module.register_forward_pre_hook(got(name)))
    try:
        with evaluating(model):
            call(model, example, forward)
    finally:
        for handle in handles:
            handle.remove()
    return {
        names[0]: conv
        for conv, names in readers.items()
        if len(names) == 1 and runs[conv] == 1 and isinstance(modules[names[0]], nn.BatchNorm2d)
    }


def stored_precision(weight: Tensor) -> str:
    """The smallest precision of storage and kernels that holds a weight as it is, up to rounding of its scale.

    Weights in more values than that, or with values off its grid, stay fp32. A step that was learnt need not be hit by
    the largest weight of its row, which int4 can say and int8 cannot.

    Examples
    --------
    >>> stored_precision(torch.tensor([[7.0, -3.0, 0.0]])), stored_precision(torch.tensor([[7.0, -3.14159, 0.0]]))
    ('int4', 'fp32')
    """
    matrix = weight.detach().float().flatten(1)
    if exact_scales(matrix, range(levels(4), 0, -1)) is not None:
        return "int4"
    for precision in sorted((p for p in PRECISIONS.values() if p.is_integer), key=lambda p: p.bits):
        if torch.allclose(rounded(matrix, precision.name), matrix, rtol=1e-6, atol=1e-9):
            return precision.name
    return "fp32"


def trained_ranges(model: nn.Module) -> Mapping[str, InputRange]:
    """Ranges of the inputs that a training in few bits ended with, as ONNX stores them; see ``with_integers``.

    Ranges of fewer than 8 bits use few of the bytes. Those of ``lsq+``, whose offset is no whole number of steps, have
    no such form and are left out.

    Examples
    --------
    >>> from fewer.quantize.lowbit import exchange, parse_bits
    >>> net = nn.Sequential(nn.ReLU(), nn.Linear(4, 2))
    >>> _ = exchange(net, parse_bits("a8"), torch.tensor([[0.0, 51.0, 102.0, 255.0]]), quantiser="ste")
    >>> trained_ranges(net)
    {'1': InputRange(scale=1.0, zero=0)}
    """
    found = {}
    for name, layer in low_bit_layers(model).items():
        how = layer.input_quantiser
        if how is None or isinstance(how, LearnedStepOffset):
            continue
        if isinstance(how, LearnedStep):
            scale = float(how.size())
        elif isinstance(how, Pact):
            scale = float(how.clip.detach()) / how.high
        elif isinstance(how, StraightThrough):
            scale = float(how.peak) / how.high
        else:
            assert isinstance(how, DoReFa)
            scale = 1 / how.high
        zero = 0 if how.role == "unsigned" else 128
        ends = () if how.bits == 8 else (zero + how.low, zero + how.high)
        found[name] = InputRange(scale, zero, *ends)
    return found


def stored_ranges(meta: Mapping[str, Any], layers: Sequence[str]) -> dict[str, InputRange]:
    """Ranges of the inputs of some layers, as a training in few bits has left them in the meta of a run.

    Raises
    ------
    FewerError
        When what stands there is no range.

    Examples
    --------
    >>> stored_ranges({"few_bits": {"inputs": {"head": [0.5, 128]}}}, ["head", "stem"])
    {'head': InputRange(scale=0.5, zero=128)}
    """
    told = meta.get("few_bits")
    inputs = told.get("inputs", {}) if isinstance(told, dict) else {}
    found = {}
    for name in layers:
        if not isinstance(inputs, dict) or name not in inputs:
            continue
        try:
            scale, zero, *ends = inputs[name]
            low, high = ends or (0, 255)
            whole = all(type(byte) is int for byte in (zero, low, high))
            fits = whole and isfinite(scale) and scale > 0 and 0 <= low <= zero <= high < 256 and low < high
        except (TypeError, ValueError):
            fits = False
        if not fits:
            raise FewerError(f"the run's range of the input of {name} is no scale and zero point: {inputs[name]!r}")
        found[name] = InputRange(float(scale), zero, low, high)
    return found
