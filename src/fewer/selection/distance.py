"""Distances between vectors, a block at a time: there is never a table of all pairs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewer.core.errors import FewerError
from fewer.selection.pool import blocks

__all__ = ["Space", "Unit", "Whitened", "nearest", "principal", "squared_distances"]


def squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances [len(a), len(b)] in float32, never negative.

    Examples
    --------
    >>> squared_distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[25.0, 0.0]]
    """
    a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
    out = a @ b.T
    out *= -2
    out += np.einsum("ij,ij->i", a, a)[:, None]
    out += np.einsum("ij,ij->i", b, b)
    return np.maximum(out, 0, out=out)


class Space:
    """Vectors as they are: the plainest space in which distances are taken."""

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """Carry vectors over into this space."""
        return np.asarray(vectors, np.float32)


class Unit(Space):
    """Vectors scaled to length 1, so that distance is angle.

    Examples
    --------
    >>> Unit().of(np.array([[3.0, 4.0], [0.0, 0.0]])).round(2).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """Scale to length 1; a zero vector stays zero."""
        values = np.asarray(vectors, np.float32)
        return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


_MANY = 4096  # numbers of a vector up to which all pairs of them are taken


@dataclass(frozen=True, eq=False)
class Whitened(Space):
    """The strongest principal directions of a pool, each scaled by its own spread.

    Parameters
    ----------
    mean
        [d] of the unit vectors.
    basis
        [d, k] principal directions, each divided by its spread to the power ``2 * power``.
    """

    mean: np.ndarray
    basis: np.ndarray

    @classmethod
    def fit(
        cls, features: np.ndarray, rows: np.ndarray, *, components: int, power: float = 0.5, seed: int = 0
    ) -> Whitened:
        """Learn the directions from at most 20,000 of the rows.

        Parameters
        ----------
        features
            [N, d].
        rows
            Rows to learn from.
        components
            Directions to keep, at most.
        power
            0.5 whitens (all directions count the same), 0 keeps the spread of each direction.
        seed
            Of the sample.
        """
        if len(rows) > 20_000:
            rows = np.sort(np.random.default_rng([seed, 20]).choice(rows, 20_000, replace=False))
        unit = Unit().of(np.asarray(features[rows], np.float32)).astype(np.float64)
        mean = unit.mean(0)
        values, vectors = principal(unit - mean)
        keep = np.argsort(values)[::-1][: max(1, min(components, len(unit) - 1, len(values)))]
        spread = np.maximum(values[keep], 1e-8 * max(values.max(), 1e-30))
        basis = vectors[:, keep] / spread**power
        # the sign of a principal direction is arbitrary; fix it, so that it is the same everywhere
        basis *= np.sign(basis[np.abs(basis).argmax(0), np.arange(len(keep))] + 1e-30)
        return cls(mean.astype(np.float32), basis.astype(np.float32))

    def of(self, vectors: np.ndarray) -> np.ndarray:
        """Project unit vectors: [n, d] -> [n, k]."""
        return (Unit().of(vectors) - self.mean) @ self.basis


def principal(centred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances and principal directions [d, k] of centred vectors [n, d].

    Whole pictures as vectors have so many numbers that a matrix of all pairs of them fits into no memory; there, the
    pairs of vectors say the same.

    Examples
    --------
    >>> values, directions = principal(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    >>> values.tolist(), np.abs(directions[:, 1]).tolist()
    ([0.0, 1.0], [1.0, 0.0])
    """
    if not np.isfinite(centred).all():
        raise FewerError("the vectors of the images hold NaN or infinite numbers; choose anew with --overwrite")
    count, dim = centred.shape
    if dim <= max(_MANY, count):
        return np.linalg.eigh(centred.T @ centred / count)
    values, left = np.linalg.eigh(centred @ centred.T / count)
    return values, centred.T @ left / np.sqrt(np.maximum(count * values, 1e-30))


def nearest(
    features: np.ndarray, centres: np.ndarray, space: Space | None = None, rows: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest centre of every vector.

    Parameters
    ----------
    features
        [N, d].
    centres
        [k, d'] in the space.
    space
        Where distances are taken; as the vectors are by default.
    rows
        Only these rows.

    Returns
    -------
    labels, squared
        [n] number of the nearest centre, and the squared distance to it.

    Examples
    --------
    >>> labels, squared = nearest(np.array([[0.0], [5.0]]), np.array([[4.0], [1.0]]))
    >>> labels.tolist(), squared.tolist()
    ([1, 0], [1.0, 1.0])
    """
    space = space or Space()
    total = len(features) if rows is None else len(rows)
    labels, squared = np.zeros(total, np.int64), np.zeros(total, np.float32)
    for start, block in blocks(features, rows):
        table = squared_distances(space.of(block), centres)
        best = table.argmin(1)
        labels[start : start + len(block)] = best
        squared[start : start + len(block)] = table[np.arange(len(block)), best]
    return labels, squared
