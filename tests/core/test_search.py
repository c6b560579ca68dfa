"""The search finds plans that the sum of curves cannot see, and keeps every promise on the way."""

from __future__ import annotations

import numpy as np
import pytest
from core_curves import smooth_curves

from fewer.core.allocation.allocate import allocate
from fewer.core.allocation.one_budget import solve_one
from fewer.core.allocation.problem import Problem
from fewer.core.allocation.search import local_search
from fewer.core.errors import FewerError

curves = smooth_curves(30, 21, 4)
budget = "weights=45%,latency=0.8x"
start = allocate(curves, budget)


def entangled(seed: int):
    """A distortion that does not add up: units damage shared directions, and curves say too much or too little."""
    rng = np.random.default_rng(seed)
    weight = np.exp(0.5 * rng.normal(size=len(curves)))
    direction = rng.normal(size=(len(curves), 6))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)

    def fitness(choice: np.ndarray) -> float:
        distortion = weight * np.array([c.distortion[k] for c, k in zip(curves.curves, choice, strict=True)])
        return float(0.5 * distortion.sum() + 0.5 * ((np.sqrt(distortion)[:, None] * direction).sum(axis=0) ** 2).sum())

    return fitness


@pytest.mark.parametrize("method", ["both", "swap", "scales"])
def test_beats_the_plan_of_the_curves_within_the_budgets(method):
    gains = []
    for seed in range(3):
        fitness = entangled(seed)
        asked: list[tuple[int, ...]] = []

        def counted(choice, fitness=fitness, asked=asked):
            asked.append(tuple(choice.tolist()))
            return fitness(choice)

        best, history = local_search(curves, budget, start, counted, evaluations=60, seed=seed, method=method)
        assert len(asked) == len(set(asked)) == len(history) <= 60
        for choice in asked:
            assert curves.total("weights", choice) <= 0.45 * curves.dense("weights")
            assert curves.total("latency", choice) <= 0.8 * curves.dense("latency")
        assert fitness(best.choice) == history[-1].best == min(s.fitness for s in history)
        assert best.distortion == curves.distortion(best.choice)
        gains.append(fitness(best.choice) / fitness(start.choice))
    assert max(gains) < 0.95
    assert np.mean(gains) < 0.88


def test_learns_coefficients_of_an_additive_distortion():
    """Where only the weights of the units are off, most of what a perfect solver gains is found."""
    weight = np.exp(0.8 * np.random.default_rng(1).normal(size=len(curves)))

    def fitness(choice):
        return float(sum(w * c.distortion[k] for w, c, k in zip(weight, curves.curves, choice, strict=True)))

    problem = Problem.build(curves, "weights=45%")
    ideal = fitness(solve_one(problem.with_distortion(problem.distortion * weight[:, None]), 10_000).choice)
    first = allocate(curves, "weights=45%")
    best, _ = local_search(curves, "weights=45%", first, fitness, evaluations=80, seed=0)
    gained = (fitness(first.choice) - fitness(best.choice)) / (fitness(first.choice) - ideal)
    assert gained > 0.5


def test_same_seed_same_search_and_other_seeds_differ():
    runs = [local_search(curves, budget, start, entangled(0), evaluations=20, seed=s) for s in (1, 1, 2)]
    traces = [[(step.fitness, step.kind, step.changed) for step in history] for _, history in runs]
    assert traces[0] == traces[1] != traces[2]


def test_never_worse_than_the_start_and_bad_numbers_lose():
    values = iter([1.0, float("nan"), float("inf"), 2.0, 1.5, float("nan")])
    best, history = local_search(curves, budget, start, lambda c: next(values), evaluations=6, seed=0)
    assert best.choice.tolist() == start.choice.tolist()
    assert [s.accepted for s in history] == [True] + [False] * 5
    assert history[1].fitness == float("inf")


def test_monotone_mode_holds():
    floor = allocate(curves, "weights=70%").choice
    first = allocate(curves, "weights=45%", at_least=floor)
    seen = []
    local_search(
        curves, "weights=45%", first, lambda c: seen.append(c) or entangled(1)(c), evaluations=25, at_least=floor
    )
    assert all((c >= floor).all() for c in seen)


def test_progress_is_told_and_can_stop_the_search():
    told = []

    def progress(step, best):
        told.append((step.evaluation, best))
        if step.evaluation == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        local_search(curves, budget, start, entangled(0), evaluations=50, progress=progress)
    assert [n for n, _ in told] == [0, 1, 2, 3, 4]


def test_time_limit_and_exhausted_neighbourhood():
    _, history = local_search(curves, budget, start, entangled(0), evaluations=50, seconds=0.0)
    assert len(history) == 1
    small = smooth_curves(2, 2, 0, metrics=("weights",))
    plan = allocate(small, "weights=99%")
    _, history = local_search(small, "weights=99%", plan, lambda c: float(c.sum()), evaluations=1000)
    assert len(history) <= 4


def test_bad_starts():
    with pytest.raises(FewerError, match="not within the budgets"):
        local_search(curves, "weights=20%", start, entangled(0))
    with pytest.raises(FewerError, match="is not a finite number; check the data"):
        local_search(curves, budget, start, lambda c: float("nan"))
    with pytest.raises(FewerError, match="at least 1 evaluation"):
        local_search(curves, budget, start, entangled(0), evaluations=0)
