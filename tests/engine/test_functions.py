"""Integer functions and layers in one plan: nothing better exists, costs are kept, and what was planned stands."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import nn

import fewer
from fewer.approximate.sites import approximations_of
from fewer.core.allocation.allocate import allocate
from fewer.core.budget import parse_budgets
from fewer.core.errors import FewerError
from fewer.engine import functions
from fewer.engine.functions import joined, plan_functions, planned_functions
from fewer.engine.settings import Settings
from tests.support.nets import transformer

MORE = {
    "calibration": 6, "sensing": 2, "heldout": 2, "search": 0, "additivity": 0, "backend": "serial",
    "allocator": "dp", "sparsities": (0.5,), "approximate": "best", "accelerator": "edge-npu", "baselines": (),
}  # fmt: skip


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return transformer(32)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(10, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def kept(net, images, monkeypatch, budget: str):
    """A run, what the solver was given, and what it gave back."""
    seen = {}

    def plan(work, sensed, budgets):
        seen["before"], seen["work"] = sensed, work
        seen["after"] = plan_functions(work, sensed, budgets)
        return seen["after"]

    monkeypatch.setattr("fewer.engine.run.plan_functions", plan)
    run = fewer.compress(net, images, budget, settings=Settings.of(MORE))
    return run, seen


@pytest.mark.parametrize("budget", ["cycles=0.75x", "energy=0.7x", "cycles=0.8x,weights=70%"])
def test_no_other_methods_with_the_best_layers_beside_them_are_better(net, images, monkeypatch, budget: str) -> None:
    run, seen = kept(net, images, monkeypatch, budget)
    before, after = seen["before"].curves, seen["after"].curves
    assert run.report.verdict.met and run.curves.meta["functions"]["places"]
    found, methods = planned_functions(after.meta["functions"])
    rng = np.random.default_rng(0)
    ways = list(product(*(list(d) for d in found.distortion)))
    ways = [tuple(methods), *(ways[i] for i in rng.permutation(len(ways))[:40])]
    totals = []
    for way in ways:
        prices = [
            functions.prices_of(s, m, run.prepared and seen["work"].settings)
            for s, m in zip(found.sites, way, strict=True)
        ]
        fixed = {**before.fixed}
        for metric in ("cycles", "energy"):
            if metric in before.metrics:
                fixed[metric] = fixed.get(metric, 0.0) + sum(p[metric] for p in prices)
        spent = sum(d[m] for d, m in zip(found.distortion, way, strict=True))
        other = replace(before, fixed=fixed, spent=spent, came=after.came)
        try:
            totals.append(allocate(other, parse_budgets(budget)).distortion)
        except FewerError:
            totals.append(np.inf)
    assert totals[0] <= min(totals) + 1e-9
    assert run.plan.cost[budget.partition("=")[0]] <= after.dense(budget.partition("=")[0]) * 0.81


def test_a_tight_budget_takes_cheaper_methods_and_the_model_has_what_was_planned(net, images, monkeypatch) -> None:
    loose, _ = kept(net, images, monkeypatch, "cycles=1.0x")
    curves = loose.curves
    sites = planned_functions(curves.meta["functions"])[0]
    settings = Settings.of(MORE)
    spent = sum(p["cycles"] for p in curves.meta["functions"]["places"])
    cheapest = sum(
        min(functions.prices_of(s, m, settings)["cycles"] for m in found)
        for s, found in zip(sites.sites, sites.distortion, strict=True)
    )
    least = curves.fixed["cycles"] - spent + cheapest + sum(float(c.cost["cycles"].min()) for c in curves.curves)
    tight, _ = kept(net, images, monkeypatch, f"cycles={least * 1.01:.0f}")
    cost = [sum(p["cycles"] for p in run.curves.meta["functions"]["places"]) for run in (loose, tight)]
    assert cost[1] < cost[0]
    for run in (loose, tight):
        rows, places = run.report.integers, run.curves.meta["functions"]["places"]
        assert [(r.name, r.method) for r in rows] == [(p["name"], p["method"]) for p in places]
        stand = {(name, m) for name, kinds in approximations_of(run.model).items() for m in kinds.values()}
        assert stand == {(r.name, r.method) for r in rows}
        told = next(q for q in run.report.verdict.quality if q.name == "change by integer functions")
        assert "planned together with the layers" in told.note


def test_what_cannot_be_met_even_with_the_cheapest_is_told(net, images) -> None:
    with pytest.raises(FewerError, match=r"cycles=0\.01x cannot be met"):
        fewer.compress(net, images, "cycles=0.01x", settings=Settings.of(MORE))


def test_functions_have_a_plan_of_their_own_where_they_cost_nothing_in_the_budget() -> None:
    best = Settings.of(MORE)
    assert joined(best, parse_budgets("cycles=0.5x")) and joined(best, parse_budgets("weights=0.5x,energy=0.9x"))
    assert not joined(best, parse_budgets("weights=50%"))
    assert not joined(Settings.of({**MORE, "approximate": "i-bert"}), parse_budgets("cycles=0.5x"))
    assert not joined(Settings.of({**MORE, "schedule": "iterative"}), parse_budgets("cycles=0.5x"))
