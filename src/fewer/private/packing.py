"""Where numbers stand in the slots of ciphertexts, and linear layers as diagonals with few rotations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Grid", "Plan", "Ring", "chain", "diagonals", "hops", "plan_rotations"]


@dataclass(frozen=True)
class Grid:
    """Images in slots, multiplexed: after a stride the free places between pixels hold further channels.

    After E. Lee et al., "Low-Complexity Deep Convolutional Neural Networks on Fully Homomorphic Encryption Using
    Multiplexed Parallel Convolutions" (ICML 2022): ``gap * across`` channels share one square of ``side**2`` slots.

    Attributes
    ----------
    channels, height, width
        Of the image.
    side
        Of the square, a power of two.
    gap
        Distance of two neighbouring pixels of one channel, downwards.
    across
        The same to the right; by default as downwards.
    period
        Slots after which everything is repeated through the ciphertext; 0 where it is there once.
    """

    channels: int
    height: int
    width: int
    side: int
    gap: int = 1
    period: int = 0
    across: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "across", self.across or self.gap)

    @property
    def groups(self) -> int:
        """Squares that the channels fill."""
        return -(-self.channels // (self.gap * self.across))

    def repeated(self, slots: int, least: int = 1) -> Grid:
        """The same image as often as it fits into a ciphertext, ``least`` slots apart or more.

        Examples
        --------
        >>> Grid(3, 2, 2, side=2).repeated(64).period, Grid(3, 2, 2, side=2).repeated(8).period
        (16, 0)
        """
        span = max(least, self.side**2 << (self.groups - 1).bit_length())
        return replace(self, period=span if span <= slots else 0)

    def slot(self, c: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Slot of a pixel, counted through all ciphertexts.

        Examples
        --------
        >>> int(Grid(8, 2, 2, side=4, gap=2).slot(np.array(5), np.array(1), np.array(0)))
        25
        """
        group, rest = np.divmod(c, self.gap * self.across)
        row, column = np.divmod(rest, self.across)
        return group * self.side**2 + (y * self.gap + row) * self.side + x * self.across + column

    def places(self) -> np.ndarray:
        """Slots of all values in the order of ``flatten``."""
        c, y, x = np.meshgrid(np.arange(self.channels), np.arange(self.height), np.arange(self.width), indexing="ij")
        return self.slot(c, y, x).reshape(-1)


@dataclass(frozen=True)
class Ring:
    """A vector that is repeated through the ciphertext: value ``i`` is in every slot ``i`` modulo ``period``."""

    length: int
    period: int

    def places(self) -> np.ndarray:
        """First slots of all values."""
        return np.arange(self.length)


def diagonals(
    rows: np.ndarray, columns: np.ndarray, values: np.ndarray, slots: int
) -> dict[tuple[int, int, int], np.ndarray]:
    """A sparse matrix between slots as its diagonals.

    Parameters
    ----------
    rows, columns
        Slots of outputs and of inputs, counted through all ciphertexts.
    values
        Weights.
    slots
        Of one ciphertext.

    Returns
    -------
    dict
        ``(output ciphertext, input ciphertext, rotation)`` to a vector: Halevi and Shoup (CRYPTO 2014).

    Examples
    --------
    >>> found = diagonals(np.array([0, 1]), np.array([1, 2]), np.array([5.0, 6.0]), 4)
    >>> {k: v.tolist() for k, v in found.items()}
    {(0, 0, 1): [5.0, 6.0, 0.0, 0.0]}
    """
    out, row = np.divmod(rows, slots)
    source, column = np.divmod(columns, slots)
    turn = (column - row) % slots
    key = (out * (source.max(initial=0) + 1) + source) * slots + turn
    kinds, index = np.unique(key, return_inverse=True)
    dense = np.zeros((len(kinds), slots))
    np.add.at(dense, (index.reshape(-1), row), values)
    found = {}
    for k, vector in zip(kinds.tolist(), dense, strict=True):
        pair, d = divmod(k, slots)
        o, s = divmod(pair, int(source.max(initial=0)) + 1)
        found[o, s, d] = vector
    return found


def hops(distance: int, slots: int) -> list[int]:
    """A rotation as signed powers of two, as few as there can be: keys exist for those only.

    Examples
    --------
    >>> hops(7, 4096), hops(4095, 4096), hops(0, 4096)
    ([-1, 8], [-1], [])
    """
    distance %= slots
    if distance > slots // 2:
        distance -= slots
    sign, n, found, bit = (1 if distance >= 0 else -1), abs(distance), [], 1
    while n:
        if n & 1:
            digit = 2 - (n & 3)  # 1 or -1: the non-adjacent form
            found.append(sign * digit * bit)
            n -= digit
        n, bit = n >> 1, bit << 1
    return [h for h in found if h % slots]


def chain(turns: Iterable[int], slots: int) -> list[tuple[int, int, list[int]]]:
    """How to reach all rotations from none: ``(turn, from which turn, hops)``, each from the nearest that is there.

    Neighbouring rotations are one hop apart, so that a whole kernel is reached with one rotation for each place and
    keys for two distances.

    Examples
    --------
    >>> chain([1, 2, 33], 4096)
    [(1, 0, [1]), (2, 1, [1]), (33, 1, [32])]
    """
    waiting = sorted({t % slots for t in turns} - {0}, key=lambda t: min(t, slots - t))
    there, found = [0], []
    while waiting:
        best = min(
            (
                (len(hops(t - s, slots)), i, min((t - s) % slots, (s - t) % slots), s)
                for i, t in enumerate(waiting[:8])
                for s in there
            ),
        )
        turn = waiting.pop(best[1])
        found.append((turn, best[3], hops(turn - best[3], slots)))
        there.append(turn)
    return found


@dataclass(frozen=True)
class Plan:
    """Baby steps and giant steps of one linear layer.

    Attributes
    ----------
    step
        Distance of giant steps.
    babies
        Rotations of inputs, by input ciphertext.
    giants
        Rotations of sums, by output ciphertext.
    """

    step: int
    babies: dict[int, tuple[int, ...]]
    giants: dict[int, tuple[int, ...]]
    rotations: int


def split(turn: int, step: int, slots: int) -> tuple[int, int]:
    """``(baby, giant)`` of a rotation; babies lie around zero.

    Examples
    --------
    >>> split(33, 32, 4096), split(31, 32, 4096)
    ((1, 32), (4095, 32))
    """
    baby = (turn + step // 2) % step - step // 2
    return baby % slots, (turn - baby) % slots


def plan_rotations(keys: Iterable[tuple[int, int, int]], slots: int) -> Plan:
    """The giant step with which a set of diagonals needs the fewest rotations.

    Examples
    --------
    >>> plan_rotations([(0, 0, d) for d in range(64)], 4096).rotations
    15
    """
    keys = list(keys)
    best: Plan | None = None
    for step in [s * 2**k for k in range(slots.bit_length()) for s in (1, 3) if s * 2**k <= slots]:
        babies: dict[int, set[int]] = {}
        giants: dict[int, set[int]] = {}
        for out, source, turn in keys:
            baby, giant = split(turn, step, slots)
            babies.setdefault(source, set()).add(baby)
            giants.setdefault(out, set()).add(giant)
        least = sum(len(b - {0}) for b in babies.values()) + sum(len(g - {0}) for g in giants.values())
        if best is not None and least >= best.rotations:
            continue
        count = sum(len(h) for b in babies.values() for _, _, h in chain(b, slots))
        count += sum(len(h) for g in giants.values() for _, _, h in horner(g, slots))
        if best is None or count < best.rotations:
            best = Plan(
                step,
                {s: tuple(sorted(b)) for s, b in babies.items()},
                {o: tuple(sorted(g)) for o, g in giants.items()},
                count,
            )
    assert best is not None
    return best


def horner(giants: Iterable[int], slots: int) -> list[tuple[int, int, list[int]]]:
    """Sums rotated from the farthest to the nearest: ``(giant, next giant, hops)``; the last one goes on to 0.

    Examples
    --------
    >>> horner([0, 32, 64], 4096)
    [(64, 32, [32]), (32, 0, [32]), (0, 0, [])]
    """
    order = sorted({g - slots if g > slots // 2 else g for g in (g % slots for g in giants)}, reverse=True)
    if order[-1] < 0 < order[0]:  # from both ends would need two sums: all turns are taken as positive
        order = sorted({g % slots for g in giants}, reverse=True)
    following = [*order[1:], 0]
    return [(g % slots, f % slots, hops(g - f, slots)) for g, f in zip(order, following, strict=True)]
