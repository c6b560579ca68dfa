"""Time the Triton block-sparse linear against dense cuBLAS (torch.compile) on the shapes of DeiT-B.

    python benchmarks/gpu.py [--out benchmarks/results/gpu.csv] [--quick]

One row per layer, batch, sparsity, block and dtype: median milliseconds of both, interleaved, and their ratio (above 1:
the sparse layer is faster). Needs a CUDA GPU and the [gpu] extra; without a GPU it says so and leaves with code 2.
No result of it is in this repository unless a CSV with its environment stamp stands beside it.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import statistics
import sys
from pathlib import Path

import torch
from torch.nn import functional

TOKENS = 197
LAYERS = {"qkv": (768, 2304, None), "proj": (768, 768, None), "fc1": (768, 3072, "gelu"), "fc2": (3072, 768, None)}
BATCHES = (1, 16, 256)
SPARSITIES = (0.5, 0.7, 0.8, 0.9)
BLOCKS = (64, 32)
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
COLUMNS = ("device", "torch", "triton", "dtype", "layer", "batch", "block", "sparsity")
MEASURED = ("dense_ms", "sparse_ms", "dense_iqr_ms", "sparse_iqr_ms", "ratio", "relative_error")


def block_mask(outputs: int, inputs: int, block: int, sparsity: float, generator: torch.Generator) -> torch.Tensor:
    """Uniformly random blocks with an exact count of empty ones."""
    strips, tiles = outputs // block, inputs // block
    keep = torch.ones(strips * tiles, dtype=torch.bool)
    keep[torch.randperm(strips * tiles, generator=generator)[: round(sparsity * strips * tiles)]] = False
    return keep.view(strips, tiles).repeat_interleave(block, 0).repeat_interleave(block, 1)


def interleaved(calls: list, rounds: int, repeats: int) -> list[list[float]]:
    """Milliseconds per call and round, A B A B, by CUDA events around ``repeats`` calls."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        for _ in range(5):
            call()
    torch.cuda.synchronize()
    for _ in range(rounds):
        for call, into in zip(calls, times, strict=True):
            start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            for _ in range(repeats):
                call()
            stop.record()
            torch.cuda.synchronize()
            into.append(start.elapsed_time(stop) / repeats)
    return times


def iqr(values: list[float]) -> float:
    """Distance between the quartiles."""
    low, _, high = statistics.quantiles(values, n=4)
    return high - low


def measure(layer: str, batch: int, sparsity: float, block: int, dtype: str, rounds: int) -> dict[str, object]:
    """One row of the table."""
    from fewer.kernels.triton_linear import pack_blocks, triton_linear

    generator = torch.Generator().manual_seed(0)
    inputs, outputs, activation = LAYERS[layer]
    weight = torch.randn(outputs, inputs, generator=generator) / inputs**0.5
    mask = block_mask(outputs, inputs, block, sparsity, generator)
    weight, x, bias = (
        t.to("cuda", DTYPES[dtype])
        for t in (weight * mask, torch.randn(batch, TOKENS, inputs, generator=generator), torch.randn(outputs))
    )
    blocks = pack_blocks(weight, mask, block)

    def dense_layer(x: torch.Tensor) -> torch.Tensor:
        y = functional.linear(x, weight, bias)
        return functional.gelu(y) if activation else y

    dense = torch.compile(dense_layer, mode="max-autotune-no-cudagraphs")
    with torch.inference_mode():
        expected, y = dense(x).float(), triton_linear(x, blocks, bias, activation).float()
        error = ((y - expected).norm() / expected.norm()).item()
        repeats = 200 if batch == 1 else 20
        calls = [lambda: dense(x), lambda: triton_linear(x, blocks, bias, activation)]
        a, b = interleaved(calls, rounds, repeats)
    ratio = statistics.median(d / s for d, s in zip(a, b, strict=True))
    numbers = (statistics.median(a), statistics.median(b), iqr(a), iqr(b), ratio, error)
    return dict(zip(MEASURED, (f"{number:.4g}" for number in numbers), strict=True))


def main() -> int:
    """Run the sweep and write the CSV row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/gpu.csv"))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="bf16, blocks of 64, fc1 only")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks/gpu.py needs a CUDA GPU, and torch sees none here; nothing was measured.", file=sys.stderr)
        return 2
    import triton

    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    stamp = (torch.cuda.get_device_name(), torch.__version__, triton.__version__)
    dtypes, layers, blocks = (["bf16"], ["fc1"], [64]) if arguments.quick else (DTYPES, LAYERS, BLOCKS)
    with arguments.out.open("w", newline="") as file:
        table = csv.DictWriter(file, [*COLUMNS, *MEASURED])
        table.writeheader()
        for case in itertools.product(dtypes, layers, BATCHES, blocks, SPARSITIES):
            dtype, layer, batch, block, sparsity = case
            row = measure(layer, batch, sparsity, block, dtype, arguments.rounds)
            table.writerow(dict(zip(COLUMNS, (*stamp, *case), strict=True)) | row)
            file.flush()
            print(f"{dtype} {layer:4} batch {batch:3} block {block} {sparsity:.0%} zeros: {row['ratio']}x dense")
            torch.compiler.reset()
    print(f"wrote {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
