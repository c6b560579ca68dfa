"""Tiles of twelve rows and pairs of strips beside tiles of eight rows: the inner loop in L1, and a whole DINOv2.

Both are in the library; which one is used depends on the ways of the processor's first cache (native/dispatch.cpp), and
is switched here between two timings of the same model in turns. ``gops`` are billions of operations per second of the
inner loop when memory costs nothing. Needs AVX-512.

    OMP_NUM_THREADS=1 python benchmarks/tiles.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from kernels_common import peaks
from tables import write

from fewer.cost.stopwatch import Stopwatch
from fewer.kernels import native
from fewer.kernels.accelerate import accelerate
from fewer.models.matching import match
from fewer.models.spec import load_model

OUT = Path(__file__).parent / "results" / "tiles.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="fewer/dinov2-small")
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 8])
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    library, model = native.library(), load_model(args.model).model.eval()
    usual, loops = library.wide_tiles, {}
    for wide in (False, True):
        library.wide_tiles = wide
        loops[wide] = peaks()
    library.wide_tiles = usual
    rows = []
    for batch in args.batches:
        x = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        masks = {unit.name: torch.ones(unit.shape, dtype=torch.bool) for unit in match(model, x[:1]).units}
        for precision in native.MODES:
            fast, _ = accelerate(model, masks, example=x, precision=precision, budget_ms=10.0)

            def run(wide: bool, fast: torch.nn.Module = fast, x: torch.Tensor = x) -> None:
                library.wide_tiles = wide
                fast(x)

            watch = Stopwatch()
            found = watch.time(
                {"low": lambda run=run: run(False), "high": lambda run=run: run(True)}, budget_ms=4000.0, rounds=21
            )
            library.wide_tiles = usual
            rows.append(
                {
                    "model": args.model,
                    "batch": batch,
                    "precision": precision,
                    "low_ms": round(found["low"].ratio * watch.reference_ms, 3),
                    "high_ms": round(found["high"].ratio * watch.reference_ms, 3),
                    "times_faster": round(found["low"].ratio / found["high"].ratio, 3),
                    "low_gops": round(loops[False][precision]),
                    "high_gops": round(loops[True][precision]),
                }
            )
            print(rows[-1], flush=True)
            write(rows, args.out)


if __name__ == "__main__":
    main()
