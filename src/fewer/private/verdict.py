"""What results of a circuit decide, and how near they are to those of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fewer.private.left import names_of

__all__ = ["Left", "agreement", "decisions", "distance"]

Left = Sequence[tuple[str, int]]
"""Operations that are left to the client: name and axis, the last one first."""


def decisions(results: np.ndarray, answer: Sequence[int], left: Left) -> np.ndarray | None:
    """What each image is said to be: classes, places that have one, or sides of a half.

    Parameters
    ----------
    results
        [N, outputs], before what is left to the client.
    answer
        Shape of the results for one image, with the leading 1.
    left
        Name and axis of what is left, the last one first.

    Returns
    -------
    Integers [N, decisions]
        None where nothing says what the results decide: one number without a sigmoid, or a map.

    Examples
    --------
    >>> decisions(np.array([[0.2, 3.0], [1.0, -1.0]]), (1, 2), ()).tolist()
    [[1], [0]]
    >>> decisions(np.array([[0.2], [-3.0]]), (1, 1), [("sigmoid", 0)]).tolist()
    [[1], [0]]
    >>> decisions(np.array([[0.2]]), (1, 1), ()) is None
    True
    """
    x, axis = _rows(results, answer, left)
    if axis is not None:
        return x.argmax(axis).reshape(len(x), -1)
    if "sigmoid" in names_of(left):
        return (x > 0).astype(int).reshape(len(x), -1)
    if x[0].size > 1 and max(x.shape[1:]) == x[0].size:
        return x.reshape(len(x), -1).argmax(1)[:, None]
    return None


def _rows(results: np.ndarray, answer: Sequence[int], left: Left) -> tuple[np.ndarray, int | None]:
    """Results in the shape that the network gives them, and the axis of a softmax that is left; None without one."""
    shape = tuple(answer) or (1, results.shape[1])
    lead = int(len(shape) > 1 and shape[0] == 1)
    axis = next((axis for name, axis in left if name in ("softmax", "log_softmax")), None)
    return np.asarray(results).reshape(len(results), *shape[lead:]), None if axis is None else axis - lead + 1


def distance(said: np.ndarray, wanted: np.ndarray, answer: Sequence[int] = (), left: Left = ()) -> float:
    """Squared distance of results over that of the wanted ones from their mean.

    Before a softmax, results are known but for a constant of each row, which it takes no notice of; nor does this.

    Examples
    --------
    >>> round(distance(np.array([[1.0], [2.1]]), np.array([[1.0], [2.0]])), 3)
    0.02
    >>> logits = np.array([[1.0, 3.0], [2.0, 0.0]])
    >>> distance(logits, logits - 5, (1, 2), [("softmax", 1)])
    0.0
    """
    said, wanted = (_without_constants(x, answer, left) for x in (said, wanted))
    spread = float(((wanted - wanted.mean(0)) ** 2).sum())
    return float(((said - wanted) ** 2).sum()) / max(spread, 1e-30)


def _without_constants(results: np.ndarray, answer: Sequence[int], left: Left) -> np.ndarray:
    x, axis = _rows(results, answer, left)
    return x if axis is None else x - x.mean(axis, keepdims=True)


def agreement(said: np.ndarray, wanted: np.ndarray, answer: Sequence[int], left: Left) -> dict[str, Any]:
    """Both numbers for a report: the share of decisions that are the same, or None, and the distance."""
    ours, theirs = (decisions(x, answer, left) for x in (said, wanted))
    same = None if ours is None or theirs is None else float((ours == theirs).mean())
    return {"agreement": same, "distance": distance(said, wanted, answer, left)}
