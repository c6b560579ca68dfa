"""Allocators that the dynamic programme must beat: uniform, uniform_plus, ERK, global magnitude and LAMP.

Each of them has one free parameter. It wants a share of weight bits kept per unit (**rate**: ``(1 - sparsity) * bits``
of the option, relative to the first option's bits), and options come in steps. The discretisation is the same in all:

* a unit takes the available option of the highest rate that does not exceed what is wanted (the one of least
  distortion among equals), or its option of lowest rate when none is that low;
* the free parameter is the largest for which the whole plan is within every budget, found by bisection on the true
  costs, so a budget in any metric is met and never exceeded;
* units then take the step that the next larger value of the parameter would bring, one by one in model order, as far
  as the budgets allow. So a coarse grid of options does not leave a baseline below its budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from fewer.core.allocation.problem import Problem
from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.core.methods import Method, MethodTable
from fewer.core.plan import Allocation

__all__ = ["BASELINES", "by_share", "erk", "global_magnitude", "lamp", "uniform", "uniform_plus"]

_Budgets = str | Budget | Iterable[str | Budget]
_Floor = Sequence[int] | np.ndarray | None
_LAST_LINEAR_KEEPS = 0.2


def uniform(curves: CurveSet, budgets: _Budgets, *, at_least: _Floor = None) -> Allocation:
    """Keep the same share of every unit.

    Parameters
    ----------
    curves
        Costs and options of L units.
    budgets
        One or several budgets, in any metric.
    at_least
        Monotone mode, as in :func:`fewer.core.allocation.allocate.allocate`.

    Raises
    ------
    FewerError
        When the budgets cannot be met, by any plan or by this rule.

    Notes
    -----
    The module docstring says how the steps between options are handled.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5), Option("unstructured", 0.75))
    >>> curves = CurveSet(tuple(Curve(Unit(n, "linear", (2, 4)), options, {"weights": [8, 4, 2]}, [0, 1, 2])
    ...                         for n in "ab"))
    >>> uniform(curves, "weights=50%").choice
    array([1, 1])
    """
    rule = _Rule(curves, budgets, at_least, "uniform")
    return rule.by_rate(np.ones(len(curves)))


def uniform_plus(curves: CurveSet, budgets: _Budgets, *, at_least: _Floor = None) -> Allocation:
    """Keep the first convolution dense and at least 20 % of the last linear unit; all else is uniform.

    The first unit of a convolution kind and the last of kind ``linear`` are meant; where a model has none, nothing
    is protected. Parameters, discretisation and errors are those of :func:`uniform`.

    Notes
    -----
    Gale, Elsen, Hooker: The state of sparsity in deep neural networks (arXiv 1902.09574).

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5), Option("unstructured", 0.9))
    >>> curves = CurveSet(tuple(Curve(Unit(n, "linear", (2, 5)), options, {"weights": [10, 5, 1]}, [0, 1, 2])
    ...                         for n in "ab"))
    >>> uniform_plus(curves, "weights=30%").choice
    array([2, 1])
    """
    rule = _Rule(curves, budgets, at_least, "uniform_plus")
    kinds = [u.kind for u in curves.units]
    least = np.zeros(len(kinds))
    convolutions = [i for i, kind in enumerate(kinds) if kind != "linear"]
    linears = [i for i, kind in enumerate(kinds) if kind == "linear"]
    if convolutions:
        least[convolutions[0]] = 1.0
    if linears:
        least[linears[-1]] = max(least[linears[-1]], _LAST_LINEAR_KEEPS)
    return rule.by_rate(np.ones(len(kinds)), least)


def erk(curves: CurveSet, budgets: _Budgets, *, at_least: _Floor = None) -> Allocation:
    """Keep a number of weights proportional to the sum of the weight's sizes (Erdos-Renyi kernel).

    The share kept of a unit is proportional to ``(out + in + kernel sizes) / (out * in * kernel sizes)``, with the
    sizes of the weight itself (``in`` is per group). Units that would keep more than all stay dense and the common
    factor is found anew for the rest, which is the same as cutting shares at 1 for every factor that is tried.
    Parameters, discretisation and errors are those of :func:`uniform`.

    Notes
    -----
    Evci et al.: Rigging the lottery (arXiv 1911.11134), in the form used as a baseline for layer-wise pruning.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5))
    >>> curves = CurveSet((Curve(Unit("small", "linear", (2, 2)), options, {"weights": [4, 2]}, [0, 1]),
    ...                    Curve(Unit("large", "linear", (8, 8)), options, {"weights": [64, 32]}, [0, 1])))
    >>> erk(curves, "weights=60%").choice
    array([0, 1])
    """
    rule = _Rule(curves, budgets, at_least, "erk")
    return rule.by_rate(np.array([sum(u.shape) / u.numel for u in curves.units]))


def global_magnitude(curves: CurveSet, budgets: _Budgets, *, at_least: _Floor = None) -> Allocation:
    """Remove the smallest weights of the whole model: one threshold on magnitude.

    Reads ``Curve.scores["magnitude"]``: a unit takes the option of the highest rate whose surviving weights (tiles)
    are all at or above the threshold. Parameters, discretisation and errors are those of :func:`uniform`.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5))
    >>> curves = CurveSet(tuple(
    ...     Curve(Unit(n, "linear", (2, 2)), options, {"weights": [4, 2]}, [0, 1], {"magnitude": score})
    ...     for n, score in [("a", [0.1, 0.5]), ("b", [0.3, 0.9])]))
    >>> global_magnitude(curves, "weights=75%").choice
    array([1, 0])
    """
    return _Rule(curves, budgets, at_least, "global_magnitude").by_score("magnitude")


def lamp(curves: CurveSet, budgets: _Budgets, *, at_least: _Floor = None) -> Allocation:
    """Remove the weights of the smallest layer-adaptive score: one threshold on ``Curve.scores["lamp"]``.

    The score of a weight is its square over the sum of squares of all weights of the unit that are at least as
    large. Otherwise as :func:`global_magnitude`.

    Notes
    -----
    Lee et al.: Layer-adaptive sparsity for the magnitude-based pruning (arXiv 2010.07611), equation 4.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5))
    >>> curves = CurveSet(tuple(
    ...     Curve(Unit(n, "linear", (2, 2)), options, {"weights": [4, 2]}, [0, 1], {"lamp": score})
    ...     for n, score in [("a", [0.3, 0.5]), ("b", [0.1, 0.9])]))
    >>> lamp(curves, "weights=75%").choice
    array([0, 1])
    """
    return _Rule(curves, budgets, at_least, "lamp").by_score("lamp")


def by_share(curves: CurveSet, budgets: _Budgets, share: np.ndarray) -> Allocation:
    """Keep a share of every unit that is proportional to a given one, for the largest common factor that fits.

    Parameters
    ----------
    curves, budgets
        As for :func:`uniform`.
    share
        (L,) what is wanted of each unit, relative to the others.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5), Option("unstructured", 0.75))
    >>> curves = CurveSet(tuple(Curve(Unit(n, "linear", (2, 4)), options, {"weights": [8, 4, 2]}, [0, 1, 2])
    ...                         for n in "ab"))
    >>> by_share(curves, "weights=40%", np.array([1.0, 2.0])).choice
    array([2, 1])
    """
    return _Rule(curves, budgets, None, "by_share").by_rate(share)


BASELINES: MethodTable[Callable[..., Allocation]] = MethodTable(
    "allocator",
    [
        Method("uniform", uniform, "the same share of every layer"),
        Method("uniform_plus", uniform_plus, "uniform, with the first and last layers spared"),
        Method("erk", erk, "Erdos-Renyi kernel: larger layers lose a larger share", "RigL (Evci, ICML 2020)"),
        Method("global_magnitude", global_magnitude, "one threshold on the magnitudes of all weights"),
        Method("lamp", lamp, "one threshold on layer-adaptive magnitudes", "LAMP (Lee, ICLR 2021)"),
    ],
)
"""Allocators that need no curve of distortion: what the exact one must beat."""


class _Rule:
    """What all baselines share: the allowed options sorted by rate, and the search for the free parameter."""

    def __init__(self, curves: CurveSet, budgets: _Budgets, at_least: _Floor, name: str) -> None:
        self.curves, self.name = curves, name
        # a rule knows units only; planning brings coupled units back in step
        self.problem = Problem.build(curves, budgets, at_least, folded=False)
        n, k = self.problem.distortion.shape
        rate = np.full((n, k), np.nan)
        for i, curve in enumerate(curves.curves):
            bits = curve.options[0].bits
            rate[i, : len(curve)] = [o.kept_bits / bits for o in curve.options]
        rate[~np.isfinite(self.problem.distortion)] = np.inf  # sorted last, and never within what is wanted
        # lowest rate first; of equal rates the one of least distortion last, so that it is the one found from above
        self.order = np.lexsort((-self.problem.distortion, rate), axis=1)
        self.rate = np.take_along_axis(rate, self.order, axis=1)

    def by_rate(self, share: np.ndarray, least: np.ndarray | None = None) -> Allocation:
        """Want ``factor * share``, at least ``least``, of each unit, for the largest factor that fits."""
        finite = np.isfinite(self.rate)
        # the factors at which some unit takes its next option
        steps = np.unique((self.rate / share[:, None])[finite])

        floor = np.zeros(len(share), dtype=np.int64)
        if least is not None:
            enough = np.minimum((self.rate < least[:, None] - 1e-12).sum(axis=1), finite.sum(axis=1) - 1)
            floor = self._up_to(self.rate[np.arange(len(share)), enough])

        def choose(factor: float) -> np.ndarray:
            return self._options(np.maximum(self._up_to(np.minimum(factor * share, 1.0)), floor))

        return self._largest(steps, choose)

    def by_score(self, score: str) -> Allocation:
        """Keep what scores at least a threshold, for the smallest threshold that fits."""
        scores = np.full(self.rate.shape, -np.inf)
        for i, curve in enumerate(self.curves.curves):
            if score not in curve.scores:
                raise FewerError(
                    f"the baseline {self.name!r} needs the score {score!r}, which unit {curve.unit.name!r} does not "
                    "have; sense the model again with scores"
                )
            scores[i, : len(curve)] = curve.scores[score]
        scores = np.where(np.isfinite(self.rate), np.take_along_axis(scores, self.order, axis=1), -np.inf)
        thresholds = np.unique(scores[scores > -np.inf])
        last = np.arange(scores.shape[1])

        def choose(negative: float) -> np.ndarray:
            return self._options(np.where(scores >= -negative, last, 0).max(axis=1))

        return self._largest(np.concatenate([[-np.inf], -thresholds[::-1]]), choose)

    def _up_to(self, wanted: np.ndarray) -> np.ndarray:
        """Place, in the order of rates, of the highest rate up to what is wanted, or -1."""
        return (self.rate <= wanted[:, None] * (1 + 1e-12)).sum(axis=1) - 1

    def _options(self, at: np.ndarray) -> np.ndarray:
        return self.order[np.arange(len(at)), np.maximum(at, 0)]

    def _largest(self, steps: np.ndarray, choose: Callable[[float], np.ndarray]) -> Allocation:
        """Take the largest step whose plan fits, then the next one's options unit by unit as far as they fit."""
        low, high = 0, len(steps)  # steps[low] fits, steps[high] does not
        if not self.problem.fits(choose(float(steps[0]))):
            low, high = self._any_fitting(steps, choose)
        while high - low > 1:
            middle = (low + high) // 2
            if self.problem.fits(choose(float(steps[middle]))):
                low = middle
            else:
                high = middle
        choice = choose(float(steps[low]))
        if high < len(steps):
            for i, k in enumerate(choose(float(steps[high]))):
                before, choice[i] = choice[i], k
                if not self.problem.fits(choice):
                    choice[i] = before
        return self.problem.allocation(choice)

    def _any_fitting(self, steps: np.ndarray, choose: Callable[[float], np.ndarray]) -> tuple[int, int]:
        """Costs such as a measured latency need not rise with the rate: look through the steps from below."""
        for low in np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 1000)).astype(int)).tolist():
            if self.problem.fits(choose(float(steps[low]))):
                return low, min(low + 1, len(steps))
        wanted = ", ".join(str(b) for b in self.problem.budgets)
        raise FewerError(f"the baseline {self.name!r} cannot meet {wanted} with any value of its parameter; loosen it")
