"""Time every module of a model from the inside: hooks at its borders, own work apart from that of its children."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["measure"]


@dataclass
class _Clock:
    """Own time per module of the pass that runs now, and the sizes seen."""

    read: Callable[[], float] = time.perf_counter
    own: dict[str, float] = field(default_factory=dict)
    work: dict[str, tuple[float | None, float]] = field(default_factory=dict)
    stack: list[list[float]] = field(default_factory=list)


def measure(loaded: Any, inputs: list[np.ndarray], rounds: int) -> dict[str, Any]:
    """Median own time per module over ``rounds`` passes.

    With one thread it is that thread's CPU time, which other programs do not disturb; otherwise wall time.

    Returns
    -------
    dict
        ``layers``: name, kind, precision, own milliseconds, FLOPs and bytes per pass, in the order of the first call.
        ``hooked_ms``: a pass with the hooks; ``bare_ms``: one without, to show what the hooks themselves cost.
    """
    if not isinstance(loaded.model, nn.Module):
        raise RuntimeError("only the layers of an nn.Module can be timed")
    from fewer.timing.sample import sample, warm_up

    warm_up(loaded.call)
    model: nn.Module = loaded.model
    bare, hooked, passes = [], [], []
    clock = _Clock(time.thread_time if torch.get_num_threads() == 1 else time.perf_counter)
    for _ in range(rounds):
        bare.append(sample(loaded.call, 1)[0])
        clock.own.clear()
        with _hooked(model, clock):
            hooked.append(sample(loaded.call, 1)[0])
        passes.append(dict(clock.own))
    modules = dict(model.named_modules())
    layers = []
    for name in passes[0]:
        module = modules[name]
        flops, size = clock.work[name]
        leaf = not any(True for _ in module.children())
        layers.append(
            {
                "name": name or "(model)",
                "kind": _kind(module),
                "precision": _precision(module),
                "own_ms": float(np.median([p.get(name, 0.0) for p in passes])),
                # of a module with children only the time is known, not what its own code computes
                "flops": flops if leaf else None,
                "bytes": size if leaf else None,
                "leaf": leaf,
            }
        )
    return {"layers": layers, "hooked_ms": float(np.median(hooked)), "bare_ms": float(np.median(bare))}


@contextlib.contextmanager
def _hooked(model: nn.Module, clock: _Clock) -> Iterator[None]:
    handles = []
    for name, module in model.named_modules():
        first = name not in clock.work

        def enter(module: nn.Module, args: Any, name: str = name) -> None:
            clock.own.setdefault(name, 0.0)  # so that a parent stands before its children
            clock.stack.append([clock.read(), 0.0])

        def leave(
            module: nn.Module, args: Any, kwargs: Any, output: Any, name: str = name, first: bool = first
        ) -> None:
            now = clock.read()
            start, children = clock.stack.pop()
            clock.own[name] += (now - start - children) * 1000
            if first:
                flops, size = _work(module, (args, kwargs), output)
                seen, moved = clock.work.get(name, (None if flops is None else 0.0, 0.0))
                clock.work[name] = (None if flops is None or seen is None else seen + flops, moved + size)
            if clock.stack:  # the hook's own time is nobody's
                clock.stack[-1][1] += clock.read() - start

        handles.append(module.register_forward_pre_hook(enter))
        handles.append(module.register_forward_hook(leave, with_kwargs=True))
    try:
        yield
    finally:
        clock.stack.clear()
        for handle in handles:
            handle.remove()


def _work(module: nn.Module, arguments: Any, output: Any) -> tuple[float | None, float]:
    """FLOPs (2 per multiply-add; None where they are not known) and bytes read and written by one call of a leaf."""
    ins = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
    outs = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
    held = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    size = float(sum(t.numel() * t.element_size() for t in [*ins, *outs, *held]))
    if not outs:
        return None, size
    density = float(getattr(module, "density", 1.0))
    weight: Any = getattr(module, "weight", None)
    if hasattr(module, "in_features") and hasattr(module, "out_features"):
        return 2.0 * outs[0].numel() * float(module.in_features) * density, size  # type: ignore[arg-type]
    if isinstance(weight, Tensor) and hasattr(module, "kernel_size") and weight.dim() >= 3 and ins:
        # per output value for a convolution, per input value for a transposed one
        places = ins[0].numel() if getattr(module, "transposed", False) else outs[0].numel()
        return 2.0 * places * weight[0].numel() * density, size
    return None, size


def _kind(module: nn.Module) -> str:
    """The class, and of a convolution its window and whether it is depthwise."""
    window: Any = getattr(module, "kernel_size", None)
    if not isinstance(window, tuple) or not hasattr(module, "groups"):
        return type(module).__name__
    depthwise = " dw" if module.groups == getattr(module, "in_channels", 0) != 1 else ""
    return f"{type(module).__name__} {'x'.join(map(str, window))}{depthwise}"


def _precision(module: nn.Module) -> str:
    declared = getattr(module, "precision", None)
    if declared in ("fp32", "bf16", "int8"):
        return str(declared)
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.int8: "int8"}
    for parameter in module.parameters(recurse=False):
        return names.get(parameter.dtype, "fp32")
    return "fp32"
