"""Plans for runtimes in which a change of precision between neighbours takes time of its own.

A plan is the optimum of a sum over layers, and a sum knows nothing of neighbours. So two sets of costs are tried. In
one, layers are not integers unless they gain more than the change to int8 and back takes; in the other they are, unless
they gain more by leaving it. Both plans are timed, and the costs of the better one stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fewer.core.budget import Budget
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.cost.subjects import runs_as
from fewer.engine.deploy import measured_here, plan_within
from fewer.engine.plan import choose
from fewer.engine.sense import Sensed
from fewer.engine.work import Work

__all__ = ["AMONG", "Settled", "among", "settle_neighbours"]

AMONG = ("float", "int8")
"""What the neighbours of a layer are taken to be in."""


def among(curves: CurveSet, neighbours: str) -> CurveSet:
    """Curves whose times hold the changes of precision, for layers among neighbours of one kind.

    Parameters
    ----------
    curves
        With ``meta["device"]["switch"]``: milliseconds by layer.
    neighbours
        ``float`` or ``int8``.

    Examples
    --------
    >>> import numpy as np
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> curve = Curve(
    ...     Unit("a", "linear", (2, 2)), (Option(), Option(precision="int8")), {"latency": [3.0, 2.0]}, [0, 0.1]
    ... )
    >>> curves = CurveSet((curve,), meta={"device": {"switch": {"a": 0.5}}})
    >>> [among(curves, kind).curves[0].cost["latency"].tolist() for kind in AMONG]
    [[3.0, 2.5], [3.5, 2.0]]
    """
    switch = curves.meta["device"]["switch"]

    def priced(curve: Curve) -> Curve:
        others = np.array([(runs_as(o.precision) == "int8") != (neighbours == "int8") for o in curve.options])
        latency = curve.cost["latency"] + others * switch[curve.unit.name]
        return replace(curve, cost={**curve.cost, "latency": latency})

    device = {**curves.meta["device"], "among": neighbours}
    return replace(curves, curves=tuple(map(priced, curves.curves)), meta={**curves.meta, "device": device})


@dataclass(frozen=True, eq=False)
class Settled:
    """Costs that know of neighbours, and the plan that showed them to be the better ones.

    Attributes
    ----------
    sensed
        With these costs.
    under
        The budgets of that plan, with the time corrected by what timed plans missed; None where nothing was planned.
    tried
        Plans that were timed: ``predicted`` and ``measured`` milliseconds.
    """

    sensed: Sensed
    under: Sequence[Budget] | None = None
    tried: Sequence[dict[str, float]] = ()


def settle_neighbours(work: Work, sensed: Sensed, budgets: Sequence[Budget]) -> Settled:
    """Plan with both sets of costs, time both plans, and keep the costs of the better one.

    Better is the plan that distorts less, of those that keep the time; where none does, the quicker one. Nothing
    changes where time is not budgeted, or changes of precision take hardly any.
    """
    curves, settings = sensed.curves, work.settings
    wanted = next((b for b in budgets if b.metric == "latency"), None)
    if wanted is None or "switch" not in curves.meta.get("device", {}) or not measured_here(curves):
        return Settled(sensed)
    planner = "dp" if settings.allocator == "auto" else settings.allocator
    found: list[tuple[tuple[bool, float], Settled]] = []
    for kind in AMONG:
        priced = among(curves, kind)
        try:
            plan, under, tried = plan_within(
                work, priced, budgets, lambda b, c=priced: choose(c, b, planner, power=settings.power)
            )
        except FewerError:  # these costs leave no plan; the others may
            continue
        predicted = plan.cost["latency"]
        measured = min((t["measured"] for t in tried if t["predicted"] == predicted), default=predicted)
        late = measured > wanted.limit(curves)
        settled = Settled(replace(sensed, curves=priced), under, tried)
        found.append(((late, measured if late else plan.distortion), settled))
    return min(found, key=lambda row: row[0])[1] if found else Settled(sensed)
