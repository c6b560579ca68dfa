"""A power term beside the distortion: of two plans alike in distortion, the one that draws less power is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError

__all__ = ["power_shares", "power_weight", "with_power"]


def power_shares(curves: CurveSet) -> list[np.ndarray]:
    r"""Power of every option of every unit, as a share of what the units of the dense model draw together.

    Modelled joules where the curves hold them (metric ``energy``). Otherwise the linear count of LPViT, which needs no
    measurement: :math:`P_i(a) = c_i (1 - a)`, where the connections of unit i count once for each of its inputs,
    :math:`c_i = \text{rows} \cdot \text{columns}^2`. Weights of fewer bits count in proportion to their bits.

    Returns
    -------
    list of array
        One vector per unit, one number per option. The first entries sum to 1.

    Notes
    -----
    LPViT (ECCV 2024, arXiv 2407.02068) leaves the number of tokens out, since it is the same for all linear layers of
    a transformer block.

    Examples
    --------
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("block:16x16", 0.5))
    >>> wide, narrow = Unit("fc1", "linear", (64, 16)), Unit("fc2", "linear", (16, 64))
    >>> curves = CurveSet(tuple(Curve(u, options, {"weights": [1024, 512]}, [0, 1]) for u in (wide, narrow)))
    >>> [share.tolist() for share in power_shares(curves)]
    [[0.2, 0.1], [0.8, 0.4]]
    """
    if "energy" in curves.metrics:
        drawn = [np.asarray(c.cost["energy"]) for c in curves.curves]
    else:
        drawn = [c.unit.numel * c.unit.cols * _kept(c) for c in curves.curves]
    return _as_shares(drawn)


def power_weight(curves: CurveSet) -> float:
    r"""The weight that makes the power term as steep as the distortion, LPViT's rule for its :math:`\beta`.

    :math:`\operatorname{mean}_i \max_a \delta_i'(a) / \operatorname{mean}_i \max_a P_i'(a)`: slopes along the options
    of one pattern and precision, by the share of weight bits that go.

    Examples
    --------
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("unstructured", 0.5), Option("unstructured", 0.75))
    >>> curve = Curve(Unit("a", "linear", (4, 4)), options, {"weights": [16, 8, 4]}, [0, 0.1, 0.3])
    >>> round(power_weight(CurveSet((curve,))), 6)  # steepest slopes: 0.2 / 0.25 and 1
    0.8
    """
    distortion = [_steepest(c, c.distortion) for c in curves.curves]
    power = [_steepest(c, -p) for c, p in zip(curves.curves, power_shares(curves), strict=True)]
    return float(np.mean(distortion) / np.mean(power)) if np.mean(power) > 0 else 0.0


def with_power(curves: CurveSet, metric: str, power: float) -> CurveSet:
    r"""Curves whose distortion has the power term added, for a planner with a budget in some metric.

    .. math:: J_i(k) = \delta_i(k) + \beta \, [(P_i(k) - P_i(0)) - (R_i(k) - R_i(0))], \qquad \beta = power \cdot
        \text{power\_weight}

    with the power P and the budgeted cost R both as shares of the dense model. Subtracting R changes nothing between
    plans that use the budget up, but without it the term would also pay for going further below the budget than was
    asked: what is minimised is the power that the budget leaves open.

    Parameters
    ----------
    curves
        Costs and distortions.
    metric
        Of the budget. Where the budget is in energy and so is the power term, the term has nothing left to say.
    power
        Weight relative to :func:`power_weight`. Above 0 layers that draw much power for their cost are cut more, which
        is what saves power. The published code of LPViT has the opposite sign; a negative weight gives that, for
        comparison only.

    Raises
    ------
    FewerError
        When the curves do not measure the metric.

    Examples
    --------
    >>> from fewer.core.allocation.allocate import allocate
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> options = (Option(), Option("block:16x16", 0.5))
    >>> units = Unit("fc1", "linear", (64, 16)), Unit("fc2", "linear", (16, 64))
    >>> curves = CurveSet(tuple(Curve(u, options, {"weights": [1024, 512]}, [0, 1]) for u in units))
    >>> [allocate(with_power(curves, "weights", p), "weights=75%").choice.tolist() for p in (1, -1)]
    [[0, 1], [1, 0]]
    """
    curves.require(metric)
    if not np.isfinite(power):
        raise FewerError(f"the weight of the power term must be a finite number, not {power}")
    beta = power * power_weight(curves)
    spent = _as_shares([np.asarray(c.cost[metric]) for c in curves.curves])
    made = []
    for curve, drawn, cost in zip(curves.curves, power_shares(curves), spent, strict=True):
        open_part = (drawn - drawn[0]) - (cost - cost[0])
        made.append(replace(curve, distortion=curve.distortion + beta * open_part))
    return replace(curves, curves=tuple(made))


def _kept(curve: Curve) -> np.ndarray:
    """Share of the weight bits that each option keeps."""
    return np.array([o.kept_bits / curve.options[0].bits for o in curve.options])


def _as_shares(rows: list[np.ndarray]) -> list[np.ndarray]:
    whole = float(sum(row[0] for row in rows))
    return [row / whole if whole > 0 else np.zeros_like(row) for row in rows]


def _steepest(curve: Curve, values: np.ndarray) -> float:
    """Largest rise of some values for each share of the weight that goes, over steps of one pattern and precision."""
    gone, slopes = 1 - _kept(curve), [0.0]
    for family, precision in {(o.family, o.precision) for o in curve.options if not o.is_dense}:
        at = [i for i, o in enumerate(curve.options) if (o.family, o.precision) == (family, precision)]
        at = [0, *sorted(at, key=lambda i: gone[i])]
        step, rise = np.diff(gone[at]), np.diff(np.asarray(values)[at])
        slopes += (rise[step > 0] / step[step > 0]).tolist()
    return max(slopes)
