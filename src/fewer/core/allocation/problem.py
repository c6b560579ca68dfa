"""The allocation problem as arrays: what is allowed, what it costs, how much may be spent."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fewer.core.budget import Budget, format_amount, parse_budgets
from fewer.core.couple import Fold, fold_arrays, share_of
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError, UnmetError
from fewer.core.plan import Allocation

__all__ = ["Problem", "unreachable"]


@dataclass(frozen=True, eq=False)
class Problem:
    """Arrays of an allocation: ``cost`` (M, L, K) and ``distortion`` (L, K) for M budgets, L units and at most K
    options.

    Options that are not allowed, and the padding of units with fewer options, have infinite cost and distortion.
    ``room`` (M,) is what may be spent on the units: the limits less the fixed costs. Where units are coupled, L counts
    items (a group of units is one), and ``fold`` says which options of which units stand behind an item's.
    """

    curves: CurveSet
    budgets: tuple[Budget, ...]
    cost: np.ndarray
    distortion: np.ndarray
    limit: np.ndarray
    fixed: np.ndarray
    fold: Fold | None = None

    @classmethod
    def build(
        cls,
        curves: CurveSet,
        budgets: str | Budget | Iterable[str | Budget],
        at_least: Sequence[int] | np.ndarray | None = None,
        *,
        folded: bool = True,
    ) -> Problem:
        """Collect the arrays, and check that the budgets can be met one by one.

        Without ``folded`` coupled units stay apart, and a choice of options need not be one that can be made.

        Raises
        ------
        FewerError
            When a metric is not measured, ``at_least`` does not fit the curves, or a budget is below the least that
            can be reached (which the sentence then says).
        """
        found = parse_budgets(budgets)
        limit = np.array([b.limit(curves) for b in found])
        n, k = len(curves), max(len(c) for c in curves.curves)
        cost, distortion = np.full((len(found), n, k), np.inf), np.full((n, k), np.inf)
        floor = _lowest_allowed(curves, at_least)
        for i, (curve, low) in enumerate(zip(curves.curves, floor, strict=True)):
            sparsity = np.array([o.sparsity for o in curve.options])
            # "never un-prune": neither an earlier option nor one that brings weights back
            keep = np.flatnonzero((np.arange(len(curve)) >= low) & (sparsity >= sparsity[low]))
            distortion[i, keep] = curve.distortion[keep]
            for m, budget in enumerate(found):
                cost[m, i, keep] = curve.cost[budget.metric][keep]
        fixed = np.array([curves.fixed.get(b.metric, 0.0) for b in found])
        fold = None
        if curves.coupled and folded:
            shares = [[share_of(o) for o in c.options] for c in curves.curves]
            cost, distortion, fold = fold_arrays(cost, distortion, shares, curves.groups)
        problem = cls(curves, found, cost, distortion, limit, fixed, fold)
        problem._check_each_reachable(monotone=at_least is not None)
        return problem

    @property
    def room(self) -> np.ndarray:
        return self.limit - self.fixed

    def with_distortion(self, distortion: np.ndarray) -> Problem:
        """The same problem with other distortions; what is not allowed stays so."""
        return replace(self, distortion=np.where(np.isfinite(self.distortion), distortion, np.inf))

    def only(self, m: int) -> Problem:
        """The same problem with just one of its budgets."""
        part = slice(m, m + 1)
        return replace(
            self,
            budgets=self.budgets[part],
            cost=self.cost[part],
            limit=self.limit[part],
            fixed=self.fixed[part],
        )

    def limited(self, budget: Budget) -> Problem:
        """The same problem under another budget of its one metric; whether it can be met is not checked."""
        return replace(self, budgets=(budget,), limit=np.array([budget.limit(self.curves)]))

    def spent(self, choice: np.ndarray) -> np.ndarray:
        """Exactly rounded cost (M,) of a choice, fixed costs included; the number that budgets are held against."""
        rows = np.arange(len(choice))
        return np.array(
            [math.fsum([f, *c[rows, choice].tolist()]) for f, c in zip(self.fixed.tolist(), self.cost, strict=True)]
        )

    def fits(self, choice: np.ndarray) -> bool:
        """Whether a choice is within every budget."""
        return bool((self.spent(choice) <= self.limit).all())

    def distortion_of(self, choice: np.ndarray) -> float:
        return math.fsum(self.distortion[np.arange(len(choice)), choice].tolist())

    def allocation(
        self, choice: np.ndarray, slack: dict[str, float] | None = None, bound: float = -np.inf
    ) -> Allocation:
        """Wrap a choice that fits, as options of units."""
        choice = np.asarray(choice, dtype=np.int64)
        assert self.fits(choice), "internal error: a plan over budget must never be returned"
        choice = self.unfold(choice)
        cost = {m: self.curves.total(m, choice) for m in self.curves.metrics}
        distortion = self.curves.distortion(choice)
        return Allocation(choice, cost, distortion, dict(slack or {}), min(bound, distortion))

    def unfold(self, choice: np.ndarray) -> np.ndarray:
        """Option of each unit, from the option of each item."""
        return choice if self.fold is None else self.fold.unfold(choice)

    def folded(self, choice: np.ndarray) -> np.ndarray | None:
        """Option of each item, from the option of each unit; None when that is no item's option."""
        return choice if self.fold is None else self.fold.folded(choice)

    def unreachable(self, index: int, least: float, why: str = "") -> FewerError:
        """The sentence for a budget that cannot be met, with the least that can, in the budget's own terms."""
        budget = self.budgets[index]
        return unreachable(budget, self.curves.dense(budget.metric), least, why)

    def _check_each_reachable(self, monotone: bool) -> None:
        least = self.spent_least()
        for m in range(len(self.budgets)):
            if least[m] > self.limit[m]:
                raise self.unreachable(m, float(least[m]), " without un-pruning" if monotone else "")

    def spent_least(self) -> np.ndarray:
        """Least reachable cost (M,) of each metric on its own, fixed costs included."""
        return np.array([self.spent(c.argmin(axis=1))[m] for m, c in enumerate(self.cost)])


_LONG = 20
"""Letters of a budget that somebody types at most."""


def unreachable(budget: Budget, dense: float, least: float, why: str = "") -> UnmetError:
    """The sentence for a budget that cannot be met, with the least that can, in the budget's own terms.

    Examples
    --------
    >>> print(unreachable(Budget("latency", 0.5, True), 4.0, 3.0))
    latency=0.5x cannot be met: the smallest reachable latency is 75 % of dense (3ms)
    >>> print(unreachable(Budget("latency", 1.9683331890355, False), 4.0, 3.0))
    latency=1.97ms cannot be met: the smallest reachable latency is 3ms (75 % of dense)
    """
    share = f"{_percent_up(least / dense)} % of dense" if dense > 0 else "the dense model costs nothing"
    amount = format_amount(budget.metric, least)
    shown = f"{share} ({amount})" if budget.relative else f"{amount} ({share})"
    asked = str(budget)
    if not budget.relative and len(asked) > _LONG:  # corrected by what was timed: no number that somebody has typed
        asked = f"{budget.metric}={format_amount(budget.metric, budget.value)}"
    sentence = f"{asked} cannot be met{why}: the smallest reachable {budget.metric} is {shown}"
    return UnmetError(sentence, least / dense if dense > 0 else None)


def _percent_up(share: float) -> str:
    """A percentage of three digits, rounded up so that it can be used as a budget."""
    digits = max(0, 2 - math.floor(math.log10(100 * share))) if share > 0 else 0
    scaled = round(100 * share * 10**digits, 6)
    return f"{math.ceil(scaled) / 10**digits:g}"


def _lowest_allowed(curves: CurveSet, at_least: Sequence[int] | np.ndarray | None) -> list[int]:
    if at_least is None:
        return [0] * len(curves)
    floor = [int(k) for k in at_least]
    if len(floor) != len(curves):
        raise FewerError(f"at_least has {len(floor)} entries, but there are {len(curves)} units")
    for curve, low in zip(curves.curves, floor, strict=True):
        if not 0 <= low < len(curve):
            raise FewerError(
                f"at_least asks for option {low} of unit {curve.unit.name!r}, which has {len(curve)} options"
            )
    return floor
