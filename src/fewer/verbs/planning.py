"""Plan: from curves to one option per unit, and what is known about how good that is."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fewer.core.allocate import Allocation, allocate, frontier
from fewer.core.baselines import BASELINES
from fewer.core.budget import Budget
from fewer.core.couple import in_step
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError, near_match
from fewer.core.option import Option
from fewer.core.plan import Plan
from fewer.core.power import with_power
from fewer.core.run import RunFolder

if TYPE_CHECKING:  # planning itself needs no torch, and answers at once because of that
    from fewer.compensate.layers import Layer
    from fewer.models.running import Forward


def choose(
    curves: CurveSet,
    budgets: Sequence[Budget],
    allocator: str,
    at_least: np.ndarray | None = None,
    *,
    power: float = 0.0,
) -> Allocation:
    """Allocate by name: ``dp`` or one of :data:`fewer.core.baselines.BASELINES`.

    ``auto`` is the DP as well: which rule serves best is found out by :func:`fewer.verbs.contest.contest`. ``power`` is
    the weight of a power term for the DP (:func:`fewer.core.power.with_power`); what is returned states the harm alone.
    """
    if allocator not in ("dp", "auto"):
        return best_ladder(curves, budgets, BASELINES[allocator], at_least)
    if not power:
        return allocate(curves, budgets, at_least=at_least)
    return _harm_alone(curves, allocate(with_power(curves, budgets[0].metric, power), budgets, at_least=at_least))


def frontier_of(
    curves: CurveSet, metric: str, shares: Sequence[float], *, power: float = 0.0
) -> list[Allocation | None]:
    """Exact plans for many budgets of one metric, None where one cannot be met; ``power`` as for :func:`choose`."""
    if not power:
        return frontier(curves, metric, shares)
    plans = frontier(with_power(curves, metric, power), metric, shares)
    return [None if plan is None else _harm_alone(curves, plan) for plan in plans]


def _harm_alone(curves: CurveSet, found: Allocation) -> Allocation:
    """The same plan without the term that was added to the harm; of the harm alone no bound was proved."""
    return replace(found, distortion=curves.harm(found.choice), bound=-math.inf)


def best_ladder(
    curves: CurveSet,
    budgets: Sequence[Budget],
    rule: Callable[..., Allocation],
    at_least: np.ndarray | None = None,
) -> Allocation:
    """Run a rule that knows one way to cut on each pattern and precision of the curves; the least harmful plan wins.

    Raises
    ------
    FewerError
        When it meets the budgets with none of them.
    """
    kinds = {_way(o): None for c in curves.curves for o in c.options if not o.is_dense}
    if len(kinds) <= 1 and not curves.coupled:
        return rule(curves, budgets, at_least=at_least)
    found: list[Allocation] = []
    refused: FewerError | None = None
    for kind in kinds:
        keep = [np.array([i for i, o in enumerate(c.options) if i == 0 or _way(o) == kind]) for c in curves.curves]
        try:
            made = rule(part_of(curves, keep), [Budget(b.metric, b.limit(curves), False) for b in budgets])
        except FewerError as error:
            refused = error
            continue
        choice = np.array([k[i] for k, i in zip(keep, made.choice, strict=True)])
        choice = in_step([c.options for c in curves.curves], curves.groups, choice)
        cost = {m: curves.total(m, choice) for m in curves.metrics}
        if any(cost[b.metric] > b.limit(curves) for b in budgets):  # bringing units in step may cost time
            continue
        found.append(Allocation(choice, cost, curves.harm(choice)))
    if not found:
        wanted = ", ".join(str(b) for b in budgets)
        raise refused or FewerError(f"this baseline cannot meet {wanted} with coupled layers; loosen it")
    return min(found, key=lambda a: a.distortion)


def _way(option: Option) -> tuple[str, str]:
    """Options that one rule can choose from together; rows and columns of any width are one way to cut."""
    return ("columns" if option.removes else option.family, option.precision)


def part_of(curves: CurveSet, keep: Sequence[np.ndarray]) -> CurveSet:
    """The curves with some of their options only."""
    chosen = [
        Curve(
            c.unit,
            tuple(c.options[i] for i in k),
            {m: v[k] for m, v in c.cost.items()},
            c.distortion[k],
            {n: v[k] for n, v in c.scores.items()},
        )
        for c, k in zip(curves.curves, keep, strict=True)
    ]
    coupled = curves.coupled if any(o.removes for c in chosen for o in c.options) else ()
    return replace(curves, curves=tuple(chosen), coupled=coupled)


def plan(run: str | Path, budget: Any, *, allocator: str = "dp", out: str | Path | None = None) -> Plan:
    """Plan another budget from the curves of a run, in milliseconds.

    Parameters
    ----------
    run
        Run folder that holds curves.
    budget
        One or several budgets, ``"weights=40%"``.
    allocator
        ``dp`` or a baseline's name.
    out
        File to write the plan to; by default the run's ``plan.json`` stays as it is and the plan is only returned.

    Returns
    -------
    Plan

    Raises
    ------
    FewerError
        When the folder has no curves, the budget is not one, or it cannot be met.

    Examples
    --------
    >>> import fewer
    >>> fewer.plan("run/", "size=20MB").cost["size"]  # doctest: +SKIP
    19987654.0
    """
    from fewer.core.budget import parse_budgets

    if allocator == "auto":
        raise FewerError(
            "the contest of --allocator auto measures models, and a plan has only curves; use fewer compress for it, "
            f"or choose one of dp, {', '.join(BASELINES)}"
        )
    if allocator != "dp" and allocator not in BASELINES:
        raise FewerError(f"unknown allocator '{allocator}'{near_match(allocator, ['dp', *BASELINES])}")
    curves = RunFolder.open(run).read_curves()
    budgets = parse_budgets(budget)
    power = float(curves.meta.get("settings", {}).get("power", 0)) if allocator == "dp" else 0.0
    made = Plan.from_allocation(curves, budgets, choose(curves, budgets, allocator, power=power), allocator)
    if out is not None:
        made.save(out)
    return made


@dataclass(eq=False)
class Assembly:
    """Models put together from the stored, repaired weights of every option: quick, for comparing plans.

    The final model is better than its assembly, because it is repaired in execution order.
    """

    model: Any
    layers: dict[str, Layer]
    curves: CurveSet
    store: Path
    forward: Forward | None
    handles: dict[int, Any]

    @classmethod
    def of(cls, model: Any, curves: CurveSet, store: Path, example: Any, forward: Forward | None) -> Assembly:
        """Copy the dense model."""
        from fewer.compensate.layers import find_layers
        from fewer.tokens.blocks import with_merging

        twin = with_merging(copy.deepcopy(model), curves.meta.get("tokens"))
        return cls(twin, find_layers(twin, curves.units, example, forward), curves, store, forward, {})

    def evaluate(self, choice: np.ndarray, measure: Callable[[Any], float]) -> float:
        """``measure(model)`` for a choice of options."""
        from contextlib import ExitStack

        from fewer.verbs.sensing import install_choice

        with ExitStack() as stack:
            for unit, k in zip(self.curves.units, choice, strict=True):
                if k:
                    stack.enter_context(self.layers[unit.name].borrowed())
            options = [curve.options for curve in self.curves.curves]
            install_choice(self.layers, self.curves.units, options, choice.tolist(), self.store, self.handles)
            return measure(self.model)

    def distortion(self, choice: np.ndarray, batches: Sequence[Any], reference: Any) -> float:
        """Mean output distortion of a choice on batches."""

        from fewer.models.running import call, evaluating

        def measure(model: Any) -> float:
            total = 0.0
            with evaluating(model):
                for i, batch in enumerate(batches):
                    total += float(reference.change(i, call(model, batch, self.forward)).sum())
            return total / reference.samples

        return self.evaluate(choice, measure)


def random_choices(curves: CurveSet, count: int, seed: int) -> list[np.ndarray]:
    """Random plans around a range of sparsities, for checking that predictions rank plans rightly.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5))
    >>> curve = Curve(Unit("a", "linear", (2, 2)), options, {"weights": [4, 2]}, [0, 1])
    >>> len(random_choices(CurveSet((curve,)), 3, seed=0))
    3
    """
    rng = np.random.default_rng(seed)
    choices = []
    for centre in np.linspace(0.15, 0.7, count):
        wanted = np.clip(rng.normal(centre, 0.15, len(curves)), 0, 1)
        choices.append(np.array([_near(c.options, w, rng) for c, w in zip(curves.curves, wanted, strict=True)]))
    return choices


def _near(options: Sequence[Option], sparsity: float, rng: np.random.Generator) -> int:
    """One of the options nearest in sparsity, at random where patterns or precisions tie."""
    distance = np.array([abs(o.sparsity - sparsity) for o in options])
    nearest = np.flatnonzero(distance == distance.min())
    return int(nearest[0] if len(nearest) == 1 else rng.choice(nearest))


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rank correlation with average ranks for ties; None for fewer than 3 points or constant values.

    Examples
    --------
    >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
    0.8
    """
    if len(a) < 3:
        return None

    def ranks(x: Sequence[float]) -> np.ndarray:
        values = np.asarray(x, dtype=float)
        return np.array([(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values])

    ra, rb = ranks(a), ranks(b)
    if ra.std() == 0 or rb.std() == 0:
        return None
    return round(float(np.corrcoef(ra, rb)[0, 1]), 12)
