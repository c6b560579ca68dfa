"""Q-Bench A3: a score for every image, read from the logits of a model's first answer token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.reading import read_arrays
from fewer.tasks.quality.correlation import correlations

__all__ = [
    "PROMPT",
    "TEMPERATURE",
    "Logits",
    "five_levels",
    "halves",
    "read_logits_npz",
    "three_words",
    "two_words",
]

PROMPT = "Rate the quality of the image."
"""What the model is asked; its turn is left open."""

TEMPERATURE = 100.0
"""By which the official scripts divide both logits. Ranks do not depend on it, linear correlation does."""


@dataclass(frozen=True, eq=False)
class Logits:
    """What one model said of one database.

    Attributes
    ----------
    files
        Of the images.
    opinion
        [N] mean opinion scores, higher is better.
    good, poor
        [N] logits of the two words.
    """

    files: tuple[str, ...]
    opinion: np.ndarray
    good: np.ndarray
    poor: np.ndarray

    def score(self, temperature: float = TEMPERATURE, groups: np.ndarray | None = None) -> dict[str, float]:
        """SRCC and PLCC of the two-word score, without any fit."""
        return correlations(two_words(self.good, self.poor, temperature), self.opinion, groups)


def two_words(good: np.ndarray, poor: np.ndarray, temperature: float = TEMPERATURE) -> np.ndarray:
    """Probability of good among good and poor (Q-Bench, ICLR 2024), in 64 bits and without overflow.

    Examples
    --------
    >>> two_words(np.array([20.0]), np.array([20.0])).tolist()
    [0.5]
    """
    logits = np.stack([np.asarray(good, float), np.asarray(poor, float)], -1)
    return _softmax(logits / temperature)[..., 0]


def three_words(
    good: np.ndarray, average: np.ndarray, poor: np.ndarray, temperature: float = TEMPERATURE
) -> np.ndarray:
    """Q-Boost (2312.15300): probabilities of good, average and poor, weighted 1, 0.5 and 0.

    Each input is the logit of a word, or the mean over synonyms.

    Examples
    --------
    >>> three_words(*(np.zeros(1) for _ in range(3))).tolist()
    [0.5]
    """
    logits = np.stack([np.asarray(part, float) for part in (good, average, poor)], -1)
    return _softmax(logits / temperature) @ np.array([1.0, 0.5, 0.0])


def five_levels(logits: np.ndarray) -> np.ndarray:
    """Q-Align: mean of the levels 5 to 1 under the probabilities of excellent, good, fair, poor and bad.

    Parameters
    ----------
    logits
        [N, 5], the best level first.

    Examples
    --------
    >>> five_levels(np.zeros((1, 5))).round(6).tolist()
    [3.0]
    """
    logits = np.asarray(logits, float)
    if logits.ndim != 2 or logits.shape[1] != 5:
        raise FewerError(f"five levels need logits of the shape N x 5; given {logits.shape}")
    return _softmax(logits) @ np.arange(5.0, 0.0, -1.0)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def halves(files: tuple[str, ...] | np.ndarray) -> np.ndarray:
    """Which half of CGIQA-6K an image belongs to, by its name: ``game`` or ``movie``.

    Raises
    ------
    FewerError
        When a name says neither.

    Examples
    --------
    >>> halves(("game/1.png", "movie/1.png")).tolist()
    ['game', 'movie']
    """
    found = []
    for name in files:
        half = "game" if "game" in str(name).lower() else "movie" if "movie" in str(name).lower() else ""
        if not half:
            raise FewerError(f"{name} says neither game nor movie, so its half of CGIQA-6K is unknown")
        found.append(half)
    return np.array(found)


def read_logits_npz(path: str | Path, database: str, model: str) -> Logits:
    """Read one model and database of an ``.npz`` with ``DB/file``, ``DB/mos``, ``DB/MODEL/good``, ``DB/MODEL/poor``.

    Raises
    ------
    FewerError
        When it is not there.
    """
    names = [f"{database}/{part}" for part in ("file", "mos", f"{model}/good", f"{model}/poor")]
    found = read_arrays(path, names)
    if len(found) < 4:
        raise FewerError(f"{path} has no logits of the model {model!r} on {database!r}")
    files, *columns = (found[name] for name in names)
    return Logits(tuple(map(str, files)), *(np.asarray(column, float) for column in columns))
