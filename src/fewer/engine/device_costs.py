"""Device costs of a run: what every option takes on this machine, or on the one whose profile was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fewer.core.allocation.problem import unreachable
from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.precision import PRECISIONS
from fewer.cost.accelerator.machine import load_machine, option_work
from fewer.cost.device import device_facts
from fewer.cost.energy import HOROWITZ_45NM, fixed_joules, option_joules
from fewer.cost.latency import LatencyModel, measure_model
from fewer.cost.profile import open_profile
from fewer.engine.runtime_costs import runtime_times
from fewer.engine.runtimes import Chosen, deploy_example, threads_of
from fewer.engine.untimed import refuse_untimed
from fewer.engine.work import Work
from fewer.models.running import use_threads
from fewer.models.storage import tile_of
from fewer.runtimes.names import EXPORTED, RUNTIMES

__all__ = ["DeviceCosts", "deploy_example", "device_costs", "refuse_early", "worth_trying"]


_SWITCHES = 0.02  # of the dense time: changes of precision between neighbours that take less are left out of plans


@dataclass(frozen=True, eq=False)
class DeviceCosts:
    """Costs that depend on the device, and where they come from.

    Attributes
    ----------
    units : dict
        Unit name -> metric -> one cost per option.
    fixed : dict
        Metric -> what every plan costs beside its units.
    facts : dict
        JSON values for the report: the device, the model's own latency, how far the timings can be trusted.
    came : dict
        Metric -> what the model costs as it came, where that is not the sum of the first options.
    """

    units: dict[str, dict[str, np.ndarray]]
    fixed: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)
    came: dict[str, float] = field(default_factory=dict)


def device_costs(
    work: Work, options: Mapping[str, Sequence[Option]]
) -> tuple[DeviceCosts | None, dict[str, tuple[Option, ...]]]:
    """Measure what the settings ask for, and leave out options that gain no time (:func:`worth_trying`).

    Parameters
    ----------
    work
        Model and units; ``measure`` of its settings names the metrics.
    options
        Of every unit, the dense one first.

    Returns
    -------
    DeviceCosts or None
        None when nothing is to be measured.
    dict
        The options that are left.

    Raises
    ------
    FewerError
        When the model cannot be timed, or a given profile lacks something.
    """
    prepared, settings = work.prepared, work.settings
    kept = {name: tuple(found) for name, found in options.items()}
    if not settings.measure:
        return None, kept
    units = {unit.name: unit for unit in prepared.matched.units}
    rows: dict[str, dict[str, np.ndarray]] = {name: {} for name in kept}
    fixed: dict[str, float] = {}
    came: dict[str, float] = {}
    facts: dict[str, Any] = {"batch": settings.deploy_batch, "warning": ""}
    if "latency" in settings.measure:
        chosen: Chosen | None = prepared.shared.get("runtime")
        found = (
            _in_runtime(work, kept, chosen)
            if chosen is not None and chosen.runtime in EXPORTED
            else _on_kernels(work, kept)
        )
        for name, row in found.units.items():
            rows[name]["latency"] = row["latency"]
        fixed["latency"], came["latency"] = found.fixed["latency"], found.came["latency"]
        facts |= found.facts
        if chosen is not None:
            facts |= chosen.facts()
            if chosen.runtime not in EXPORTED:  # a share is one of the fastest dense model, not of torch's
                came["latency"] *= chosen.dense_ms / chosen.torch_ms
                facts["dense_ms"] = came["latency"]
    if "energy" in settings.measure and settings.accelerator is not None:
        machine = load_machine(settings.accelerator)
        for name in kept:
            priced = option_work(units[name], kept[name], machine, batch=settings.deploy_batch)
            rows[name]["energy"] = np.array([w.joules for w in priced])
        # of products of two activations the arithmetic alone
        fixed["energy"] = 1e-12 * prepared.fixed["macs"] * settings.deploy_batch * machine.mac_picojoules
        facts["energy"] = f"modelled for the accelerator {machine.name}"
    elif "energy" in settings.measure:
        for name in kept:
            rows[name]["energy"] = np.array(option_joules(units[name], kept[name], batch=settings.deploy_batch))
        others = prepared.parameters - sum(unit.numel for unit in units.values())
        fixed["energy"] = fixed_joules(prepared.fixed["macs"], others, batch=settings.deploy_batch)
        facts["energy"] = f"modelled with the constants {HOROWITZ_45NM.name}"
    if "cycles" in settings.measure:
        machine = load_machine(settings.accelerator or "edge-npu")
        for name in kept:
            priced = option_work(units[name], kept[name], machine, batch=settings.deploy_batch)
            rows[name]["cycles"] = np.array([w.cycles for w in priced])
        # products of two activations fill the array at best
        fixed["cycles"] = prepared.fixed["macs"] * settings.deploy_batch / (machine.rows * machine.columns)
        facts["cycles"] = f"modelled for the accelerator {machine.name}"
    for name, found in kept.items():
        stay = worth_trying(found, rows[name][settings.measure[0]])
        if "switch" in facts:  # a precision that gains nothing by itself may spare its neighbours a change
            stay = sorted({*stay, *(i for i, option in enumerate(found) if option.sparsity == 0)})
        kept[name] = tuple(found[i] for i in stay)
        rows[name] = {metric: row[stay] for metric, row in rows[name].items()}
    return DeviceCosts(rows, fixed, facts, came), kept


def refuse_early(device: DeviceCosts | None, budgets: Sequence[Budget], share: float = 1.0) -> None:
    """Refuse a budget in time or energy that no plan can meet, before the long work begins.

    ``share`` is what outer choices such as fewer pixels may leave of the work of every layer.

    Raises
    ------
    FewerError
        With the smallest that can be reached.

    Examples
    --------
    >>> costs = DeviceCosts({"a": {"latency": np.array([4.0, 2.0])}}, {"latency": 1.0}, came={"latency": 5.0})
    >>> refuse_early(costs, [Budget("latency", 0.5, True)])
    Traceback (most recent call last):
    fewer.core.errors.UnmetError: latency=0.5x cannot be met: the smallest reachable latency is 60 % of dense (3ms)
    """
    for budget in budgets:
        if device is None or budget.metric not in device.fixed:
            continue
        rows = [row[budget.metric] for row in device.units.values()]
        least = share * (device.fixed[budget.metric] + sum(float(row.min()) for row in rows))
        dense = device.came.get(budget.metric, device.fixed[budget.metric] + sum(float(row[0]) for row in rows))
        if least > (budget.value * dense if budget.relative else budget.value):
            where = RUNTIMES[device.facts["runtime"]].label if "runtime" in device.facts else ""
            raise unreachable(budget, dense, least, f" with {where}" if where else "")


def _on_kernels(work: Work, kept: Mapping[str, Sequence[Option]]) -> DeviceCosts:
    times, warning = _times(work)
    costs, quality = times.costs(kept), times.profile.quality()
    facts = {
        "device": times.profile.facts,
        "profile": times.profile.name,
        "dense_ms": times.dense_ms(),
        "points": quality.points,
        "noisy": quality.noisy,
        "warning": warning or "",
    }
    units = {name: {"latency": row} for name, row in costs.units.items()}
    return DeviceCosts(units, {"latency": costs.fixed}, facts, {"latency": costs.came})


def _in_runtime(work: Work, kept: Mapping[str, Sequence[Option]], chosen: Chosen) -> DeviceCosts:
    times = runtime_times(work, chosen, kept)
    rows, fixed = times.costs(kept)
    facts = {
        "device": device_facts(threads_of(work.settings)),
        "profile": RUNTIMES[chosen.runtime].label,
        "dense_ms": chosen.dense_ms,
        "points": len(times.whole),
        "noisy": 0,
        "checks": times.checks,
    }
    if sum(times.switch.values()) > _SWITCHES * chosen.dense_ms:
        facts["switch"] = times.switch
    units = {name: {"latency": row} for name, row in rows.items()}
    return DeviceCosts(units, {"latency": fixed}, facts, {"latency": chosen.dense_ms})


def _times(work: Work) -> tuple[LatencyModel, str | None]:
    prepared, settings = work.prepared, work.settings
    refuse_untimed(work)
    example = deploy_example(work)
    patterns = [p.strip() for p in settings.pattern.split(",") if p.strip().startswith("block:")]
    with use_threads(settings.threads), work.progress.stage("profile", 1.0) as stage:
        profile, warning = open_profile(settings.profile)
        before = 0.0

        def tell(what: str, done: int, steps: int) -> None:
            nonlocal before
            stage.advance(done / steps - before, what)
            before = done / steps

        times = measure_model(
            profile,
            prepared.model,
            prepared.matched.units,
            example,
            patterns=patterns,
            precisions=settings.precisions,
            sides={
                name: "columns" if name == link.consumer else "rows"
                for link in prepared.couplings.links
                for name in link.units
            },
            progress=tell,
        )
    return times, warning


def worth_trying(options: Sequence[Option], latency: Sequence[float] | np.ndarray, margin: float = 0.01) -> list[int]:
    """Which options of a unit can be of any use: those that are quicker than every option that distorts less for
    sure.

    Distortion rises with the sparsity, from fp32 to bf16 to int8, and from a pattern to one whose tiles are made of its
    tiles. Options that are slower than the dense layer go by the same rule. Rows and columns always stay.

    Parameters
    ----------
    options
        The dense one first, which always stays.
    latency
        Milliseconds of each.
    margin
        How much quicker an option must be, as a share.

    Examples
    --------
    >>> options = [Option(), Option("block:16x4", 0.5), Option("block:16x16", 0.5), Option("block:16x4", 0.6)]
    >>> worth_trying(options, [4.0, 2.0, 2.0, 1.5])
    [0, 1, 3]
    """
    stay = [0]
    for i in range(1, len(options)):
        if options[i].removes:  # what it gains shows only together with the other layers that are cut with it
            stay.append(i)
            continue
        gentler = [j for j in range(len(options)) if j != i and _gentler(options[j], options[i])]
        if all(latency[i] < (1 - margin) * latency[j] for j in gentler):
            stay.append(i)
    return stay


_ORDER = {name: place for place, name in enumerate(PRECISIONS)}


def _gentler(a: Option, b: Option) -> bool:
    """Whether option a distorts less than b, or the same, whatever the layer."""
    if a.sparsity > b.sparsity or _ORDER[a.precision] > _ORDER[b.precision]:
        return False
    if a.is_dense or a.pattern == "unstructured" or a.family == b.family:
        return True
    try:
        (h, w), (height, width) = tile_of(a.pattern), tile_of(b.pattern)
    except FewerError:
        return False
    block = a.pattern.startswith("block:") and b.pattern.startswith("block:")
    return block and height % h == 0 and width % w == 0
