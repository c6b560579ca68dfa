"""What every option takes in onnxruntime or OpenVINO, read off whole models that were timed and profiled there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.cost.stopwatch import Stopwatch
from fewer.cost.subjects import runs_as
from fewer.engine.prepare import Prepared
from fewer.engine.runtime_rest import rest_precision
from fewer.engine.runtimes import (
    Chosen,
    dense_run,
    deploy_example,
    planned_graph,
    threads_of,
    undisturbed,
)
from fewer.engine.shrink import random_cut
from fewer.engine.work import Work
from fewer.models.running import use_threads
from fewer.runtimes.layers import layer_ms
from fewer.runtimes.planned import PlannedGraph, arrays_of
from fewer.runtimes.session import open_session, runs_bf16

__all__ = ["RuntimeTimes", "runtime_times", "shared_switches"]

_KNOT = 0.5  # share of the channels that the narrow model has lost
_LEAST = 0.02  # of a layer's time that stays whatever is cut from it


@dataclass(frozen=True, eq=False)
class RuntimeTimes:
    """Times of a model in one runtime.

    A whole model in one precision is timed, and profiled inside of the runtime: what a layer takes there holds its
    fusions, the rounding of its input and its changes of layout. What is left is the rest of the model; its cheapest
    form is the fixed cost, and what it takes more in a precision is spread over the layers, which cause it.

    Attributes
    ----------
    whole
        Precision -> milliseconds of the model.
    layers
        Precision -> layer -> milliseconds.
    narrow
        Precision -> layer -> share of its time that is left where half of all channels are gone.
    roles
        Layer -> in how many ways that made it smaller: its inputs, its outputs, or both.
    checks
        Plans of several precisions that were timed: ``predicted`` and ``measured`` milliseconds.
    switch
        Layer -> milliseconds more where it is in int8 among layers that are not, or the other way: changes of layout
        and roundings that whole models of one precision do not have.
    """

    whole: dict[str, float]
    layers: dict[str, dict[str, float]]
    narrow: dict[str, dict[str, float]] = field(default_factory=dict)
    roles: dict[str, int] = field(default_factory=dict)
    checks: list[dict[str, float]] = field(default_factory=list)
    switch: dict[str, float] = field(default_factory=dict)

    def alone(self, name: str, option: Option) -> float | None:
        """Milliseconds of a layer, without its part of the rest; None where the runtime gains nothing by the option."""
        precision = runs_as(option.precision)
        if precision not in self.whole or not (option.is_dense or option.removes):
            return None
        dense = self.layers[precision].get(name, 0.0)
        if not option.removes:
            return dense
        left = self.narrow.get(precision, {}).get(name, 1.0) ** (1 / max(1, self.roles.get(name, 1)))
        return dense * max(_LEAST, 1 - option.sparsity * (1 - left) / _KNOT)

    def costs(self, options: Mapping[str, Sequence[Option]]) -> tuple[dict[str, np.ndarray], float]:
        """Milliseconds of each option of each layer, and what every plan takes beside them.

        Parameters
        ----------
        options
            By layer; the first of each is the dense one.

        Examples
        --------
        >>> times = RuntimeTimes({"fp32": 3.0, "int8": 2.0}, {"fp32": {"a": 2.0}, "int8": {"a": 0.5}})
        >>> rows, fixed = times.costs({"a": [Option(), Option(precision="int8")]})
        >>> rows["a"].tolist(), fixed
        ([2.0, 1.0], 1.0)
        """
        names = list(options)
        rest = {p: ms - sum(self.layers[p].get(n, 0.0) for n in names) for p, ms in self.whole.items()}
        fixed = max(0.0, min(rest.values()))
        # by what a layer takes, so that a tiny one is not charged for the roundings of all
        weight = {n: self.layers["fp32"].get(n, 0.0) for n in names}
        total = sum(weight.values()) or 1.0
        rows = {}
        for name in names:
            share = weight[name] / total
            slow = self.layers["fp32"].get(name, 0.0) + share * (rest["fp32"] - fixed)
            row = []
            for option in options[name]:
                own = self.alone(name, option)
                more = share * (rest.get(runs_as(option.precision), rest["fp32"]) - fixed)
                row.append(slow if own is None else own + more)
            rows[name] = np.maximum(np.array(row), 0.0)
        return rows, fixed


def runtime_times(work: Work, chosen: Chosen, options: Mapping[str, Sequence[Option]]) -> RuntimeTimes:
    """Time and profile a model in a runtime, in each precision, and with half of its channels where these can go.

    Parameters
    ----------
    work
        The model, and how it will be used.
    chosen
        The runtime.
    options
        Of the layers: which precisions are of interest, and whether channels are.

    Raises
    ------
    FewerError
        When the runtime cannot run the model.
    """
    offered = {runs_as(o.precision) for found in options.values() for o in found}
    levels = ["fp32"]
    if "bf16" in offered and runs_bf16(chosen.runtime):
        levels.append("bf16")
    if "int8" in offered:
        levels.append("int8")
    cut = any(o.removes for found in options.values() for o in found)
    with work.progress.stage("profile", len(levels) * (3 if cut else 2)) as stage, use_threads(work.settings.threads):
        measure = _Measure(work, chosen, levels, stage)
        whole, layers = measure.model(planned_graph(work))
        times = RuntimeTimes(whole, layers)
        if cut:
            twin, roles = _narrow(work.prepared, options)
            small = PlannedGraph.of(twin, measure.names, deploy_example(work), images=work.prepared.calibration.tensor)
            _, narrow = measure.model(small)
            left = {
                p: {n: min(1.0, ms / layers[p][n]) for n, ms in row.items() if layers[p].get(n, 0.0) > 0}
                for p, row in narrow.items()
            }
            times = RuntimeTimes(whole, layers, left, roles)
        if len(levels) > 1:
            check = measure.mixed(times, options)
            times.checks.append(check)
            if levels[-1] == "int8":
                more = max(0.0, check["measured"] - check["predicted"])
                times.switch.update(shared_switches(work.prepared.matched.units, list(options), more))
    return times


def shared_switches(units: Sequence[Unit], names: Sequence[str], ms: float) -> dict[str, float]:
    """What a plan with every second layer in another precision takes more, shared out by what these read and write.

    Examples
    --------
    >>> units = [Unit("a", "linear", (4, 4)), Unit("b", "linear", (4, 4)), Unit("c", "linear", (4, 12))]
    >>> shared_switches(units, ["a", "b", "c"], 1.0)
    {'a': 1.0, 'b': 1.0, 'c': 2.0}
    """
    sizes = {u.name: u.positions * (u.shape[0] + u.groups * u.shape[1]) for u in units}
    total = sum(sizes[name] for i, name in enumerate(names) if i % 2) or 1.0
    return {name: ms * sizes[name] / total for name in names}


class _Measure:
    def __init__(self, work: Work, chosen: Chosen, levels: Sequence[str], stage: Any) -> None:
        self.work, self.chosen, self.levels, self.stage = work, chosen, levels, stage
        self.names = {u.name: (u.name, *u.aliases) for u in work.prepared.matched.units}
        self.arrays = arrays_of(deploy_example(work))
        self.threads = threads_of(work.settings)

    def model(self, planned: PlannedGraph) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Whole times and layer times at every level."""
        plans = {level: dict.fromkeys(self.names, level) for level in self.levels}
        whole = self.times(planned, plans)
        layers: dict[str, dict[str, float]] = {}
        for level, precisions in plans.items():
            rest = rest_precision(self.work, self.chosen.runtime, precisions)
            found, total = layer_ms(planned, self.chosen.runtime, precisions, self.arrays, self.threads, rest)
            layers[level] = {n: ms * whole[level] / max(total, 1e-9) for n, ms in found.items()}
            self.stage.advance(1, level)
        return whole, layers

    def times(self, planned: PlannedGraph, plans: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
        """Milliseconds of whole models, timed in turns beside the dense model that ratios refer to."""
        runtime, calls = self.chosen.runtime, {}
        for name, precisions in plans.items():
            file = planned.file(runtime, precisions).SerializeToString()
            session = open_session(runtime, file, self.threads, rest_precision(self.work, runtime, precisions))
            calls[name] = lambda session=session: session.run(self.arrays)
        calls["dense"] = dense_run(self.work, self.chosen.against)
        found = Stopwatch(runtimes=True).time(calls, budget_ms=300.0, rounds=7, warm=True)
        dense = undisturbed(self.work, self.chosen.against, found["dense"].ratio)
        return {name: self.chosen.dense_ms * found[name].ratio / dense for name in plans}

    def mixed(self, times: RuntimeTimes, options: Mapping[str, Sequence[Option]]) -> dict[str, float]:
        """A plan in which every second layer is in the lowest precision: the most changes between neighbours."""
        low, others = self.levels[-1], self.levels[-2]
        precisions = {name: low if i % 2 else others for i, name in enumerate(options)}
        rows, fixed = times.costs({n: [Option(), Option(precision=p)] for n, p in precisions.items()})
        measured = self.times(planned_graph(self.work), {"mixed": precisions})["mixed"]
        self.stage.advance(1, "mixed")
        return {"predicted": fixed + float(sum(row[1] for row in rows.values())), "measured": measured}


def _narrow(prepared: Prepared, options: Mapping[str, Sequence[Option]]) -> tuple[nn.Module, dict[str, int]]:
    """The model with about half of all channels that can go, and in how many ways each layer became smaller."""
    chosen = {name: Option() for name in options}
    roles: dict[str, int] = {}
    for link in prepared.couplings.links:
        found = [o for o in options[link.consumer] if o.removes == "columns"]
        if found:
            chosen[link.consumer] = min(found, key=lambda o: abs(o.sparsity - _KNOT))
            for name in link.units:
                roles[name] = roles.get(name, 0) + 1
    return random_cut(prepared.model, prepared.couplings, chosen), roles
