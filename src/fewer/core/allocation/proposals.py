"""How a search comes up with the next plan to try: swaps, and new solutions with learned coefficients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fewer.core.allocation.bounds import reduce_problem
from fewer.core.allocation.polish import polish, repair
from fewer.core.allocation.problem import Problem

__all__ = ["Surrogate", "propose_by_scales", "propose_by_swaps"]

_SPREAD = 0.7  # standard deviation of the coefficients of units around their mean, relative, before any evaluation
_NOISE = 0.1  # how far fitness is from the linear model, relative to its spread
_LEAST_SCALE = 0.05
_SWAPS = 48  # proposals that are compared by their predicted distortion for each one that is evaluated


class Surrogate:
    r"""A linear model of the fitness, from the evaluations so far.

    .. math:: f(choice) = f_0 + a \sum_i (1 + \tau z_i) (\delta_i(choice_i) - \delta_i(start_i)), \quad z_i \sim N(0, 1)

    ``a`` translates curves into fitness, ``1 + tau z_i`` is the coefficient of unit i.
    """

    def __init__(self, problem: Problem, start: np.ndarray, value: float) -> None:
        self.rows = np.arange(len(start))
        self.distortion = problem.distortion
        self.start, self.value = start, value
        total = float(problem.distortion[self.rows, start].sum())
        # distortion measures are 0 for the dense model: one evaluation then already says what a unit of curve is worth
        self.prior = value / total if value > 0 and total > 0 else 1.0
        self._x: list[np.ndarray] = []
        self._y: list[float] = []

    def add(self, choice: np.ndarray, value: float) -> None:
        """Learn from an evaluation; infinite ones teach nothing that a linear model could hold."""
        if np.isfinite(value):
            self._x.append(self.distortion[self.rows, choice] - self.distortion[self.rows, self.start])
            self._y.append(value - self.value)

    def sample(self, rng: np.random.Generator, boldness: float) -> np.ndarray:
        """Draw (L,) coefficients from the posterior; ``boldness`` 0 gives its mean, 1 a full sample."""
        n = len(self.start)
        draw = boldness * rng.standard_normal(n)
        if not self._y:
            return self.prior * np.maximum(1 + _SPREAD * draw, _LEAST_SCALE)
        x, y = np.array(self._x), np.array(self._y)
        along = x.sum(axis=1)
        # the common factor: least squares, held to the prior by one observation's worth
        weight = float(np.mean(along**2)) + 1e-300
        a = (along @ y + self.prior * weight) / (along @ along + weight)
        a = float(np.clip(a, 0.1 * self.prior, 10 * self.prior))
        noise = _NOISE * (float(np.std(y)) + 1e-3 * abs(self.value)) + 1e-12
        # Matheron's rule: a sample of the prior, moved by what the data says about its error
        features = a * _SPREAD * x
        error = y - a * along - features @ draw - boldness * noise * rng.standard_normal(len(y))
        gram = features @ features.T + noise**2 * np.eye(len(y))
        z = draw + features.T @ np.linalg.solve(gram, error)
        return a * np.maximum(1 + _SPREAD * z, _LEAST_SCALE)


def propose_by_scales(
    problem: Problem,
    surrogate: Surrogate,
    best: np.ndarray,
    seen: set[bytes],
    age: float,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """Solve the allocation with coefficients drawn from the posterior; ``None`` when that was tried before."""
    for boldness in (rng.choice([0.0, 0.15, 0.4]), 0.3, 1.0):
        scaled = problem.with_distortion(problem.distortion * surrogate.sample(rng, float(boldness))[:, None])
        reduced = reduce_problem(scaled, best)
        plan = reduced.original(polish(reduced.problem, reduced.start))
        if plan.tobytes() not in seen and problem.fits(plan):
            return plan
    return None


def propose_by_swaps(
    problem: Problem,
    surrogate: Surrogate,
    best: np.ndarray,
    seen: set[bytes],
    age: float,
    rng: np.random.Generator,
) -> np.ndarray | None:
    """Take from one unit (early on from several), give to others; the best of many by predicted distortion."""
    rows = np.arange(len(best))
    tight = int(np.argmax(problem.spent(best) / np.maximum(problem.limit, 1e-300)))
    cost = problem.cost[tight]
    found: list[tuple[float, np.ndarray]] = []
    for _ in range(_SWAPS):
        scales = surrogate.sample(rng, 0.5)[:, None]
        distortion = problem.distortion * scales
        plan = best.copy()
        takers = 1 + int(rng.random() < 0.5 * (1 - age)) + int(rng.random() < 0.3 * (1 - age))
        lower = np.flatnonzero((cost < cost[rows, best][:, None]).any(axis=1))
        if not len(lower):
            return None
        givers = rng.choice(lower, min(takers, len(lower)), replace=False)
        for u in givers:
            plan[u] = _cheaper(cost[u], distortion[u], int(plan[u]), rng)
        fixed = np.where(
            np.isin(rows, givers)[:, None] & (np.arange(distortion.shape[1]) != plan[:, None]), np.inf, distortion
        )
        plan = _give(replace(problem, distortion=fixed), plan, int(rng.integers(1, 4)))
        if plan is not None and plan.tobytes() not in seen:
            change = float((distortion[rows, plan] - distortion[rows, best]).sum())
            found.append((change, plan))
    return min(found, key=lambda f: f[0])[1] if found else None


def _cheaper(cost: np.ndarray, distortion: np.ndarray, now: int, rng: np.random.Generator) -> int:
    """A level one or a few steps down: among options no other beats, chosen with falling odds."""
    below = np.flatnonzero(np.isfinite(distortion) & (cost < cost[now]))
    below = below[np.lexsort((distortion[below], -cost[below]))]  # dearest first
    steps = min(int(rng.geometric(0.35)), len(below))
    return int(below[steps - 1])


def _give(problem: Problem, plan: np.ndarray, most: int) -> np.ndarray | None:
    """Spend what is free on up to ``most`` units, largest predicted gain first."""
    if not problem.fits(plan):
        fixed = repair(problem, plan)
        if fixed is None:
            return None
        plan = fixed
    rows = np.arange(len(plan))
    for _ in range(most):
        left = problem.limit - problem.spent(plan)
        more = problem.cost - problem.cost[:, rows, plan][:, :, None]
        gain = problem.distortion[rows, plan][:, None] - problem.distortion
        able = (more <= left[:, None, None]).all(axis=0) & (gain > 0)
        if not able.any():
            break
        u, k = np.unravel_index(np.argmax(np.where(able, gain, -np.inf)), gain.shape)
        new = plan.copy()
        new[u] = k
        if not problem.fits(new):
            break
        plan = new
    return plan
