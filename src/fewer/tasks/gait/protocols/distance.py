"""Distances between embeddings, in blocks: a gallery of any length within a fixed amount of memory.

The distance of two sequences is the mean over their parts of the Euclidean distance of the parts, as in OpenGait.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fewer.core.errors import FewerError

__all__ = ["nearest", "part_distances", "ranks_of_positives"]

BLOCK = 4096
"""Gallery rows that are compared at once."""

_PROBES = 256
_NEAR = 1e-3
"""Share of the size of two parts below which their distance is taken from their difference."""


def part_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances of all pairs.

    Parameters
    ----------
    first, second
        Embeddings (sequences, channels, parts) or (sequences, channels).

    Returns
    -------
    ndarray
        Shape (len(first), len(second)), float32.

    Raises
    ------
    FewerError
        When channels or parts differ.

    Examples
    --------
    >>> part_distances(np.zeros((1, 2, 2)), np.array([[[3.0, 0.0], [4.0, 1.0]]])).tolist()
    [[3.0]]
    """
    first, second = _shaped(first), _shaped(second)
    if first.shape[1:] != second.shape[1:]:
        raise FewerError(
            f"embeddings of shape {first.shape[1:]} cannot be compared with those of shape {second.shape[1:]}; "
            "embed both with the same network"
        )
    # a common centre makes numbers small, so that float32 loses little in the difference of squares
    centre = first.mean(0) if len(first) else np.zeros(first.shape[1:], np.float32)
    a, b = first - centre, second - centre
    total = np.zeros((len(a), len(b)), np.float32)
    for part in range(a.shape[2]):
        x, y = np.ascontiguousarray(a[:, :, part]), np.ascontiguousarray(b[:, :, part])
        scale = (x * x).sum(1)[:, None] + (y * y).sum(1)
        squares = scale - 2.0 * (x @ y.T)
        close = np.argwhere(squares < _NEAR * scale)  # too near for the difference of squares
        if len(close):
            squares[close[:, 0], close[:, 1]] = ((x[close[:, 0]] - y[close[:, 1]]) ** 2).sum(1)
        total += np.sqrt(np.maximum(squares, 0.0))
    return total / a.shape[2]


def _shaped(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float32)
    if values.ndim not in (2, 3):
        raise FewerError(f"embeddings have shape (sequences, channels, parts); these have {values.ndim} dimensions")
    return values[:, :, None] if values.ndim == 2 else values


def _blocks(length: int, size: int) -> Iterator[slice]:
    for start in range(0, length, size):
        yield slice(start, min(start + size, length))


def nearest(
    probes: np.ndarray, gallery: np.ndarray, count: int = 1, *, block: int = BLOCK
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest gallery rows of every probe, near ones first; of equal ones, the earlier row.

    Parameters
    ----------
    probes, gallery
        Embeddings. A gallery that is a memory map is read block by block.
    count
        Rows wanted; fewer where the gallery is smaller.
    block
        Gallery rows in memory at once.

    Returns
    -------
    rows, distances
        Each of shape (probes, count).

    Examples
    --------
    >>> rows, _ = nearest(np.array([[0.1]]), np.array([[5.0], [0.0], [1.0]]), 2, block=2)
    >>> rows.tolist()
    [[1, 2]]
    """
    if not len(gallery):
        raise FewerError("the gallery is empty: there is nothing to compare with")
    count = min(count, len(gallery))
    rows, found = np.zeros((len(probes), count), int), np.zeros((len(probes), count), np.float32)
    for some in _blocks(len(probes), _PROBES):
        best_rows, best = np.zeros((some.stop - some.start, 0), int), np.zeros((some.stop - some.start, 0), np.float32)
        for part in _blocks(len(gallery), block):
            distances = part_distances(probes[some], gallery[part])
            here = np.broadcast_to(np.arange(part.start, part.stop), distances.shape)
            best_rows, best = np.concatenate([best_rows, here], 1), np.concatenate([best, distances], 1)
            order = np.argsort(best, 1, kind="stable")[:, :count]
            best_rows, best = np.take_along_axis(best_rows, order, 1), np.take_along_axis(best, order, 1)
        rows[some], found[some] = best_rows, best
    return rows, found


def ranks_of_positives(
    probes: np.ndarray,
    people: np.ndarray,
    gallery: np.ndarray,
    owners: np.ndarray,
    *,
    ignore: np.ndarray | None = None,
    block: int = BLOCK,
) -> list[np.ndarray]:
    """Ranks (from 1) of all gallery rows of the same person, in order, for every probe.

    All that ranks, mAP and mINP need, without a sorted gallery: the distances of the positives first, then a count of
    rows that are nearer.

    Parameters
    ----------
    probes, people
        Embeddings and identities.
    gallery, owners
        The same of the gallery.
    ignore
        Names, one for each probe followed by one for each gallery row, such as the view: rows of the same person whose
        name is that of the probe are left out. None leaves out none.
    block
        Gallery rows in memory at once.

    Examples
    --------
    >>> gallery, owners = np.array([[0.0], [1.0], [2.0]]), np.array(["a", "b", "a"])
    >>> [ranks.tolist() for ranks in ranks_of_positives(np.array([[0.1]]), np.array(["a"]), gallery, owners)]
    [[1, 3]]
    """
    result: list[np.ndarray] = []
    for some in _blocks(len(probes), _PROBES):
        mine = people[some][:, None] == owners[None, :]
        if ignore is not None:
            same = mine & (ignore[: len(probes)][some][:, None] == ignore[len(probes) :][None, :])
        else:
            same = np.zeros_like(mine)
        wanted = [np.flatnonzero(row & ~out) for row, out in zip(mine, same, strict=True)]
        own = [np.zeros(len(rows), np.float32) for rows in wanted]
        for part in _blocks(len(gallery), block):
            distances = part_distances(probes[some], gallery[part])
            for i, rows in enumerate(wanted):
                here = (rows >= part.start) & (rows < part.stop)
                own[i][here] = distances[i, rows[here] - part.start]
        before = [np.zeros(len(rows), int) for rows in wanted]
        for part in _blocks(len(gallery), block):
            distances = part_distances(probes[some], gallery[part])
            distances[same[:, part]] = np.inf
            places = np.arange(part.start, part.stop)
            for i, rows in enumerate(wanted):
                ordered = np.sort(distances[i])
                before[i] += np.searchsorted(ordered, own[i], "left")
                # of equal distances, the earlier row comes first
                for j in np.flatnonzero(np.searchsorted(ordered, own[i], "right") > np.searchsorted(ordered, own[i])):
                    before[i][j] += int(((distances[i] == own[i][j]) & (places < rows[j])).sum())
        result += [np.sort(counts + 1) for counts in before]
    return result
