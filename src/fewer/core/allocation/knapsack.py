"""Multiple-choice knapsack by dynamic programming over a budget cut into buckets."""

from __future__ import annotations

import numpy as np

__all__ = ["Table"]

_FUZZ = 1e-9  # a cost this little (in buckets) above a bucket's edge counts as on it; feasibility is checked apart


class Table:
    r"""Table of the least distortion for every bucket of the budget, from which plans are traced back.

    The recursion is that of layer-wise allocation by dynamic programming, with the budget cut into buckets
    (SPDY, arXiv 2201.13096; Optimal Brain Compression, arXiv 2208.11580):

    .. math:: S_i(j) = \min_k \{ \delta_i(k) + S_{i-1}(j - r_i(k)) \}

    ``r_i(k)`` is the cost of option k **beyond the cheapest option of unit i**, rounded up to buckets. So the
    cheapest plan always takes 0 buckets and a problem that has a solution is never lost to rounding, and a plan that
    takes at most ``room / width`` buckets is never over the budget.

    Rounding up wastes about half a bucket per unit. To win it back the table goes on for ``extra`` buckets beyond the
    budget, where ``extra`` is the most that rounding can add up to. Plans traced from there are taken when their true
    cost fits. As every plan that truly fits takes at most ``budget + extra`` buckets, the last entry of the table is a
    lower bound on the distortion of all of them.

    Parameters
    ----------
    cost
        (L, K) costs, infinite where an option is not allowed. Every row has a finite entry.
    distortion
        (L, K) distortions, infinite at the same places. Neither needs to be monotone or convex.
    room
        What may be spent on the units; at least the sum of the cheapest options.
    buckets
        Into how many buckets the room is cut. Whole-numbered costs with a common divisor that needs fewer get exactly
        that divisor, and rounding then changes nothing.

    Attributes
    ----------
    width : float
        Cost of one bucket.
    extra : float
        Buckets beyond the budget that rounding may account for.
    size : int
        Last bucket of the table.
    distortion : np.ndarray
        (size + 1,) least distortion of all plans that take at most so many buckets.

    Examples
    --------
    >>> table = Table(np.array([[4., 2.], [4., 2.]]), np.array([[0., 1.], [0., 3.]]), room=6, buckets=100)
    >>> table.trace(np.array([table.bucket(6)]))
    array([[1, 0]])
    """

    def __init__(self, cost: np.ndarray, distortion: np.ndarray, room: float, buckets: int) -> None:
        self.least = float(cost.min(axis=1).sum())
        over = cost - cost.min(axis=1, keepdims=True)
        spare = max(room - self.least, 0.0)
        allowed = np.isfinite(distortion) & (over <= spare * (1 + _FUZZ))
        self.width = _bucket_width(over[allowed], spare, buckets)
        rounded = np.zeros(cost.shape)
        rounded[allowed] = np.ceil(over[allowed] / self.width - _FUZZ)
        excess = np.where(allowed, rounded - np.where(allowed, over, 0.0) / self.width, 0.0).max(axis=1)
        self.extra = max(float(excess.sum()), 0.0)
        self._taken = rounded.astype(np.int64)
        # beyond the sum of the dearest options nothing changes any more
        self.size = int(min(self.reach(room), self._taken.max(axis=1).sum()))
        self._taken.flags.writeable = False
        base = np.where(allowed, distortion, np.inf).min(axis=1)
        self._pick = np.zeros((len(cost), self.size + 1), dtype=np.uint8 if cost.shape[1] <= 256 else np.uint16)
        row = self._fill(over, np.where(allowed, distortion - base[:, None], np.inf))
        self.distortion = row + base.sum()

    def bucket(self, room: float) -> int:
        """How many buckets a room buys, within the table or beyond it."""
        return max(int(np.floor((room - self.least) / self.width + _FUZZ)), 0)

    def reach(self, room: float) -> int:
        """The most buckets that a plan which truly fits the room can take, within the table or beyond it."""
        return max(int(np.floor((room - self.least) / self.width + self.extra + _FUZZ * len(self._taken))), 0)

    def _fill(self, over: np.ndarray, distortion: np.ndarray) -> np.ndarray:
        n = self.size + 1
        row, new, trial = np.zeros(n), np.empty(n), np.empty(n)
        better = np.empty(n, dtype=bool)
        for i, pick in enumerate(self._pick):
            order = _useful(self._taken[i], over[i], distortion[i])
            # the cheapest option takes no bucket: it starts the minimum
            np.add(row, distortion[i, order[0]], out=new)
            pick.fill(order[0])
            for k in order[1:]:
                start = self._taken[i, k]
                if start >= n:
                    break
                end = n - start
                np.add(row[:end], distortion[i, k], out=trial[:end])
                np.less(trial[:end], new[start:], out=better[:end])
                np.minimum(new[start:], trial[:end], out=new[start:])
                np.putmask(pick[start:], better[:end], k)
            row, new = new, row
        return row

    def trace(self, buckets: np.ndarray) -> np.ndarray:
        """Trace the plans for several buckets back at once.

        Parameters
        ----------
        buckets
            (N,) buckets, each from 0 to ``size``.

        Returns
        -------
        np.ndarray
            (N, L) option indices.
        """
        left = np.array(buckets, dtype=np.int64)
        choice = np.empty((len(left), len(self._pick)), dtype=np.int64)
        for i in range(len(self._pick) - 1, -1, -1):
            choice[:, i] = self._pick[i, left]
            left -= self._taken[i, choice[:, i]]
        return choice

    @property
    def nbytes(self) -> int:
        """Memory of the table, in bytes."""
        return self._pick.nbytes + self.distortion.nbytes + self._taken.nbytes


def _bucket_width(over: np.ndarray, spare: float, buckets: int) -> float:
    """The largest width that loses nothing when one exists within ``buckets``, otherwise an even cut."""
    if not over.size or over.max() <= 0 or spare <= 0:
        return 1.0
    if over.max() < 2**53 and (over == np.floor(over)).all():
        divisor = float(np.gcd.reduce(over.astype(np.int64)))
        if np.floor(spare / divisor) <= buckets:
            return divisor
    return spare / buckets


def _useful(taken: np.ndarray, over: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Indices of the options that no other option beats in both buckets and distortion, cheapest first."""
    order = np.lexsort((over, distortion, taken))
    order = order[np.isfinite(distortion[order])]
    best = np.minimum.accumulate(distortion[order])
    keep = np.concatenate([[True], distortion[order][1:] < best[:-1]])
    return order[keep]
