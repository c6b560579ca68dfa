"""Functions in the plan: which integer method stands where is chosen by the same solver, under the same budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from fewer.approximate.sites import KINDS, Site, approximated, find_sites, methods_for
from fewer.core.allocation.allocate import allocate
from fewer.core.budget import Budget
from fewer.core.curve import Curve
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.cost.accelerator.machine import load_machine, nonlinear_cycles
from fewer.engine.prepare import Prepared
from fewer.engine.sense import Sensed
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.models.running import call, evaluating

__all__ = ["Change", "SensedFunctions", "joined", "output_of", "plan_functions", "planned_functions", "sense_functions"]

_IMAGES = 4
"""Images that each method is sensed on; each of them has all tokens, heads and channels."""

_PRICED = ("cycles", "energy")
"""What functions cost something in; both modelled."""


@dataclass(frozen=True, eq=False)
class SensedFunctions:
    """Places of a model, and what each method changes there.

    Attributes
    ----------
    sites
        Places.
    distortion
        Method to the distortion of the output by it alone, for each place.
    images
        It was measured on.
    """

    sites: list[Site]
    distortion: list[dict[str, float]]
    images: int


def output_of(model: nn.Module, prepared: Prepared, batch: Any) -> Any:
    """The output of a model for a batch."""
    with evaluating(model):
        return call(model, batch, prepared.forward)


class Change:
    """How much integers at some places change the output of a model."""

    def __init__(self, work: Work, model: nn.Module) -> None:
        self._work, self._model = work, model
        self.batches = work.prepared.sensing_images[:_IMAGES].split(1)
        self._reference = work.prepared.reference(self.batches, model)

    def __call__(self, choices: Mapping[str, Mapping[str, str]]) -> float:
        """Of a choice: module to kind to method."""
        with approximated(self._model, choices):
            outputs = [output_of(self._model, self._work.prepared, b) for b in self.batches]
        parts = [self._reference.change(i, y).numpy() for i, y in enumerate(outputs)]
        return float(np.concatenate(parts).mean())


def sense_functions(work: Work, model: nn.Module) -> SensedFunctions:
    """Measure every method in every place of a model, alone."""
    change = Change(work, model)
    sites = find_sites(model, lambda m: output_of(m, work.prepared, change.batches[0]))
    sensed: list[dict[str, float]] = []
    with work.progress.stage("integers", sum(len(methods_for(s)) for s in sites)) as stage:
        for site in sites:
            sensed.append({})
            for method in methods_for(site):
                sensed[-1][method] = change({site.name: {site.kind: method}})
                stage.advance(1, site.name)
    return SensedFunctions(sites, sensed, len(change.batches))


def joined(settings: Settings, budgets: Sequence[Budget]) -> bool:
    """Whether functions and layers are planned together: there is a budget in which functions cost something."""
    priced = any(budget.metric in _PRICED for budget in budgets)
    return settings.approximate == "best" and settings.schedule == "one-shot" and priced


def prices_of(site: Site, method: str, settings: Settings) -> dict[str, float]:
    """Modelled cycles and joules of a method in a place, on the machine of the settings."""
    batch = settings.deploy_batch
    machine = load_machine(settings.accelerator or "edge-npu")
    operations = site.work(method).operations
    return {
        "cycles": nonlinear_cycles(site.numbers * batch, operations, machine),
        "energy": batch * site.joules(method),
    }


def plan_functions(work: Work, sensed: Sensed, budgets: Sequence[Budget]) -> Sensed:
    """Let the solver choose a method for every place together with an option for every layer.

    What a method distorts is sensed in the dense model, alone, like the options of layers. The methods of the plan are
    then settled: their costs and their distortion become fixed parts of the curves of the layers, and the layers of
    the joint optimum are the best ones beside them.

    Parameters
    ----------
    work
        The model and how it is compressed.
    sensed
        Curves of the layers.
    budgets
        All that must hold. Shares refer to the dense layers with the dearest method in every place.

    Returns
    -------
    Sensed
        ``curves.meta["functions"]`` says what was chosen, and out of what.

    Raises
    ------
    FewerError
        When the budgets cannot be met.
    """
    curves = sensed.curves
    functions = sense_functions(work, work.prepared.model)
    priced = [m for m in _PRICED if m in curves.metrics]
    made, orders = [], []
    for site, found in zip(functions.sites, functions.distortion, strict=True):
        # the first option of a curve is free of distortion, so that others count what they add to the least
        order = sorted(found, key=lambda name: found[name])
        prices = [prices_of(site, name, work.settings) for name in order]
        cost = {m: np.array([p[m] if m in priced else 0.0 for p in prices]) for m in curves.metrics}
        options = (Option(), *(Option(f"approximate:{name}") for name in order[1:]))
        unit = Unit(f"{site.name}.{site.function}", "function", (max(1, site.numbers),))
        made.append(Curve(unit, options, cost, np.array([found[n] - found[order[0]] for n in order])))
        orders.append(order)
    came = {**curves.came}
    for metric in priced:
        came[metric] = curves.dense(metric) + sum(float(c.cost[metric].max()) for c in made)
    least = sum(min(found.values()) for found in functions.distortion)
    together = replace(curves, curves=(*curves.curves, *made), came=came, spent=curves.spent + least)
    chosen = allocate(together, budgets).choice[len(curves) :].tolist()
    fixed = dict(curves.fixed)
    for metric in priced:
        spent = sum(float(c.cost[metric][k]) for c, k in zip(made, chosen, strict=True))
        fixed[metric] = fixed.get(metric, 0.0) + spent
    distortion = least + sum(float(c.distortion[k]) for c, k in zip(made, chosen, strict=True))
    methods = [order[k] for order, k in zip(orders, chosen, strict=True)]
    facts = _facts(work.settings, functions, methods)
    settled = replace(
        curves, fixed=fixed, came=came, spent=curves.spent + distortion, meta={**curves.meta, "functions": facts}
    )
    return replace(sensed, curves=settled)


def _facts(settings: Settings, functions: SensedFunctions, methods: Sequence[str]) -> dict[str, Any]:
    """JSON values of what was planned."""
    rows = []
    for site, found, method in zip(functions.sites, functions.distortion, methods, strict=True):
        place = {"name": site.name, "kind": site.kind, "function": site.function, "numbers": site.numbers}
        rows.append({**place, "method": method, "options": found, **prices_of(site, method, settings)})
    return {"places": rows, "images": functions.images}


def planned_functions(facts: Mapping[str, Any]) -> tuple[SensedFunctions, list[str]]:
    """What :func:`plan_functions` has put into the curves: places with what was sensed there, and their methods."""
    rows = facts["places"]
    sites = [Site(r["name"], r["kind"], r["function"], int(r["numbers"])) for r in rows]
    methods = [str(r["method"]) for r in rows]
    for site, method in zip(sites, methods, strict=True):
        _ = KINDS[site.kind][method]
    sensed = [{str(k): float(v) for k, v in r["options"].items()} for r in rows]
    return SensedFunctions(sites, sensed, int(facts["images"])), methods
