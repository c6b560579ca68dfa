"""Time of backward products in fp32, bf16 and bytes, by layer and for a whole network, interleaved.

    python benchmarks/backward.py --network vgg16-bn --batch 64
    python benchmarks/backward.py --network resnet20
    python benchmarks/backward.py --network vit-small

Layers are those of a network on 32 pixels, each shape once with how often it occurs. The time of bytes includes the
rounding and the laying out of all operands. *Whole step* is a forward and a backward pass in fp32 or bf16 as torch has
them, and for bytes that in fp32 with the products of layers exchanged where bytes are faster by a tenth. Clocks
count the processor time of this thread, so other work on the machine disturbs less; it still fills caches.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
import torch
from tables import read, write
from torch import nn

from fewer.quantize.backward import integer_convolution, integer_products
from fewer.tasks.classify.networks import build

RESULTS = Path(__file__).parent / "results" / "backward.csv"
Shape = tuple[Any, ...]


def layers_of(net: nn.Module, images: torch.Tensor) -> Counter[Shape]:
    """Kind, shapes of input and weight, stride and padding of every layer that runs, and how often they occur."""
    found: Counter[Shape] = Counter()

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        x = inputs[0]
        if isinstance(module, nn.Linear):
            found[_linear_shape(x, module)] += 1
        elif isinstance(module, nn.Conv2d) and module.groups == 1:
            found[_shape(x, module)] += 1

    handles = [module.register_forward_pre_hook(note) for module in net.modules()]
    with torch.no_grad():
        net(images)
    for handle in handles:
        handle.remove()
    return found


def _shape(x: torch.Tensor, conv: nn.Conv2d) -> Shape:
    return "convolution", tuple(x.shape), tuple(conv.weight.shape), conv.stride[0], int(conv.padding[0])


def _linear_shape(x: torch.Tensor, layer: nn.Linear) -> Shape:
    return "linear", (x.numel() // x.shape[-1], x.shape[-1]), tuple(layer.weight.shape), 1, 0


def products_of(shape: Shape) -> dict[str, Callable[[], object]]:
    """The backward products of a layer in each arithmetic."""
    kind, of_x, of_weight, stride, padding = shape
    x, weight = torch.randn(of_x), torch.randn(of_weight)
    if kind == "linear":
        signal = torch.randn(of_x[0], of_weight[0])
        half = [t.bfloat16() for t in (signal, x, weight)]
        return {
            "fp32": lambda: (signal @ weight, signal.T @ x),
            "bf16": lambda: (half[0] @ half[2], half[0].T @ half[1]),
            "int8": lambda: integer_products(signal, x, weight),
        }
    signal = torch.randn_like(torch.conv2d(x, weight, stride=stride, padding=padding))
    half = [t.bfloat16() for t in (signal, x, weight)]
    back: Any = torch.ops.aten.convolution_backward
    rest = (None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, [True, True, False])
    return {
        "fp32": lambda: back(signal, x, weight, *rest),
        "bf16": lambda: back(*half, *rest),
        "int8": lambda: integer_convolution(signal, x, weight, stride, padding),
    }


def timed(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, measured in turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            began = thread_time()
            run()
            if number:  # the first round warms up
                times[name].append(1e3 * (thread_time() - began))
    return {name: float(np.median(t)) for name, t in times.items()}


class _Bytes(torch.autograd.Function):
    """A convolution in fp32 whose backward products are in bytes."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any, stride: int, padding: int) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        ctx.place = stride, padding
        return torch.conv2d(x, weight, bias, stride, padding)

    @staticmethod
    def backward(ctx: Any, signal: torch.Tensor) -> Any:  # type: ignore[override]
        of_x, of_weight = integer_convolution(signal.contiguous(), *ctx.saved_tensors, *ctx.place)
        return of_x, of_weight, signal.sum((0, 2, 3)), None, None


class _BytesLinear(torch.autograd.Function):
    """A linear layer in fp32 whose backward products are in bytes."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        ctx.save_for_backward(x, weight)
        return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, signal: torch.Tensor) -> Any:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        rows = signal.reshape(-1, signal.shape[-1])
        of_x, of_weight = integer_products(rows, x.reshape(-1, x.shape[-1]), weight)
        return of_x.view(x.shape), of_weight, rows.sum(0)


def in_bytes(net: nn.Module, wanted: set[Shape]) -> nn.Module:
    """A copy whose layers of these shapes have their backward products in bytes."""
    made = deepcopy(net)
    for module in made.modules():
        if isinstance(module, nn.Conv2d):

            def run(x: torch.Tensor, conv: nn.Conv2d = module) -> torch.Tensor:
                if not x.requires_grad or (shape := _shape(x, conv)) not in wanted:
                    return torch.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding)
                bias = conv.bias if conv.bias is not None else conv.weight.new_zeros(len(conv.weight))
                found = _Bytes.apply(x, conv.weight, bias, *shape[3:])
                assert isinstance(found, torch.Tensor)
                return found

            module.forward = run
        elif isinstance(module, nn.Linear):

            def multiply(x: torch.Tensor, layer: nn.Linear = module) -> torch.Tensor:
                if not x.requires_grad or _linear_shape(x, layer) not in wanted or layer.bias is None:
                    return torch.nn.functional.linear(x, layer.weight, layer.bias)
                found = _BytesLinear.apply(x, layer.weight, layer.bias)
                assert isinstance(found, torch.Tensor)
                return found

            module.forward = multiply
    return made


def step_of(net: nn.Module, images: torch.Tensor, half: bool) -> Callable[[], object]:
    """A forward and a backward pass."""

    def run() -> None:
        net.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            scores = net(images)
        scores.float().logsumexp(1).sum().backward()

    return run


def main() -> None:
    """Measure every shape and the whole network, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    name = {"network": options.network, "batch": options.batch}
    rows = [row for row in read(RESULTS) if {k: row.get(k) for k in name} != {k: str(v) for k, v in name.items()}]
    net, images = build(options.network).train(), torch.randn(options.batch, 3, 32, 32)
    quicker: set[Shape] = set()
    for shape, times in layers_of(net, images).items():
        found = timed(products_of(shape), options.rounds)
        if found["int8"] < 0.9 * found["fp32"]:
            quicker.add(shape)
        kind, of_x, of_weight, stride, _ = shape
        told = {"layer": kind, "input": "x".join(map(str, of_x)), "weight": "x".join(map(str, of_weight))}
        rows.append(name | told | {"stride": stride, "times": times} | _told(found, found["fp32"] / found["int8"]))
        print(rows[-1], flush=True)
        write(rows, RESULTS)
    steps = {"fp32": step_of(net, images, False), "bf16": step_of(net, images, True)}
    whole = timed(steps | {"int8": step_of(in_bytes(net, quicker), images, False)}, options.rounds)
    told = {"layer": "whole step", "input": "", "weight": "", "stride": "", "times": 1}
    rows.append(name | told | _told(whole, whole["fp32"] / whole["int8"]))
    print(rows[-1], flush=True)
    write(rows, RESULTS)


def _told(times: dict[str, float], ratio: float) -> dict[str, float]:
    return {f"{name}_ms": round(value, 3) for name, value in times.items()} | {"fp32_over_int8": round(ratio, 3)}


if __name__ == "__main__":
    main()
