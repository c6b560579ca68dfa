"""Curve makers and oracles shared by the tests of core."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from fewer.core.curve import Curve, CurveSet
from fewer.core.option import Option
from fewer.core.unit import Unit


def options(count: int) -> tuple[Option, ...]:
    """Dense, then ever sparser."""
    return (Option(), *(Option("unstructured", k / max(count - 1, 1)) for k in range(1, count)))


def curve_set(costs: dict[str, list[list[float]]], distortions: list[list[float]], fixed=None) -> CurveSet:
    """Curves from nested lists: costs[metric][unit][option]."""
    curves = []
    for i, distortion in enumerate(distortions):
        unit = Unit(f"layer{i}", "linear", (10, 10))
        curves.append(
            Curve(unit, options(len(distortion)), {m: c[i] for m, c in costs.items()}, [0.0, *distortion[1:]])
        )
    return CurveSet(tuple(curves), fixed=fixed or {})


def smooth_curves(units: int, levels: int, seed: int = 0, metrics=("weights", "latency")) -> CurveSet:
    """Curves as sensing gives them: distortion rises with sparsity, not quite smoothly; latency is noisy."""
    rng = np.random.default_rng(seed)
    sparsity = np.arange(levels) / (levels - 1)
    curves = []
    for i in range(units):
        out, cols = int(rng.integers(4, 64)), int(rng.integers(16, 512))
        distortion = np.exp(rng.normal(0, 1.5)) * sparsity ** rng.uniform(2, 5) * (1 + 0.1 * rng.random(levels))
        magnitude = np.quantile(np.abs(rng.normal(0, rng.uniform(0.5, 2), 4000)), np.minimum(sparsity, 0.9999))
        cost = {
            "weights": np.round(out * cols * (1 - sparsity)),
            "latency": rng.uniform(0.1, 1) * np.clip(1.2 - sparsity + 0.02 * rng.normal(size=levels), 0.05, None),
        }
        curves.append(
            Curve(
                Unit(f"layer{i}", "conv2d" if i == 0 else "linear", (out, cols, 1, 1) if i == 0 else (out, cols)),
                options(levels),
                {m: cost[m] for m in metrics},
                distortion,
                {"magnitude": magnitude, "lamp": magnitude**2 / np.sum(magnitude**2)},
            )
        )
    return CurveSet(tuple(curves), fixed={m: 3.0 for m in metrics})


def every_plan(curves: CurveSet):
    """All choices, one after the other."""
    return itertools.product(*(range(len(c)) for c in curves.curves))


def brute_force(curves: CurveSet, limits: dict[str, float], allowed=lambda choice: True) -> float | None:
    """Least distortion over all plans within the limits, or None when there is none."""
    fits = (
        curves.distortion(c)
        for c in every_plan(curves)
        if allowed(c) and all(curves.total(m, c) <= limit for m, limit in limits.items())
    )
    return min(fits, default=None)


@st.composite
def small_curves(draw, metrics=("weights",), whole: bool = False, most_units: int = 5, most_options: int = 6):
    """Any small curve set: distortions and costs in no order, convex or not, units with a single option too."""
    number = (
        st.integers(0, 40).map(float)
        if whole
        else st.floats(0, 1000, allow_subnormal=False).map(lambda v: 0.0 if v < 1e-6 else v)
    )
    sizes = draw(st.lists(st.integers(1, most_options), min_size=1, max_size=most_units))
    costs = {m: [draw(st.lists(number, min_size=k, max_size=k)) for k in sizes] for m in metrics}
    distortions = [draw(st.lists(number, min_size=k, max_size=k)) for k in sizes]
    fixed = {m: draw(st.sampled_from([0.0, 7.0, 0.1])) for m in metrics}
    return curve_set(costs, distortions, fixed)
