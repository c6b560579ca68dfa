"""Coupled units: some options only make sense together, and the planner treats such units as one.

When input channels of a layer are removed, the outputs that made them go as well: the units of a group take an option
that removes (see :attr:`fewer.core.option.Option.removes`) of one and the same sparsity, or none of them does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fewer.core.option import Option

__all__ = ["Fold", "fold_arrays", "in_step", "share_of"]

Groups = Sequence[Sequence[int]]


def share_of(option: Option) -> float | None:
    """What the options of a group must agree on: the sparsity of one that removes, None for any other.

    Examples
    --------
    >>> share_of(Option("rows:16", 0.5)), share_of(Option("block:16x4", 0.5))
    (0.5, None)
    """
    return option.sparsity if option.removes else None


def in_step(options: Sequence[Sequence[Option]], groups: Groups, choice: np.ndarray) -> np.ndarray:
    """A choice in which every group agrees: its units follow the one that removes most.

    Where a unit has no option of that sparsity and its own precision, it takes the first one of that sparsity.

    Parameters
    ----------
    options
        Of every unit.
    groups
        Indices of the units that are coupled.
    choice
        (L,) option index of each unit.

    Examples
    --------
    >>> ladder = [Option(), Option("rows:4", 0.25), Option("rows:4", 0.5)], [Option(), Option("columns:4", 0.5)]
    >>> in_step(ladder, [(0, 1)], np.array([1, 1]))
    array([2, 1])
    """
    found = np.array(choice, dtype=np.int64)
    for group in groups:
        shares = [share_of(options[i][found[i]]) for i in group]
        wanted = max((s for s in shares if s is not None), default=None)
        if wanted is None:
            continue
        for i, share in zip(group, shares, strict=True):
            if share != wanted:
                same = [k for k, o in enumerate(options[i]) if share_of(o) == wanted]
                precision = options[i][found[i]].precision
                found[i] = next((k for k in same if options[i][k].precision == precision), same[0])
    return found


@dataclass(frozen=True, eq=False)
class Fold:
    """Which options of which units stand behind each option of each item.

    Attributes
    ----------
    members
        For each item the indices of its units, shape (m,), and the options behind it, shape (options, m).
    units
        Number of units.
    """

    members: tuple[tuple[np.ndarray, np.ndarray], ...]
    units: int

    def unfold(self, choice: np.ndarray) -> np.ndarray:
        """(L,) option of each unit, from the option of each item."""
        found = np.empty(self.units, dtype=np.int64)
        for (units, options), k in zip(self.members, choice, strict=True):
            found[units] = options[int(k)]
        return found

    def folded(self, choice: np.ndarray) -> np.ndarray | None:
        """The option of each item behind an option of each unit; None when the fold has dropped it."""
        found = []
        for units, options in self.members:
            same = np.flatnonzero((options == np.asarray(choice)[units]).all(axis=1))
            if not len(same):
                return None
            found.append(int(same[0]))
        return np.array(found, dtype=np.int64)


def fold_arrays(
    cost: np.ndarray, distortion: np.ndarray, shares: Sequence[Sequence[float | None]], groups: Groups
) -> tuple[np.ndarray, np.ndarray, Fold]:
    """Make one item of every group, and of every unit that is in none.

    An item's options are all combinations that agree, without those that another one is at least as good as in the
    distortion and in every cost. Nothing that an optimal plan needs is lost, so planning over items is exact.

    Parameters
    ----------
    cost
        (M, L, K) of M metrics, L units and at most K options; infinite where there is no option.
    distortion
        (L, K).
    shares
        :func:`share_of` of each option of each unit.
    groups
        Indices of the units of each group; no unit is in two.

    Returns
    -------
    cost, distortion
        (M, I, K') and (I, K') of the items, padded with infinity; groups stand where their first unit did.
    Fold
        The way back.

    Examples
    --------
    >>> cost, distortion = np.array([[[4.0, 2.0], [4.0, 2.0]]]), np.array([[0.0, 0.0], [0.0, 3.0]])
    >>> cost, distortion, fold = fold_arrays(cost, distortion, [[None, 0.5], [None, 0.5]], [(0, 1)])
    >>> cost, distortion, fold.unfold(np.array([1]))
    (array([[[8., 4.]]]), array([[0., 3.]]), array([1, 1]))
    """
    first = {group[0]: tuple(group) for group in groups}
    inside = {i for group in groups for i in group}
    items = [first.get(i, (i,)) for i in range(len(distortion)) if i in first or i not in inside]
    made = [_item(cost, distortion, shares, members) for members in items]
    widest = max(len(h) for _, h, _ in made)
    new_cost = np.full((len(cost), len(made), widest), np.inf)
    new_distortion = np.full((len(made), widest), np.inf)
    for i, (c, h, _) in enumerate(made):
        new_cost[:, i, : len(h)], new_distortion[i, : len(h)] = c, h
    members = tuple((np.array(units), options) for units, (_, _, options) in zip(items, made, strict=True))
    return new_cost, new_distortion, Fold(members, len(distortion))


def _item(
    cost: np.ndarray, distortion: np.ndarray, shares: Sequence[Sequence[float | None]], members: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(members) == 1:  # not reduced: its options keep their numbers
        i = members[0]
        last = int(np.flatnonzero(np.isfinite(distortion[i])).max()) + 1
        return cost[:, i, :last], distortion[i, :last], np.arange(last)[:, None]
    parts = []
    classes = dict.fromkeys([None, *(s for i in members for s in shares[i])])
    for share in classes:
        total_cost, total_distortion = np.zeros((len(cost), 1)), np.zeros(1)
        behind = np.zeros((1, 0), dtype=np.int64)
        for i in members:
            own = np.array(
                [k for k, s in enumerate(shares[i]) if s == share and np.isfinite(distortion[i, k])], dtype=int
            )
            old, new = np.repeat(np.arange(len(total_distortion)), len(own)), np.tile(own, len(total_distortion))
            total_cost = total_cost[:, old] + cost[:, i, new]
            total_distortion = total_distortion[old] + distortion[i, new]
            behind = np.concatenate([behind[old], new[:, None]], axis=1)
            keep = _undominated(total_cost, total_distortion)
            total_cost, total_distortion, behind = total_cost[:, keep], total_distortion[keep], behind[keep]
        parts.append((total_cost, total_distortion, behind))
    total_cost = np.concatenate([p[0] for p in parts], axis=1)
    total_distortion, behind = np.concatenate([p[1] for p in parts]), np.concatenate([p[2] for p in parts])
    keep = _undominated(total_cost, total_distortion)
    order = keep[np.lexsort((total_cost[0, keep], total_distortion[keep]))]
    total_cost, total_distortion, behind = total_cost[:, order], total_distortion[order], behind[order]
    if np.isfinite(
        distortion[list(members), 0]
    ).all():  # to leave everything as it came is always an option, and the first
        other = behind.any(axis=1)
        total_cost = np.concatenate([cost[:, list(members), 0].sum(axis=1)[:, None], total_cost[:, other]], axis=1)
        total_distortion = np.concatenate([[distortion[list(members), 0].sum()], total_distortion[other]])
        behind = np.concatenate([np.zeros((1, len(members)), dtype=np.int64), behind[other]])
    return total_cost, total_distortion, behind


def _undominated(cost: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Indices, rising, of the options that no other is at least as good as everywhere; of equals the first stays."""
    if not len(distortion):
        return np.zeros(0, dtype=int)
    order = np.lexsort((*cost[::-1], distortion))  # least distortion first, then least cost
    if len(cost) == 1:
        best = np.minimum.accumulate(np.concatenate([[np.inf], cost[0, order]]))
        return np.sort(order[cost[0, order] < best[:-1]])
    kept: list[int] = []
    front = np.empty((len(cost), 0))
    for k in order.tolist():
        if not (front <= cost[:, k : k + 1]).all(axis=0).any():
            kept.append(k)
            front = np.concatenate([front, cost[:, k : k + 1]], axis=1)
    return np.sort(np.array(kept, dtype=int))
