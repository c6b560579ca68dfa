"""Each step of a joint plan alone: what the cut, the bits and the integer functions do without the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from fewer.approximate.sites import approximate, approximations_of
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.progress import Progress
from fewer.engine.apply import apply_options
from fewer.engine.as_used import model_in_use
from fewer.engine.comparison import row_of
from fewer.engine.judge import Judge
from fewer.engine.plan import choose
from fewer.engine.work import Work
from fewer.kernels.copies import copied_module

if TYPE_CHECKING:
    from fewer.engine.evidence import Evidence

__all__ = ["one_step", "step_rows", "steps_of"]

_UNPLANNED = "the plan does without it"
_MISSING = {
    "cut": "the plan does without it, and alone it cannot meet the budget",
    "bits": "the plan does without them, and alone they cannot meet the budget",
    "functions": "no functions that integers were to stand for",
}
_NOTE = "one step of the plan alone; it need not meet the budget"


def one_step(options: Mapping[str, Option], step: str) -> dict[str, Option]:
    """The options of a plan with one step of it: ``cut`` or ``bits``.

    Examples
    --------
    >>> plan = {"a": Option("block:16x4", 0.5, "int8")}
    >>> str(one_step(plan, "cut")["a"]), str(one_step(plan, "bits")["a"])
    ('block:16x4@0.5', 'dense/int8')
    """
    if step == "cut":
        return {name: replace(option, precision="fp32") for name, option in options.items()}
    return {name: Option(precision=option.precision) for name, option in options.items()}


_LONE = {"cut": "only the cut", "bits": "only the bits"}


def _within(e: Evidence, step: str) -> dict[str, Option] | None:
    """The best plan that has a step alone, and meets the budgets; None where there is none."""
    curves = e.sensed.curves
    kept = []
    for curve in curves.curves:
        at = [i for i, o in enumerate(curve.options) if (o.precision == "fp32" if step == "cut" else not o.sparsity)]
        cost = {m: v[at] for m, v in curve.cost.items()}
        scores = {m: v[at] for m, v in curve.scores.items()}
        options = tuple(curve.options[i] for i in at)
        kept.append(replace(curve, options=options, cost=cost, distortion=curve.distortion[at], scores=scores))
    if all(len(curve.options) == 1 for curve in kept):
        return None
    try:
        found = choose(replace(curves, curves=tuple(kept)), e.under or e.budgets, "dp")
    except FewerError:
        return None
    return {c.unit.name: c.options[int(k)] for c, k in zip(kept, found.choice, strict=True)}


def step_rows(e: Evidence, judge: Judge, progress: Progress) -> list[dict[str, Any]]:
    """The steps that a plan for an accelerator or with integer functions joins, one by one, on the held-out images.

    The steps are the cut, the bits, both together with functions in floating point, and integer functions in the dense
    model. For an accelerator, a cut or bits that the plan does without are told as well, as the best plan for the
    budget that has them alone, where there is one. The step that distorts least comes first, and each says what
    it takes of the budgeted cost: that is the order in which they help.
    """
    made = e.approximated
    if made is None and e.settings.accelerator is None:
        return []
    alone: list[dict[str, Any]] = []
    work = Work(e.prepared, e.settings, progress)
    whole = e.plan.options()
    cut = any(o.sparsity for o in whole.values())
    bits = any(o.precision != "fp32" for o in whole.values())
    for step in _LONE if cut and bits else ():
        chosen = one_step(whole, step)
        options = {name: (*e.sensed.options[name], option) for name, option in chosen.items()}
        alone.append(_made_row(e, judge, work, step, options, chosen, _note(e, chosen)))
    for step in _LONE:
        if e.settings.accelerator is None or {"cut": cut, "bits": bits}[step]:
            continue
        chosen = _within(e, step)
        if chosen is not None:  # the plan does without, and what it would do is told
            note = f"{_UNPLANNED}; {_note(e, chosen)}"
            alone.append(_made_row(e, judge, work, step, e.sensed.options, chosen, note))
    together = []
    if made is not None:
        used = model_in_use(work, e.sensed.curves, made.plain, e.masks, whole)
        together.append(_row(e, judge, "plain", used, "fewer, functions in floating point", met=True))
        functions = approximate(copied_module(e.prepared.model), approximations_of(made.model))
        alone.append(_row(e, judge, "functions", functions, "only integer functions"))
    return [*together, *sorted(alone, key=lambda row: row["distortion"])]


def _made_row(
    e: Evidence,
    judge: Judge,
    work: Work,
    step: str,
    options: Mapping[str, Sequence[Option]],
    chosen: Mapping[str, Option],
    note: str,
) -> dict[str, Any]:
    """The row of a model with a step alone, judged as it would be used."""
    model, masks = apply_options(work, options, chosen, title=_LONE[step])
    return _row(e, judge, step, model_in_use(work, e.sensed.curves, model, masks, chosen), _LONE[step], note=note)


_STEPS = {
    "cut": "fewer weights",
    "bits": "fewer bits",
    "functions": "integer functions",
    "together": "all steps together",
}


def steps_of(e: Evidence, judge: Judge, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each step of a joint plan alone and all together, in numbers that other targets of the network have as well.

    Parameters
    ----------
    e
        What the run knows.
    judge
        With the held-out images.
    rows
        Of the comparison: that of the plan first, then those of :func:`step_rows`.
    """
    if e.approximated is None and e.settings.accelerator is None:
        return []
    metric, scale, whole = e.budgets[0].metric, judge.over_spread(), e.plan.options()
    there = {row["name"]: row for row in rows[1:]}
    has = {"cut": any(o.sparsity for o in whole.values()), "bits": any(o.precision != "fp32" for o in whole.values())}
    lone = [step for step in ("cut", "bits") if has[step]]
    if len(lone) == 1:  # then the cut, or the bits, alone is the plan without its functions
        there[lone[0]] = there.get("plain", rows[0])
    dense = {name: Option() for name in whole}
    found = []
    for step, label in _STEPS.items():
        row = rows[0] if step == "together" else there.get(step)
        if row is None:
            found.append({"name": step, "label": label, "metric": metric, "note": _MISSING[step]})
            continue
        chosen = {"together": whole, "functions": dense}.get(step) or _alone(e, step, has[step])
        note = _UNPLANNED if has.get(step, True) is False else ""
        share = _share(e, metric, chosen, functions=step in ("together", "functions"))
        distance = None if scale is None else row["distortion"] * scale
        found.append(
            {"name": step, "label": label, "metric": metric, "share": share, "distance": distance, "note": note}
        )
    return found


def _alone(e: Evidence, step: str, planned: bool) -> dict[str, Option]:
    whole = e.plan.options()
    return one_step(whole, step) if planned else _within(e, step) or whole


def _share(e: Evidence, metric: str, chosen: Mapping[str, Option], functions: bool) -> float | None:
    """What is left of the dense model's cost; None where an option of its own has no cost in the curves."""
    curves = e.sensed.curves
    if metric not in curves.metrics or any(chosen[c.unit.name] not in c.options for c in curves.curves):
        return None
    whole, layers = curves.dense(metric), curves.total(metric, [0] * len(curves))
    cost = curves.total(metric, [c.options.index(chosen[c.unit.name]) for c in curves.curves])
    # the methods of functions that were chosen are a fixed part of the curves already
    return (cost if functions else cost + whole - layers) / whole if whole else None


def _note(e: Evidence, chosen: Mapping[str, Option]) -> str:
    """What the step alone takes of the cost that is budgeted."""
    words = []
    for metric in dict.fromkeys(b.metric for b in e.budgets):
        total, dense = 0.0, 0.0
        for curve in e.sensed.curves.curves:
            if metric not in curve.cost or chosen[curve.unit.name] not in curve.options:
                return _NOTE
            total += float(curve.cost[metric][curve.options.index(chosen[curve.unit.name])])
            dense += float(curve.cost[metric][0])
        if dense:
            words.append(f"{total / dense:.2f} of the {metric} of the layers")
    return f"one step of the plan alone, with {' and '.join(words)}; it need not meet the budget" if words else _NOTE


def _row(
    e: Evidence, judge: Judge, name: str, model: nn.Module, label: str, met: bool = False, note: str = _NOTE
) -> dict[str, Any]:
    labelled = e.quality(model) if e.quality is not None else {}
    row = row_of(name, met, judge.judge(model), 0.0, e.settings, labelled)
    return {**row, "label": label, "met": met, "note": "" if met else note}
