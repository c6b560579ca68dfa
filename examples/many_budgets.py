"""System 5, layer-adaptive pruning: sense once, then plan any budget from the curves in milliseconds.

Run it:  python examples/many_budgets.py
"""

from __future__ import annotations

from time import perf_counter

import torch
from _picture import BLUE, GREY, ORANGE, keep, panels
from torch import nn

import fewer
from fewer.core.allocation.allocate import allocate, frontier
from fewer.core.allocation.baselines import BASELINES


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
        told = "out of reach" if plan is None else f"predicted distortion {plan.distortion:.5f}"
        print(f"weights={share:.0%}  {told}")
    print(f"{each * 1e3:.1f} ms for each plan")

    figure, (panel,) = panels(1, height=2.8)
    for name, colour in (("exact", BLUE), ("lamp", ORANGE), ("uniform", GREY)):
        choose = allocate if name == "exact" else BASELINES[name].run
        found = [choose(run.curves, f"weights={share:.0%}").distortion for share in shares]
        panel.plot(shares, found, "o-", color=colour, label=name)
    panel.set(xlabel="share of the weights that stays", ylabel="predicted distortion", yscale="log")
    panel.legend(frameon=False)
    keep(figure, __file__)


if __name__ == "__main__":
    main()
