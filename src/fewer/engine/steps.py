"""Each step of a joint plan alone: what the cut, the bits and the integer functions do without the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from fewer.approximate.sites import approximate, approximations_of
from fewer.core.option import Option
from fewer.core.progress import Progress
from fewer.engine.apply import apply_options
from fewer.engine.as_used import model_in_use
from fewer.engine.comparison import row_of
from fewer.engine.judge import Judge
from fewer.engine.work import Work
from fewer.kernels.copies import copied_module

if TYPE_CHECKING:
    from fewer.engine.evidence import Evidence

__all__ = ["one_step", "step_rows"]

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


def step_rows(e: Evidence, judge: Judge, progress: Progress) -> list[dict[str, Any]]:
    """The steps that a plan for an accelerator or with integer functions joins, one by one, on the held-out images.

    The steps are the cut, the bits, both together with functions in floating point, and integer functions in the dense
    model. A step that the plan does not have is left out. The step that distorts least comes first, and each says what
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
    for step, label in (("cut", "only the cut"), ("bits", "only the bits")) if cut and bits else ():
        chosen = one_step(whole, step)
        options = {name: (*e.sensed.options[name], option) for name, option in chosen.items()}
        model, masks = apply_options(work, options, chosen, title=label)
        used = model_in_use(work, e.sensed.curves, model, masks, chosen)
        alone.append(_row(e, judge, step, used, label, note=_note(e, chosen)))
    together = []
    if made is not None:
        used = model_in_use(work, e.sensed.curves, made.plain, e.masks, whole)
        together.append(_row(e, judge, "plain", used, "fewer, functions in floating point", met=True))
        functions = approximate(copied_module(e.prepared.model), approximations_of(made.model))
        alone.append(_row(e, judge, "functions", functions, "only integer functions"))
    return [*together, *sorted(alone, key=lambda row: row["distortion"])]


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
