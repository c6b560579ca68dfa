"""Predicted against measured latency of random plans: every layer gets a random pattern, sparsity and precision.

    python benchmarks/latency_prediction.py --models fewer/dinov2-small,fewer/mobilenet-v2 --batches 1,8 --plans 8

Each plan is run by the very kernels that a run would use, and timed in turns with the model as it came: its time is
their ratio times the profile's time of that model, so that a busy machine slows both sides of the comparison. Weights
do not matter for time, so masks are random. Writes a CSV with an environment stamp after every plan.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import write

from fewer.core.option import Option
from fewer.cost.latency import PATTERNS, PRECISIONS, LatencyModel, measure_model
from fewer.cost.profile import DeviceProfile
from fewer.cost.stopwatch import Stopwatch
from fewer.cost.subjects import random_mask
from fewer.engine.comparison import rank_correlation
from fewer.kernels.accelerate import accelerate
from fewer.models.matching import match
from fewer.models.spec import load_model

RESULTS = Path(__file__).parent / "results" / "latency_prediction.csv"


def random_plan(units: list[Any], patterns: list[str], rng: np.random.Generator, number: int) -> dict[str, Option]:
    """One option per unit. Every third plan mixes precisions and patterns; the others take one of each."""
    mixed = number % 3 == 2
    precision, pattern = rng.choice(PRECISIONS), rng.choice(patterns)
    centre = rng.uniform(0.1, 0.9)
    plan = {}
    for unit in units:
        if mixed:
            precision, pattern = rng.choice(PRECISIONS), rng.choice(patterns)
        sparsity = float(np.clip(round(rng.normal(centre, 0.15), 2), 0.0, 0.95))
        plan[unit.name] = Option(str(pattern), sparsity, str(precision))
    return plan


def measure(model: torch.nn.Module, plan: dict[str, Option], x: torch.Tensor) -> tuple[float, float]:
    """Time of the accelerated plan over that of the model as it came, and the spread of its timing."""
    masks = {n: random_mask(model.get_submodule(n).weight.shape, o, i) for i, (n, o) in enumerate(plan.items())}
    fast, _ = accelerate(model, masks, example=x, precision={n: o.precision for n, o in plan.items()}, budget_ms=8.0)
    found = Stopwatch().time({"dense": lambda: model(x), "plan": lambda: fast(x)}, budget_ms=600.0)
    return found["plan"].ratio / found["dense"].ratio, found["plan"].spread


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="fewer/dinov2-small,fewer/vit-small-16,fewer/mobilenet-v2")
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--patterns", default=",".join(PATTERNS))
    parser.add_argument("--plans", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    patterns = arguments.patterns.split(",")
    rows: list[dict[str, Any]] = []
    for spec in arguments.models.split(","):
        loaded = load_model(spec)
        model = loaded.model.eval()
        for batch in map(int, arguments.batches.split(",")):
            x = torch.randn(batch, *loaded.input_size, generator=torch.Generator().manual_seed(0))
            units = match(model, x[:1]).units
            profile = DeviceProfile.here()
            times: LatencyModel = measure_model(profile, model, units, x, patterns=patterns)
            rng = np.random.default_rng(arguments.seed)
            pairs = []
            for number in range(arguments.plans):
                plan = random_plan(units, patterns, rng, number)
                costs = times.costs({n: (Option(), o) for n, o in plan.items()})
                predicted = costs.fixed + sum(float(row[1]) for row in costs.units.values())
                ratio, spread = measure(model, plan, x)
                measured = ratio * times.dense_ms()
                pairs.append((predicted, measured))
                rows.append(
                    {
                        "model": spec,
                        "batch": batch,
                        "plan": number,
                        "mixed": number % 3 == 2,
                        "dense_ms": round(times.dense_ms(), 3),
                        "predicted_ms": round(predicted, 3),
                        "measured_ms": round(measured, 3),
                        "error": round(predicted / measured - 1, 4),
                        "spread": round(spread, 3),
                    }
                )
                print(spec, batch, rows[-1], flush=True)
                write(rows, arguments.out)
            errors = [abs(p / m - 1) for p, m in pairs]
            ranks = rank_correlation([p for p, _ in pairs], [m for _, m in pairs])
            print(f"{spec} batch {batch}: median error {np.median(errors):.3f}, worst {max(errors):.3f}, ranks {ranks}")


if __name__ == "__main__":
    main()
