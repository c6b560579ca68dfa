"""Sense once, then plan many budgets from the curves: the trade-off between size and distortion, in milliseconds per
point.

Run it:  python examples/many_budgets.py
"""

from __future__ import annotations

from time import perf_counter

import torch
from torch import nn

import fewer
from fewer.core.allocation.allocate import frontier


def main() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Linear(32, 128), nn.GELU()),
        *(nn.Linear(128, 128), nn.GELU()),
        *(nn.Linear(128, 64), nn.GELU()),
        nn.Linear(64, 10),
    )
    quick = fewer.Settings(search=0, additivity=0, baselines=())
    run = fewer.compress(model, torch.randn(128, 32), "weights=50%", settings=quick)

    shares = [0.9, 0.7, 0.5, 0.3, 0.2, 0.1]
    began = perf_counter()
    plans = frontier(run.curves, "weights", shares)
    each = (perf_counter() - began) / len(shares)
    for share, plan in zip(shares, plans, strict=True):
        told = "out of reach" if plan is None else f"predicted output error {plan.distortion:.5f}"
        print(f"weights={share:.0%}  {told}")
    print(f"{each * 1e3:.1f} ms for each plan")


if __name__ == "__main__":
    main()
