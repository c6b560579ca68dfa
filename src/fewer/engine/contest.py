"""Contest: which way of planning serves this model and budget, judged by putting the plans together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from fewer.core.allocation.allocate import Allocation
from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.engine.plan import choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from fewer.core.progress import Progress
    from fewer.engine.assembly import Assembly
    from fewer.engine.prepare import Prepared
    from fewer.engine.sense import Sensed
    from fewer.engine.settings import Settings

__all__ = ["CONTENDERS", "Made", "contest", "decide", "final"]

CONTENDERS = ("dp", "lamp", "erk", "uniform")
_MARGIN = 0.02
"""By how much a simple rule must be better: the optimum of the curves is left for a reason only."""
_CLEAR = 0.1
"""The same for the product of both measurements of a whole model."""
_CLOSE = 1.5
"""Plans whose joint harm is at most so many times the lowest are made real, to be measured as whole models."""
_FINALISTS = 3


def contest(
    curves: CurveSet,
    budgets: Sequence[Budget],
    judge: Callable[[Allocation], float],
    done: Callable[[str], None] = lambda _name: None,
) -> tuple[str, list[dict[str, Any]]]:
    """Choose an allocator by the joint harm of its plan.

    The exact DP minimises the *sum* of harms. Where much is cut, harms no longer add up, and a rule that knows
    nothing of harm but spreads the cut evenly can end up lower. The difference shows as soon as the plans are put
    together, which takes seconds, on images that the stored weights were not fitted to.

    Parameters
    ----------
    curves, budgets
        What is to be planned.
    judge
        Joint harm of a plan.
    done
        Called with the name of each plan that was judged.

    Returns
    -------
    str
        The name of the winner: ``dp``, unless another one is clearly lower.
    list of dict
        ``name``, ``predicted`` (sum of harms) and ``measured`` (joint harm) of every contender that meets the budgets.

    Raises
    ------
    FewerError
        When even the DP finds no plan.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> ladder = (Option(), Option("unstructured", 0.5))
    >>> curve = Curve(Unit("a", "linear", (2, 2)), ladder, {"weights": [4, 2]}, [0, 1])
    >>> contest(CurveSet((curve,)), [Budget("weights", 0.5, True)], lambda plan: plan.distortion)
    ('dp', [{'name': 'dp', 'predicted': 1.0, 'measured': 1.0}])
    """
    rows: list[dict[str, Any]] = []
    seen: dict[bytes, str] = {}
    for name in CONTENDERS:
        try:
            plan = choose(curves, budgets, name)
        except FewerError:
            if name == "dp":
                raise
            continue  # a rule with one free parameter cannot meet every pair of budgets
        key = plan.choice.tobytes()
        if key not in seen:
            seen[key] = name
            rows.append({"name": name, "predicted": plan.distortion, "measured": judge(plan)})
        done(name)
    best = min(rows, key=lambda row: row["measured"])
    winner = best["name"] if best["measured"] < (1 - _MARGIN) * rows[0]["measured"] else "dp"
    return winner, rows


def decide(
    prepared: Prepared,
    settings: Settings,
    sensed: Sensed,
    assembly: Assembly,
    budgets: Sequence[Budget],
    progress: Progress,
) -> tuple[str, list[dict[str, Any]]]:
    """The allocator to use: the one that was asked for, or the winner of a contest on the sensing images."""
    if settings.allocator != "auto":
        return settings.allocator, []
    # in rounds every round plans a little, and for that the sum of harms is right
    # and no contender knows of a power term
    if settings.power or settings.schedule == "iterative" or len(sensed.curves) < 2:
        return "dp", []
    batches = prepared.sensing_images.split(settings.batch)
    reference = prepared.reference(batches)
    with progress.stage("contest", len(CONTENDERS)) as stage:
        return contest(
            sensed.curves,
            budgets,
            lambda plan: assembly.distortion(plan.choice, batches, reference),
            lambda name: stage.advance(1, name),
        )


@dataclass(eq=False)
class Made:
    """A plan that was made real: the model, its masks, and the seconds that it took."""

    model: nn.Module
    masks: dict[str, Tensor]
    seconds: float


def final(
    prepared: Prepared,
    settings: Settings,
    sensed: Sensed,
    budgets: Sequence[Budget],
    rows: list[dict[str, Any]],
    progress: Progress,
    made: dict[bytes, Made] | None = None,
) -> tuple[str, dict[bytes, Made]]:
    """Make the best plans of a contest real, layer by layer in order, and take the lowest.

    Two measurements of a plan, each with a fault, decide by their product. Put together from layers that were repaired
    each on its own, it is judged on images that no repair saw, but it is not the model that a run would give. Made
    real, it is that model, but on the very images that its repair was fitted to, where the error is a fifth of that on
    others, and where at high sparsity all plans look alike.

    Parameters
    ----------
    rows
        Of :func:`contest`, with more than one contender; finalists get ``made``, the distortion of their model on the
        calibration images.
    made
        Models that there are already, by the bytes of their plan's choice.

    Returns
    -------
    str
        The allocator to use: ``dp``, unless another one is clearly lower.
    dict of bytes to Made
        ``made`` and the models that came on top, so that none is made twice.
    """
    from fewer.engine.apply import apply_options
    from fewer.engine.judge import judge_of

    lowest = min(row["measured"] for row in rows)
    close = sorted((row for row in rows if row["measured"] <= _CLOSE * lowest), key=lambda row: row["measured"])
    finalists = [row for row in rows if row["name"] == "dp" or any(row is other for other in close[:_FINALISTS])]
    if len(finalists) < 2:
        return finalists[0]["name"], dict(made or {})
    judge = judge_of(prepared, settings, prepared.calibration)
    made = dict(made or {})
    for row in finalists:
        plan = choose(sensed.curves, budgets, row["name"])
        key = plan.choice.tobytes()
        if key not in made:
            began, chosen = perf_counter(), sensed.chosen(plan.choice)
            tokens = sensed.curves.meta.get("tokens")
            model, masks = apply_options(
                prepared, settings, sensed.options, chosen, tokens=tokens, progress=progress, title=f"try {row['name']}"
            )
            made[key] = Made(model, masks, perf_counter() - began)
        row["made"] = judge.judge(made[key].model).distortion
    exact = rows[0]

    def both(row: dict[str, Any]) -> float:
        return row["measured"] * row["made"]

    best = min(finalists, key=both)
    return (best["name"] if both(best) < (1 - _CLEAR) * both(exact) else "dp"), made
