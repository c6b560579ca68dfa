"""Last steps after a solver: spend what is left over, and bring a plan that is slightly over budget back."""

from __future__ import annotations

import numpy as np

from fewer.core.allocation.problem import Problem

__all__ = ["polish", "repair"]

_PAIR_STEPS = 50
_KEEP_MOVES = 600  # of each kind, when several budgets make the pairs too many to try all


def polish(problem: Problem, choice: np.ndarray, *, pairs: bool = True) -> np.ndarray:
    """Lower the distortion of a plan that fits, as long as one move or one exchange between two units does.

    A move gives one unit another option. An exchange takes from one unit and gives to another. With one budget all
    exchanges are tried; with several, the most promising of each kind.

    Parameters
    ----------
    problem
        The problem; no budget of it is ever exceeded.
    choice
        (L,) a plan that fits.
    pairs
        Whether to try exchanges as well.

    Returns
    -------
    np.ndarray
        A plan that fits and is never worse.
    """
    choice = np.array(choice, dtype=np.int64)
    rows = np.arange(len(choice))
    exchanges = _PAIR_STEPS if pairs else 0
    for _ in range(20 * len(choice) + 100):  # every step lowers the distortion, so this is a safety net only
        left = problem.limit - problem.spent(choice)
        more = problem.cost - problem.cost[:, rows, choice][:, :, None]
        gain = problem.distortion[rows, choice][:, None] - problem.distortion
        new = _single(problem, choice, left, more, gain)
        if new is None and exchanges:
            exchanges -= 1
            new = _pair(problem, choice, left, more, gain)
        if new is None:
            break
        choice = new
    return choice


def _single(
    problem: Problem, choice: np.ndarray, left: np.ndarray, more: np.ndarray, gain: np.ndarray
) -> np.ndarray | None:
    able = (more <= left[:, None, None]).all(axis=0) & (gain > 0)
    while able.any():
        u, k = np.unravel_index(np.argmax(np.where(able, gain, -np.inf)), able.shape)
        new = choice.copy()
        new[u] = k
        if problem.fits(new):
            return new
        able[u, k] = False  # it only seemed to fit, by a rounding error
    return None


def _pair(
    problem: Problem, choice: np.ndarray, left: np.ndarray, more: np.ndarray, gain: np.ndarray
) -> np.ndarray | None:
    takes = gain > 0
    gives = np.isfinite(gain) & ~takes & (more < 0).any(axis=0)
    if not takes.any() or not gives.any():
        return None
    tu, tk = np.nonzero(takes)
    gu, gk = np.nonzero(gives)
    tc, tg, gc, gg = more[:, tu, tk], gain[tu, tk], more[:, gu, gk], gain[gu, gk]
    found = (
        _best_pair_one(tu, tc[0], tg, gu, gc[0], gg, left[0])
        if len(left) == 1
        else (_best_pair_many(tu, tc, tg, gu, gc, gg, left))
    )
    if found is None:
        return None
    t, g = found
    new = choice.copy()
    new[tu[t]], new[gu[g]] = tk[t], gk[g]
    return new if problem.fits(new) else None


def _best_pair_one(
    tu: np.ndarray, tc: np.ndarray, tg: np.ndarray, gu: np.ndarray, gc: np.ndarray, gg: np.ndarray, left: float
) -> tuple[int, int] | None:
    """Best exchange under one budget: sort what can be taken by cost; for each gift look up the best affordable."""
    order = np.argsort(tc, kind="stable")
    tu, tc, tg = tu[order], tc[order], tg[order]
    first = np.maximum.accumulate(tg)
    at = np.arange(len(tg))
    first_at = np.maximum.accumulate(np.where(tg >= first, at, 0))
    afford = np.searchsorted(tc, left - gc, side="right") - 1
    able = afford >= 0
    t = first_at[np.maximum(afford, 0)]
    net = np.where(able & (tu[t] != gu), tg[t] + gg, -np.inf)
    # where the best to take is of the unit that gives: look through the gifts one by one, best first
    clash = np.flatnonzero(able & (tu[t] == gu) & (tg[t] + gg > max(net.max(initial=-np.inf), 0.0)))
    for g in clash[:200]:
        among = np.where(tu[: afford[g] + 1] != gu[g], tg[: afford[g] + 1], -np.inf)
        t[g] = int(among.argmax())
        net[g] = among[t[g]] + gg[g]
    g = int(net.argmax())
    if not net[g] > 1e-12 * abs(gg[g]):
        return None
    return int(order[t[g]]), g


def _best_pair_many(
    tu: np.ndarray, tc: np.ndarray, tg: np.ndarray, gu: np.ndarray, gc: np.ndarray, gg: np.ndarray, left: np.ndarray
) -> tuple[int, int] | None:
    """Best exchange under several budgets, among the most promising moves of each kind."""
    scale = np.maximum(np.abs(gc).max(axis=1), 1e-300)[:, None]
    t_best = np.argsort(-tg / np.maximum((tc / scale).max(axis=0), 1e-9), kind="stable")[:_KEEP_MOVES]
    g_best = np.argsort(gg / np.minimum((gc / scale).min(axis=0), -1e-9), kind="stable")[:_KEEP_MOVES]
    net = tg[t_best][:, None] + gg[g_best][None, :]
    able = (net > 0) & (tu[t_best][:, None] != gu[g_best][None, :])
    for m in range(len(left)):
        able &= tc[m, t_best][:, None] + gc[m, g_best][None, :] <= left[m]
    if not able.any():
        return None
    t, g = np.unravel_index(np.argmax(np.where(able, net, -np.inf)), net.shape)
    if not net[t, g] > 1e-12 * abs(gg[g_best[g]]):
        return None
    return int(t_best[t]), int(g_best[g])


def repair(problem: Problem, choice: np.ndarray) -> np.ndarray | None:
    """Bring a plan that is over some budget back within all of them, at little distortion.

    Each step makes the move that lowers the total overspend (as a share of each limit) most per distortion added; with
    more than 100 units, the best moves of several units at once.

    Returns
    -------
    np.ndarray or None
        A plan that fits, or ``None`` when no single move lowers the overspend any more.
    """
    choice = np.array(choice, dtype=np.int64)
    rows = np.arange(len(choice))
    scale = np.where(problem.limit > 0, problem.limit, 1.0)
    allowed = np.isfinite(problem.distortion)
    cost = np.where(allowed, problem.cost, 0.0)
    least = max(1e-12 * float(np.abs(problem.distortion[allowed]).max()), 1e-200)
    for _ in range(20 * len(choice) + 100):
        spent = problem.spent(choice)
        if (spent <= problem.limit).all():
            return choice
        over = np.maximum(spent - problem.limit, 0.0) / scale
        more = (cost - cost[:, rows, choice][:, :, None]) / scale[:, None, None]
        after = np.maximum(((spent - problem.limit) / scale)[:, None, None] + more, 0.0).sum(axis=0)
        saved = over.sum() - after
        distortion = np.maximum(problem.distortion - problem.distortion[rows, choice][:, None], 0.0)
        worth = np.where(allowed & (saved > 1e-15), saved / (distortion + least), -np.inf)
        option = worth.argmax(axis=1)
        value = worth[rows, option]
        if not np.isfinite(value.max()):
            return None
        order = np.argsort(-value, kind="stable")
        many = order[: max(1, len(choice) // 50)]
        many = many[np.isfinite(value[many])]
        new = choice.copy()
        new[many] = option[many]
        # together they may save less than one by one; then only the best move is made
        if len(many) > 1 and np.maximum((problem.spent(new) - problem.limit) / scale, 0.0).sum() >= 0.98 * over.sum():
            new = choice.copy()
            new[order[0]] = option[order[0]]
        choice = new
    return None
