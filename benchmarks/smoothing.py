"""What smoothing gives: every linear layer of DINOv2 ViT-S/14 in int8, with more and more range moved into weights.

Weights of a row and activations of a token have a scale each, on the native kernels; nothing is cut. The smoothed model
gives the very outputs of the one as it came, as its factors are powers of two (``fewer.quantize.smooth``), so all error
is that of rounding. ``int4`` rounds weights alone. Error and cosine on held-out photos.

    OMP_NUM_THREADS=1 python benchmarks/smoothing.py       # goes on where it stopped
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import torch
from tables import Table

from fewer.data.photos import real_photos
from fewer.engine.judge import Judge
from fewer.engine.prepare import prepare
from fewer.engine.settings import Settings
from fewer.formats.integers import rounded
from fewer.kernels.accelerate import accelerate
from fewer.quantize.smooth import smoothed
from fewer.reports import environment

HERE = Path(__file__).parent / "results"
COLUMNS = ("model", "precision", "strength", "seed", "error", "median", "quality_name", "quality")
STRENGTHS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)


@torch.no_grad()
def measure(table: Table, model: str, seed: int) -> None:
    prepared = prepare(model, [photo.path for photo in real_photos()], Settings(calibration=4, heldout=32, seed=seed))
    judge, example = Judge(prepared.model, prepared.heldout, task=prepared.loaded.task), prepared.heldout[:1].batch()
    names = [unit.name for unit in prepared.matched.units]
    for strength in STRENGTHS:
        net, _ = smoothed(prepared.model, example, None, strength) if strength else (prepared.model, {})
        for precision in ("int8", "int4"):
            row = {"model": model, "precision": precision, "strength": strength, "seed": seed}
            if row in table:
                continue
            if precision == "int8":
                masks = {n: torch.ones_like(net.get_submodule(n).weight, dtype=torch.bool) for n in names}
                precisions = dict.fromkeys(names, precision)
                fast, _ = accelerate(net, masks, example=example, precision=precisions, budget_ms=1.0)
            else:
                fast = copy.deepcopy(net)
                for name in names:
                    layer = fast.get_submodule(name)
                    layer.weight.copy_(rounded(layer.weight.flatten(1), precision).view_as(layer.weight))
            found = judge.judge(fast)
            table.add(
                {
                    **row,
                    "error": f"{found.distortion:.6g}",
                    "median": f"{found.median:.6g}",
                    "quality_name": found.name,
                    "quality": f"{found.value:.6f}",
                }
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["fewer/dinov2-small"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=HERE / "smoothing.csv")
    args = parser.parse_args()
    table = Table(args.out, COLUMNS, 4)
    stamp = json.dumps(environment(threads=torch.get_num_threads()), indent=1)
    args.out.with_suffix(".json").write_text(stamp + "\n", "utf-8")
    for model in args.models:
        for seed in args.seeds:
            measure(table, model, seed)


if __name__ == "__main__":
    main()
