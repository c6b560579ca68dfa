"""The sentences of a report: what the numbers say, in words that need no paper to be understood."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from fewer.reports.compression.data import (
    Additivity,
    Baseline,
    BudgetResult,
    Latency,
    Recovery,
    RunReport,
    Runtimes,
    Search,
    Sensing,
    UnitResult,
)
from fewer.reports.compression.modelled import MODELLED, modelled_names, modelled_sentence  # noqa: F401, for templates
from fewer.reports.compression.quality_words import counted_words, enough_words, interval_words  # noqa: F401
from fewer.reports.numbers import count, data_size, duration, percent, quantity, significant, times

LEVEL = 1.05
"""Two distortions within five percent of each other are called level: some dozens of images do not tell them apart."""

DISTORTION = (
    "Distortion is the relative output error: the squared difference between the outputs of the compressed and the "
    "dense (original) model, divided by the squared size of the dense output. 0 means the same output as the dense "
    "model; smaller is better."
)


def best_baseline(report: RunReport) -> Baseline | None:
    """Return the baseline (not ours) of lowest distortion among those that met the budget, or None."""
    rivals = [row for row in report.baselines if not row.ours and row.met]
    return min(rivals, key=lambda row: row.distortion, default=None)


def best_row(report: RunReport) -> Baseline | None:
    """Return the row of lowest distortion among all that met the budget, ours or not, or None."""
    return min((row for row in report.baselines if row.met), key=lambda row: row.distortion, default=None)


def verdict_sentence(report: RunReport) -> str:
    r"""Say in plain words whether the budget was met, at what distortion, and how that stands to the best baseline.

    Parameters
    ----------
    report : RunReport

    Returns
    -------
    str
        Two or three short sentences; when ours is not the best result, they say so.

    Examples
    --------
    >>> report = RunReport.from_dict({
    ...     "verdict": {"met": True, "distortion": 0.1},
    ...     "model": {"name": "toy"},
    ...     "baselines": [{"name": "uniform", "label": "Uniform", "distortion": 0.14}],
    ... })
    >>> print(verdict_sentence(report).replace(". ", ".\n"))
    The budget is met.
    On held-out images the distortion is 0.100.
    That is 1.40x less distortion than the best baseline, Uniform (0.140).
    """
    return " ".join(part for part in (_budget_words(report), *_distortion_words(report)) if part)


def _budget_words(report: RunReport) -> str:
    verdict = report.verdict
    if verdict.met:
        met = "The budget is met" if len(verdict.budgets) < 2 else "All budgets are met"
        reached = [_reached(result, report) for result in verdict.budgets]
        return met + (f": {_joined(reached)}." if verdict.budgets else ".")
    missed = [result for result in verdict.budgets if not result.met]
    if not missed:
        return "The budget is not met."
    told = _joined([f"{_reached(one, report)}, over the limit of {_share(one.limit, one)}" for one in missed])
    kept = [result.budget for result in verdict.budgets if result.met]
    rest = f" Met: {_joined(kept)}." if kept else ""
    return f"The budget is not met: {told}.{rest}"


_NEARLY_ALL = 0.9
"""Share of a model's parameters that its layers hold, from which on nothing need be said of the others."""


def whose(result: BudgetResult, report: RunReport) -> str:
    """What a share of a budget's cost is a share of.

    Weights are counted in the layers that can be cut. Where those are not nearly the whole model, as with recurrent or
    transposed layers, half of their weights is not half of the model's.

    Examples
    --------
    >>> told = {"budget": "weights=50%", "metric": "weights", "limit": 50, "dense": 100, "reached": 50, "unit": ""}
    >>> verdict = {"met": True, "distortion": 0.1, "budgets": [told]}
    >>> report = RunReport.from_dict({"verdict": verdict, "model": {"name": "toy", "parameters": 200}})
    >>> whose(report.verdict.budgets[0], report)
    'the layers that can be cut, which hold 50% of the parameters'
    """
    every = report.model.parameters
    if result.metric != "weights" or not every or result.dense >= _NEARLY_ALL * every:
        return "the dense model"
    return f"the layers that can be cut, which hold {percent(result.dense / every)} of the parameters"


def _reached(result: BudgetResult, report: RunReport) -> str:
    if result.dense > 0:
        return f"{result.metric} at {percent(result.reached / result.dense)} of {whose(result, report)}"
    return f"{result.metric} at {quantity(result.reached, result.unit)}"


def _share(value: float, result: BudgetResult) -> str:
    return percent(value / result.dense) if result.dense > 0 else quantity(value, result.unit)


def _distortion_words(report: RunReport) -> list[str]:
    ours = report.verdict.distortion
    if ours is None:
        return ["No held-out distortion was measured."]
    told = (
        "On held-out images the output is the same as the dense model's (distortion 0)."
        if ours == 0
        else f"On held-out images the distortion is {significant(ours)}."
    )
    return [told, comparison_sentence(report), published_sentence(report)]


def comparison_sentence(report: RunReport) -> str:
    """Say how our held-out distortion stands to the best baseline; empty if there is nothing to compare."""
    ours, best = report.verdict.distortion, best_baseline(report)
    if report.recovery is not None:  # the others were not trained: a comparison would not be fair
        return recovery_sentence(report.recovery)
    if ours is None or best is None:
        return ""
    value = significant(best.distortion)
    if ours == best.distortion:
        return f"The best baseline, {best.label}, reaches the same distortion."
    if best.distortion == 0:
        return f"That is not the best result: {best.label} leaves the output unchanged (distortion 0)."
    if ours == 0:
        return f"The best baseline, {best.label}, has distortion {value}."
    if max(ours / best.distortion, best.distortion / ours) < LEVEL:
        return f"That is level with the best baseline, {best.label} ({value}): the two differ by less than 5%."
    if ours < best.distortion:
        ratio = times(best.distortion / ours)
        return f"That is {ratio} less distortion than the best baseline, {best.label} ({value})."
    ratio = times(ours / best.distortion)
    return f"That is not the best result: {best.label} has {ratio} less distortion ({value})."


def published_sentence(report: RunReport) -> str:
    """Say how methods of the literature stand to ours; empty if there are none, or if ours was trained since.

    Examples
    --------
    >>> rival = {"name": "wanda", "label": "Wanda, uniform", "distortion": 0.3, "published": True}
    >>> report = {"model": {"name": "toy"}, "verdict": {"met": True, "distortion": 0.1}, "baselines": [rival]}
    >>> published_sentence(RunReport.from_dict(report))
    'As published, on the same images, Wanda, uniform has 3.00x our distortion.'
    """
    ours = report.verdict.distortion
    rows = sorted((row for row in report.baselines if row.published), key=lambda row: row.distortion)
    if not ours or not rows or report.recovery is not None:
        return ""
    first, *others = [f"{row.label} has {times(row.distortion / ours)}" for row in rows]
    return f"As published, on the same images, {_joined([f'{first} our distortion', *others])}."


def worst_sentence(report: RunReport) -> str:
    """Say what the worst images show: how far off they are beside the mean, and whether the first class held."""
    shown, mean = report.worst, report.verdict.distortion
    most = shown[0].distortion
    told = f"The {count(len(shown))} images" if len(shown) > 1 else "The image"
    told += f" whose output changed most, of {report.data.heldout} held out, one of each file" if report.data else ""
    if mean:
        told += f"; the worst has {times(most / mean)} the mean distortion"
    if any(one.before_map for one in shown):
        return f"{told}. Colours are features or classes of the output, the same ones in both pictures."
    if all(one.before and one.after for one in shown):
        same = sum(one.before[0].label == one.after[0].label for one in shown)
        return f"{told}. The first class is the same on {same} of {len(shown)}."
    return f"{told}."


def ranking_sentence(report: RunReport) -> str:
    """Name the best method of the table, and say so when it is not ours."""
    best = best_row(report)
    if best is None:
        return "None of these methods met the budget."
    told = f"All methods got the same budget and the same images. The best is {best.label}"
    return told + ("." if best.ours else ", which is not ours.")


def quality_names(report: RunReport) -> list[str]:
    """List the quality measures that appear in the comparison, in the order of their first use."""
    return list(dict.fromkeys(name for row in report.baselines for name in row.quality))


def lost_points(report: RunReport) -> str:
    """Name the baselines that beat ours at a budget that both were measured at; empty if there are none."""
    frontier = report.frontier
    if frontier is None:
        return ""
    labels = {row.name: row.label for row in report.baselines}
    ours = [(point.cost, point.measured) for point in frontier.ours if point.measured is not None]
    lost = []
    for name, points in frontier.baselines.items():
        costs = [
            point.cost
            for point in points
            if point.measured is not None
            # the same budget, reached up to one percent
            and any(
                abs(cost - point.cost) <= 0.01 * point.cost and value > point.measured * LEVEL for cost, value in ours
            )
        ]
        if costs:
            at = [
                percent(cost, 0) if max(costs) <= 1 and not frontier.unit else quantity(cost, frontier.unit)
                for cost in costs
            ]
            lost.append(f"{labels.get(name, name)} is lower at {_joined(at)}")
    return "; ".join(lost)


def latency_sentence(time: Latency) -> str:
    """Say how much faster the model is and how well that was predicted.

    Examples
    --------
    >>> latency_sentence(Latency(dense_ms=100, predicted_ms=38, measured_ms=40))
    'One batch takes 40.0 ms instead of 100 ms (2.50 times faster); 38.0 ms were predicted, 5 % less.'
    """
    faster = time.dense_ms / time.measured_ms if time.measured_ms else 0.0
    off = time.error
    how = "as measured" if abs(off) < 0.005 else f"{100 * abs(off):.0f} % {'more' if off > 0 else 'less'}"
    return (
        f"One batch takes {quantity(time.measured_ms, 'ms')} instead of {quantity(time.dense_ms, 'ms')} "
        f"({significant(faster)} times faster); {quantity(time.predicted_ms, 'ms')} were predicted, {how}."
    )


def runtimes_sentence(found: Runtimes) -> str:
    r"""Say which runtimes, if any, are both quicker and closer to the dense model than this run.

    Examples
    --------
    >>> rows = [
    ...     {"label": "fewer", "ours": True, "ms": 20, "times_faster": 5, "distortion": 0.01},
    ...     {"label": "OpenVINO int8", "ms": 25, "times_faster": 4, "distortion": 0.02},
    ... ]
    >>> print(runtimes_sentence(Runtimes.model_validate({"rows": rows})).replace(". ", ".\n"))
    This run takes 20.0 ms per call, 5.00 times faster than the dense model in torch.
    No other runtime is both as quick and as close to the dense model.
    """
    ours = min((row for row in found.rows if row.ours), key=lambda row: row.ms, default=None)
    if ours is None:
        return "This run could not be timed."
    told = f"This run takes {quantity(ours.ms, 'ms')} per call"
    if ours.times_faster:
        how = "times faster than" if ours.times_faster >= 1 else "times the speed of"
        told += f", {significant(ours.times_faster)} {how} the dense model in torch"
    if ours.distortion is None:
        return told + "."
    better = [
        row.label
        for row in found.rows
        if not row.ours and row.ms <= ours.ms and row.distortion is not None and row.distortion <= ours.distortion
    ]
    if not better:
        return told + ". No other runtime is both as quick and as close to the dense model."
    return told + f". As quick or quicker, and as close to the dense model or closer: {_joined(better)}."


def part(value: float, whole: float, unit: str) -> str:
    """Write a part and its whole, the unit once: "10.6 M of 21.3 M weights"."""
    return f"{quantity(value, unit).removesuffix(unit).strip()} of {quantity(whole, unit)}"


def layers_sentence(report: RunReport) -> str:
    """Say how many layers were cut, how many stayed dense, between which shares, and in which precisions they are."""
    units = report.units
    cut = [unit for unit in units if unit.kept < 1]
    layers = f"{len(units)} layers" if len(units) != 1 else "1 layer"
    rounded = _precisions(units)
    if not cut:
        return f"None of the {layers} lost weights.{rounded}"
    low, high = min(unit.kept for unit in cut), max(unit.kept for unit in cut)
    span = (
        f"keep {percent(low)}" if low == high else f"keep between {percent(low)} and {percent(high)} of their weights"
    )
    dense = f" {len(units) - len(cut)} stayed dense." if len(cut) < len(units) else ""
    return f"{len(cut)} of {layers} were cut; they {span}.{dense}{rounded}"


def _precisions(units: Sequence[UnitResult]) -> str:
    """How many layers are in which precision; nothing where no layer was rounded."""
    found = Counter(unit.precision for unit in units)
    if set(found) <= {"fp32"}:
        return ""
    told = [f"{count} in {name}" for name, count in found.most_common()]
    return f" Precisions: {', '.join(told)}."


def moment(created: str) -> str:
    """Write a UTC timestamp for people; any other text stays as it is.

    Examples
    --------
    >>> moment("2026-11-22T15:00:00Z")
    '2026-11-22 15:00 UTC'
    """
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?(?:Z|\+00:00)$", r"\1 \2 UTC", created)


_LABELS = {"cpu": "CPU", "os": "System", "torch": "PyTorch", "numpy": "NumPy", "fewer": "fewer"}


def label(name: str) -> str:
    """Write the name of a setting or of a fact about the machine for people."""
    return _LABELS.get(name, name.removesuffix("_bytes").replace("_", " ").capitalize())


def fact(name: str, value: str | int | float | bool | None) -> str:
    """Write the value of a setting or of a fact about the machine for people."""
    if value is None:
        return "not known" if name in ("cpu", "torch", "numpy") or name.endswith("_bytes") else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_bytes") and not isinstance(value, str):
        return data_size(value)
    return significant(value) if isinstance(value, float) and not value.is_integer() else str(value) or "none"


_GOOD = 2.0
"""A forecast within this factor of what held-out images show is called a good one."""


def additivity_sentence(additivity: Additivity, heldout: float | None = None) -> str:
    """Say whether the sum of per-layer distortion predicts that of all cuts together, and what it means for the plan.

    A sum that is wrong about ``heldout``, the model's distortion on images that steered nothing, is no good forecast.
    """
    ratio = additivity.ratio
    if ratio is None and additivity.sum > 0:
        ratio = additivity.joint / additivity.sum
    told = (
        f"The sum over layers predicts a distortion of {significant(additivity.sum)}; "
        f"with all cuts at once it is {significant(additivity.joint)}"
    )
    if ratio is None:
        told += "."
    elif ratio > 1.25:
        told += f", {times(ratio)} the prediction. Cuts hurt more together than apart, so the sum is too hopeful."
    elif ratio < 0.8:
        told += f", {times(ratio)} the prediction. Cuts hurt less together than apart, so the sum is too cautious."
    elif heldout is None or (additivity.sum > 0 and not 1 / _GOOD <= heldout / additivity.sum <= _GOOD):
        told += f", {times(ratio)} the prediction."
    else:
        told += f", {times(ratio)} the prediction. The sum is a good forecast here."
    if heldout is not None and additivity.sum > 0 and not 1 / _GOOD <= heldout / additivity.sum <= _GOOD:
        off = heldout / additivity.sum
        way = "The plan was too hopeful" if off > 1 else "The plan was too cautious"
        told += (
            f" On the held-out images the finished model has {significant(heldout)}, {times(off)} what was predicted: "
            f"the forecast is off. {way} about images that it has not seen."
        )
    return f"{told} {_order_words(additivity.spearman)}".strip()


def _order_words(spearman: float | None) -> str:
    if spearman is None:
        return ""
    told = (
        "What the planner needs is the order, which plan is better than which: "
        f"the rank correlation (Spearman) is {spearman:.2f}"
    )
    if spearman >= 0.9:
        return f"{told}, where 1 is perfect order, so the planner ranks plans almost as they turn out."
    if spearman >= 0.7:
        return f"{told}, where 1 is perfect order, so the planner ranks plans mostly right."
    return f"{told}, where 1 is perfect order. That is weak: take the plan as a rough start."


def recovery_sentence(recovery: Recovery) -> str:
    """Say what training after the cut won back, and how long it took.

    Examples
    --------
    >>> recovery = Recovery(before=0.4, after=0.1, seconds=600, steps=300, best_step=300, images=24, choosing=16)
    >>> recovery_sentence(recovery)
    'Training for 10 min won back 75% of what was lost: the distortion went from 0.400 to 0.100.'
    """
    spent = f"Training for {duration(recovery.seconds)}"
    if recovery.refitted:
        spent = f"Least squares on {count(recovery.refitted)} views and training, {duration(recovery.seconds)} in all,"
    if recovery.best_step == 0 and not recovery.refitted:
        return f"{spent} gave nothing better, so the model stayed as it was."
    change = f"the distortion went from {significant(recovery.before)} to {significant(recovery.after)}"
    if recovery.won > 0:
        return f"{spent} won back {percent(recovery.won)} of what was lost: {change}."
    return f"{spent} did not help on held-out images: {change}."


def search_sentence(search: Search) -> str:
    """Say what the local search gained, or that it was kept off because it did not help."""
    tries = f"{count(search.evaluations)} evaluations" if search.evaluations != 1 else "1 evaluation"
    if search.seconds is not None:
        tries += f" in {duration(search.seconds)}"
    change = f"from {significant(search.before)} to {significant(search.after)}"
    if not search.kept:
        why = "it did not help" if search.after >= search.before else "its result was not accepted"
        return f"Kept off, because {why}. It tried {tries}; distortion went {change}."
    if search.before > 0 and search.after < search.before:
        return (
            f"Kept. It lowered the distortion {change} ({percent(1 - search.after / search.before)} less) with {tries}."
        )
    return f"Kept, though it gained nothing: distortion went {change} with {tries}."


def sensing_sentence(sensing: Sensing) -> str:
    """Say what it cost to measure the curves, and how that stands to the paper's way of doing it."""
    parts = []
    if sensing.forward_equivalents is not None:
        parts.append(f"Measuring all curves took the work of {count(sensing.forward_equivalents)} full forward passes")
    elif sensing.forwards is not None:
        parts.append(f"Measuring all curves took {count(sensing.forwards)} forward passes")
    if sensing.seconds is not None:
        parts.append(
            f"in {duration(sensing.seconds)}" if parts else f"Measuring all curves took {duration(sensing.seconds)}"
        )
    told = " ".join(parts) + "." if parts else ""
    if sensing.forward_equivalents is not None and sensing.forwards is not None:
        told += (
            f" In all, {count(sensing.forwards)} passes were run, whole or in part; "
            "a part counts by its share of the work."
        )
    spent = sensing.forward_equivalents if sensing.forward_equivalents is not None else sensing.forwards
    if sensing.paper_forwards is not None and spent:
        ratio = sensing.paper_forwards / spent
        more = f"{times(ratio)} as many" if ratio >= 1 else f"{times(1 / ratio)} fewer"
        told += f" The procedure of the paper would need {count(sensing.paper_forwards)} passes, {more}."
    return told.strip()


def _joined(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
