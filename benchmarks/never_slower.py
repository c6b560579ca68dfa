"""Is a run ever slower than the model it came from? Ten timm architectures with random weights, from end to end.

    python benchmarks/never_slower.py --names resnet,vit

Each model goes through ``fewer.compress`` (blocks of 16x4 in int8, 0.6 of its FLOPs or the least that can be reached),
is saved, loaded again with ``fewer.load(..., accelerated=True)``, and timed beside the dense model in plain torch, in
turns. Time is the processor time of the process on one thread, so that other work on the machine does not count; what
counts is the median of the ratios of neighbouring calls, and in how many rounds the run was slower. Weights are random,
so the quality of the runs means nothing and their sensing is cut short. Needs timm and torchvision. Finished rows are
kept.
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import read, write

import fewer
from fewer.engine.settings import Settings
from fewer.kernels.accelerate import accelerate
from fewer.models.adapters import import_timm
from fewer.models.artefact import load_masks, load_recipe
from fewer.models.recipe import precisions_of

RESULTS = Path(__file__).parent / "results" / "never_slower.csv"

# the smallest of each family; where timm has none that is small, a narrow or shallow one by its own arguments
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("vit_tiny_patch16_224", {}),
    "swin": ("swin_tiny_patch4_window7_224", {"embed_dim": 48, "depths": (2, 2, 2, 2), "num_heads": (2, 4, 8, 16)}),
    "convnext": ("convnext_atto", {}),
    "resnet": ("resnet18", {}),
    "efficientnet": ("efficientnet_b0", {}),
    "mobilenetv3": ("mobilenetv3_small_100", {}),
    "regnet": ("regnety_002", {}),
    "mixer": ("mixer_s32_224", {}),
    "deit": ("deit_tiny_distilled_patch16_224", {}),
    "beit": ("beit_base_patch16_224", {"embed_dim": 192, "num_heads": 3, "depth": 6}),
}
QUICK: dict[str, Any] = {
    "pattern": "block:16x4",
    "precisions": ("int8",),
    "sparsities": (0.5, 0.75),
    "estimator": "taylor",
    "probes": 1,
    "score": "magnitude",
    "compensation": "none",
    "calibration": 3,
    "sensing": 1,
    "heldout": 1,
    "baselines": (),
    "additivity": 0,
    "backend": "serial",
}


def ratios(dense: Callable[[], object], fast: Callable[[], object], rounds: int) -> np.ndarray:
    """Processor time of ``fast`` over the mean of the dense calls before and after it, for each round."""

    def once(run: Callable[[], object]) -> int:
        before = time.process_time_ns()
        run()
        return time.process_time_ns() - before

    with torch.inference_mode():
        for _ in range(3):
            for run in (dense, fast):
                run()
        found, before = [], once(dense)
        for _ in range(rounds):
            taken, after = once(fast), once(dense)
            found.append(2 * taken / (before + after))
            before = after
    return np.array(found)


def compressed(model: torch.nn.Module, images: torch.Tensor, budget: str, out: Path) -> tuple[Any, str]:
    """A run under the budget, or under the least that can be reached."""
    settings = Settings(**QUICK)
    try:
        return fewer.compress(model, images, budget, settings=settings, out=out, overwrite=True), budget
    except fewer.FewerError as error:
        least = re.search(r"smallest reachable flops is ([\d.]+) %", str(error))
        if least is None:
            raise
        budget = f"flops={float(least[1]) + 0.1:.1f}%"
        return fewer.compress(model, images, budget, settings=settings, out=out, overwrite=True), budget


def measure(name: str, batch: int, rounds: int) -> dict[str, Any]:
    timm, (spec, changes) = import_timm(), MODELS[name]
    torch.manual_seed(0)

    def architecture() -> torch.nn.Module:
        return timm.create_model(spec, **changes)

    model = architecture().eval()
    size = timm.data.resolve_data_config({}, model=model)["input_size"]
    images = torch.randn(max(4, batch), *size)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        run, budget = compressed(model, images, "flops=0.6x", Path(out) / "run")
        saved = fewer.load(Path(out) / "run", architecture)
        example = images[:batch]
        fast, layers = accelerate(
            saved,
            load_masks(Path(out) / "run"),
            example=example,
            precision=precisions_of(load_recipe(Path(out) / "run")),
            budget_ms=10.0,
        )
    with torch.inference_mode():
        wanted, got = run.model(example), fast(example)
        assert torch.equal(saved(example), wanted), "the artefact gives another output"
    found = ratios(lambda: model(example), lambda: fast(example), rounds)
    inner = [row for row in layers if row.kind not in ("model", "block")]
    return {
        "architecture": name,
        "timm": spec,
        "arguments": " ".join(f"{k}={v}" for k, v in changes.items()).replace(",", ""),
        "parameters": sum(p.numel() for p in model.parameters()),
        "batch": batch,
        "budget": budget,
        "ratio": round(float(np.median(found)), 3),
        "quartiles": " ".join(f"{q:.3f}" for q in np.quantile(found, [0.25, 0.75])),
        "slower_rounds": f"{int((found > 1).sum())}/{len(found)}",
        "model": next(row.backend for row in layers if row.kind == "model"),
        "layers_on_kernels": f"{sum(row.backend != 'dense' for row in inner)}/{len(inner)}",
        "fused_blocks": sum(row.kind == "block" for row in layers),
        "rounding_of_the_output": f"{float((got - wanted).norm() / wanted.norm().clamp_min(1e-30)):.2g}",
        "skipped": len(run.report.skipped),
        "cpu_seconds": round(time.process_time() - began),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", default=",".join(MODELS))
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = read(args.out)
    for name in args.names.split(","):
        if any(row["architecture"] == name and row["batch"] == str(args.batch) for row in rows):
            continue
        rows.append({k: str(v) for k, v in measure(name, args.batch, args.rounds).items()})
        print(rows[-1], flush=True)
        write(rows, args.out)


if __name__ == "__main__":
    main()
