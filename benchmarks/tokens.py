"""Does merging tokens pay? Schedules alone on DINOv2 ViT-S, and a whole run with and without them at the same budget.

    python benchmarks/tokens.py --budgets latency=0.2x

The first table holds, for each schedule, FLOPs, how far the output is from the dense model's on held-out photos (class
token, and all tokens), and the time of the model on our kernels, in fp32 and int8, over that of the dense model in
torch: processor time on one thread, taken in turns. The second holds runs of ``fewer compress --tokens`` and, under
the same budget, of weights alone. Nothing is trained. Finished rows are kept.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from tables import read, write
from torch import nn

import fewer
from fewer.cost.stopwatch import Stopwatch
from fewer.data.calibration import as_calibration
from fewer.data.photos import real_photos
from fewer.engine.judge import Judge
from fewer.engine.settings import Settings
from fewer.kernels.accelerate import accelerate
from fewer.models.macs import model_macs
from fewer.models.spec import load_model
from fewer.tokens.blocks import merge_after, mergeable_blocks
from fewer.tokens.schedule import schedules

RESULTS = Path(__file__).parent / "results"


def times(model: nn.Module, merged: nn.Module, example: torch.Tensor) -> dict[str, float]:
    """Time on our kernels over that of the dense model in torch, by precision."""
    linears = [name for name, module in merged.named_modules() if isinstance(module, nn.Linear)]
    runs: dict[str, Any] = {"dense": lambda: model(example)}
    for precision in ("fp32", "int8"):
        fast, _ = accelerate(merged, example=example, precision=dict.fromkeys(linears, precision), budget_ms=4.0)
        runs[precision] = lambda fast=fast: fast(example)
    found = Stopwatch().time(runs, budget_ms=150.0, rounds=7)
    return {p: found[p].ratio / found["dense"].ratio for p in ("fp32", "int8")}


def schedule_rows(spec: str, out: Path) -> None:
    """Quality of every schedule first, which is quick; then times, gentle schedules first."""
    loaded = load_model(spec)
    model = loaded.model.eval()
    files = [photo.path for photo in real_photos()]
    images = as_calibration(files, 16, seed=0, preprocess=loaded.preprocess, part="heldout").tensor
    names, count, protected = mergeable_blocks(model, images[:1])
    judge, dense = Judge(model, images), model_macs(model, images[:1])
    offered = {"none": (0,) * len(names), **schedules(count, len(names), protected)}
    rows = {row["schedule"]: row for row in read(out)}

    def merging(label: str) -> nn.Module:
        twin = copy.deepcopy(model)
        amounts = dict(zip(names, offered[label], strict=True))
        return twin if label == "none" else merge_after(twin, amounts, protected)

    for label, amounts in offered.items():
        if label not in rows:
            quality = judge.judge(merged := merging(label))
            rows[label] = {
                "model": spec,
                "schedule": label,
                "tokens_in_the_last_block": count - sum(amounts),
                "tokens": count,
                "flops": round(model_macs(merged, images[:1]) / dense, 4),
                "class_token_cosine": round(quality.value, 5),
                "distortion_of_all_tokens": round(quality.distortion, 5),
                "time_fp32": "",
                "time_int8": "",
            }
            write(list(rows.values()), out)
            print(rows[label], flush=True)
    for label in offered:
        if not rows[label]["time_int8"]:
            took = times(model, merging(label), images[:1])
            rows[label] |= {f"time_{p}": round(ratio, 3) for p, ratio in took.items()}
            write(list(rows.values()), out)
            print(rows[label], flush=True)


def run_rows(spec: str, budgets: list[str], out: Path, scratch: Path | None) -> None:
    files = [str(photo.path) for photo in real_photos()]
    settings = Settings(
        tokens=True,
        pattern="block:16x4",
        precisions=("fp32", "int8"),
        sparsities=(0.3, 0.5, 0.7, 0.85),
        calibration=40,
        baselines=(),
        additivity=6,
        backend="serial",
    )
    rows = read(out)
    for budget in budgets:
        if any(row["budget"] == budget for row in rows):
            continue
        folder = None if scratch is None else scratch / f"tokens-{budget}"
        run = fewer.compress(spec, files, budget, settings=settings, out=folder, resume=folder is not None)
        report, told = run.report, run.curves.meta.get("tokens", {})
        latency, additivity = report.latency, report.additivity
        for row in report.baselines:
            ours = row.name == run.plan.method
            rows.append(
                {
                    "model": spec,
                    "budget": budget,
                    "method": "with tokens" if ours else "weights alone",
                    "schedule": told.get("name", "none") if ours else "none",
                    "predicted": round(latency.predicted_ms / latency.dense_ms, 4) if latency and ours else "",
                    "measured": round(latency.measured_ms / latency.dense_ms, 4) if latency and ours else "",
                    "class_token_cosine": round(next(iter(row.quality.values())), 5),
                    "distortion": round(row.distortion, 5),
                    "joint_over_sum": round(additivity.ratio, 3) if ours and additivity and additivity.ratio else "",
                }
            )
        write(rows, out)
        print(*rows[-2:], sep="\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="fewer/dinov2-small")
    parser.add_argument("--budgets", default="")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--scratch", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    schedule_rows(args.model, args.out / "tokens_schedules.csv")
    if args.budgets:
        run_rows(args.model, args.budgets.split(","), args.out / "tokens_runs.csv", args.scratch)


if __name__ == "__main__":
    main()
