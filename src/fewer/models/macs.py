"""Multiply-accumulates of a model, counted by a forward pass."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]
from torch.utils.flop_counter import FlopCounterMode

from fewer.kernels.copies import copied_module
from fewer.models.inputs import layer_input
from fewer.models.running import Forward, batch_size, call, evaluating, to_device

__all__ = ["model_macs", "recurrent_macs"]


def model_macs(model: nn.Module, example_input: Any, forward: Forward | None = None) -> float:
    """Multiply-accumulates of one sample through the whole model, attention's own products included.

    Parameters
    ----------
    model : nn.Module
        Left as it is.
    example_input : Tensor, tuple or dict
        One batch; the count is divided by its first dimension.
    forward : callable, optional
        ``forward(model, example_input)``.

    Returns
    -------
    float
        MACs per sample: half the FLOPs of ``torch.utils.flop_counter`` (matrix products, convolutions, attention;
        norms, activations and additions are not counted, as is usual).

    Examples
    --------
    >>> import torch
    >>> model_macs(nn.Linear(8, 4), torch.zeros(2, 8))
    32.0
    """
    if any(isinstance(p, UninitializedTensorMixin) for p in model.parameters()):
        model = copied_module(model)
    first = next(iter(model.parameters()), None)
    if first is not None:
        example_input = to_device(example_input, first.device)
    more = [0.0]  # multiply-accumulates that the counter has missed
    handles = []
    # the fused CPU attention kernel is unknown to the counter; the plain one is made of matrix products that it knows
    with evaluating(model), sdpa_kernel(SDPBackend.MATH), _counter() as counter:
        for module in model.modules():
            if isinstance(module, nn.RNNBase):  # one operation for all steps, which the counter does not know either
                handles += _recurrent(module, counter, more)
        try:
            call(model, example_input, forward)
        finally:
            for handle in handles:
                handle.remove()
    return (counter.get_total_flops() / 2 + more[0]) / batch_size(example_input)


def recurrent_macs(module: nn.RNNBase, rows: int) -> float:
    """Multiply-accumulates of a recurrent layer for so many inputs: steps of all samples together.

    Examples
    --------
    >>> recurrent_macs(nn.LSTM(8, 4, bidirectional=True), 5)
    1920.0
    """
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    directions, hidden = 1 + module.bidirectional, module.hidden_size
    out = module.proj_size or hidden
    total = 0
    for layer in range(module.num_layers):
        inputs = module.input_size if layer == 0 else directions * out
        total += directions * (gates * hidden * (inputs + out) + module.proj_size * hidden)
    return float(rows * total)


def _recurrent(module: nn.RNNBase, counter: FlopCounterMode, more: list[float]) -> list[Any]:
    """Hooks that add what the counter misses of a recurrent layer, whatever it counts of it."""
    before: list[int] = []

    def enter(*_: Any) -> None:
        before.append(counter.get_total_flops())

    def leave(_module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any], _output: Any) -> None:
        data = layer_input(inputs, keywords).data  # of a packed sequence, or of a tensor
        counted = (counter.get_total_flops() - before.pop()) / 2
        more[0] += recurrent_macs(module, data.numel() // module.input_size) - counted

    return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave, with_kwargs=True)]


class _NoTracker:
    """In place of torch's tracker of modules, whose hooks break a model that computes gradients by itself."""

    parents = frozenset(("Global",))

    def __enter__(self) -> _NoTracker:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _counter() -> FlopCounterMode:
    """A counter of all operations together, and not of each module."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoTracker()  # type: ignore[assignment]
    return counter
