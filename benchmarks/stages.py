"""Where the time of MobileNetV2 goes on the native chain: each stage alone, beside the least that its arithmetic takes.

A stage is [expansion] -> depthwise filter -> projection. ``floor_ms`` is its multiply-accumulates over what the inner
loop reaches here when memory costs nothing: products at the peak of their precision, filters at that of fp32, in which
they run at all precisions. What is above it goes into conversions, bounds, stores and the edges of tiles, and is most
where a product is thin (16 or 24 inputs at 112 x 112 and 56 x 56). The last row of a precision is the whole chain.

    OMP_NUM_THREADS=1 python benchmarks/stages.py
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from tables import write
from torch import nn

from fewer.cost.stopwatch import Stopwatch
from fewer.kernels import native
from fewer.kernels.accelerate import capture_inputs
from fewer.kernels.fuse import find_runs, trace
from fewer.kernels.stages import NativeChain
from fewer.models.spec import load_model

OUT = Path(__file__).parent / "results" / "stages.csv"
MODES = {"fp32": 0, "bf16": 1, "int8": 2}


def peak(mode: int) -> float:
    """Multiply-accumulates per millisecond of one core in L1, the best of several goes."""
    best = 0.0
    for _ in range(9):
        began = time.perf_counter()
        operations = native.library().peak(mode, 200_000)
        best = max(best, operations / 2 / (time.perf_counter() - began) / 1e3)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="fewer/mobilenet-v2")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    loaded = load_model(args.model)
    model: nn.Module = loaded.model.eval()
    image = torch.randn(1, *loaded.input_size, generator=torch.Generator().manual_seed(0))
    traced = trace(model)
    assert traced is not None
    stages = [stage for run in find_runs(traced) for stage in run.stages]
    inputs = capture_inputs(model, image, {stage.units[0].name for stage in stages})
    peaks = {name: peak(mode) for name, mode in MODES.items()}
    watch, rows, total = Stopwatch(), [], [0, 0]
    begin = inputs[stages[0].units[0].name]
    for number, stage in enumerate([*stages, None]):
        x = begin if stage is None else inputs[stage.units[0].name]
        x = x.contiguous(memory_format=torch.channels_last)
        part = stages if stage is None else [stage]
        chains = {name: NativeChain(part, {}, name) for name in MODES}
        found = watch.time({name: lambda c=c, x=x: c(x) for name, c in chains.items()}, budget_ms=100.0)
        if stage is None:
            products, filters = total
        else:
            macs = list(zip(stage.units, stage.macs((x.shape[2], x.shape[3])), strict=True))
            filters = sum(count for unit, count in macs if unit.kind == "depthwise")
            products = sum(count for _, count in macs) - filters
            total = [total[0] + products, total[1] + filters]
        for name, timing in found.items():
            ms, floor = timing.ratio * watch.reference_ms, products / peaks[name] + filters / peaks["fp32"]
            row: dict[str, Any] = {
                "stage": "whole chain" if stage is None else f"{number}: {stage.units[0].name}",
                "input": "x".join(map(str, x.shape[1:])),
                "precision": name,
                "ms": f"{ms:.4f}",
                "floor_ms": f"{floor:.4f}",
                "times_floor": f"{ms / floor:.2f}",
                "product_mmac": f"{products / 1e6:.2f}",
                "filter_mmac": f"{filters / 1e6:.2f}",
                "spread": f"{timing.spread:.3f}",
            }
            rows.append(row)
            print(*row.values(), flush=True)
    write(rows, args.out)


if __name__ == "__main__":
    main()
