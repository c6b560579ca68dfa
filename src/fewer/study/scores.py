"""Opinion scores from the votes of raters: means, bias removal, rejection of raters, and a model of rater and stimulus.

Votes are three arrays, so a study of millions needs no table of raters times stimuli. Missing votes and repeats are
allowed everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.methods import Method, MethodTable

__all__ = ["SCORES", "Scores", "Votes", "agreement", "bias_removed", "mean_opinion", "p910", "reject_bt500"]


@dataclass(frozen=True, eq=False)
class Votes:
    """Votes of a study.

    Attributes
    ----------
    rater, stimulus
        [N] places in ``raters`` and ``stimuli``.
    value
        [N] scores.
    raters, stimuli
        Names.
    """

    rater: np.ndarray
    stimulus: np.ndarray
    value: np.ndarray
    raters: tuple[str, ...]
    stimuli: tuple[str, ...]

    @classmethod
    def of(cls, rows: list[tuple[str, str, float]]) -> Votes:
        """From (rater, stimulus, score).

        Raises
        ------
        FewerError
            When there are none.

        Examples
        --------
        >>> Votes.of([("ann", "x", 4), ("bob", "x", 2)]).raters
        ('ann', 'bob')
        """
        if not rows:
            raise FewerError("there are no votes yet, so there are no scores")
        raters = tuple(sorted({row[0] for row in rows}))
        stimuli = tuple(sorted({row[1] for row in rows}))
        who, what = {n: i for i, n in enumerate(raters)}, {n: i for i, n in enumerate(stimuli)}
        value = np.array([float(row[2]) for row in rows])
        if not np.isfinite(value).all():
            raise FewerError("a vote is no finite number")
        return cls(np.array([who[r[0]] for r in rows]), np.array([what[r[1]] for r in rows]), value, raters, stimuli)

    def keep(self, of: np.ndarray) -> Votes:
        """Only the votes where ``of`` is true; names stay."""
        return Votes(self.rater[of], self.stimulus[of], self.value[of], self.raters, self.stimuli)

    def per_stimulus(self, values: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        """Weighted mean over the votes of each stimulus; NaN without any."""
        return _means(self.stimulus, values, len(self.stimuli), weights)

    def per_rater(self, values: np.ndarray) -> np.ndarray:
        """Mean over the votes of each rater; NaN without any."""
        return _means(self.rater, values, len(self.raters))


def _means(place: np.ndarray, values: np.ndarray, count: int, weights: np.ndarray | None = None) -> np.ndarray:
    weights = np.ones(len(values)) if weights is None else weights
    total = np.bincount(place, weights, count)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.bincount(place, weights * values, count) / total


@dataclass(frozen=True, eq=False)
class Scores:
    """What a method made of votes.

    Attributes
    ----------
    stimuli
        Names.
    score
        [stimuli] in the unit of the votes.
    deviation
        [stimuli] standard error of each score.
    votes
        [stimuli] number of votes that counted.
    bias, inconsistency
        By rater, where the method knows them.
    rejected
        Raters whose votes were left out.
    """

    stimuli: tuple[str, ...]
    score: np.ndarray
    deviation: np.ndarray
    votes: np.ndarray
    bias: dict[str, float] = field(default_factory=dict)
    inconsistency: dict[str, float] = field(default_factory=dict)
    rejected: tuple[str, ...] = ()


def _finish(votes: Votes, score: np.ndarray, residual: np.ndarray, **more: object) -> Scores:
    count = np.bincount(votes.stimulus, minlength=len(votes.stimuli))
    spread = np.sqrt(np.maximum(votes.per_stimulus(residual**2), 0))
    with np.errstate(invalid="ignore", divide="ignore"):
        deviation = spread / np.sqrt(count)
    return Scores(votes.stimuli, score, deviation, count, **more)  # type: ignore[arg-type]


def mean_opinion(votes: Votes) -> Scores:
    """The mean of the votes of each stimulus (MOS)."""
    score = votes.per_stimulus(votes.value)
    return _finish(votes, score, votes.value - score[votes.stimulus])


def bias_removed(votes: Votes) -> Scores:
    """MOS after the bias of each rater, the mean difference to the MOS, was taken away (ITU-T P.913, 12.4).

    Examples
    --------
    >>> votes = Votes.of([("a", "x", 2), ("a", "y", 4), ("b", "x", 1), ("b", "y", 3)])
    >>> bias_removed(votes).bias
    {'a': 0.5, 'b': -0.5}
    """
    mean = votes.per_stimulus(votes.value)
    bias = votes.per_rater(votes.value - mean[votes.stimulus])
    value = votes.value - bias[votes.rater]
    score = votes.per_stimulus(value)
    named = {name: float(bias[i]) for i, name in enumerate(votes.raters) if np.isfinite(bias[i])}
    return _finish(votes, score, value - score[votes.stimulus], bias=named)


def p910(votes: Votes, tolerance: float = 1e-8, most: int = 1000) -> Scores:
    """Score, bias and inconsistency together, by alternating projection (ITU-T P.910, annex E).

    A vote is modelled as score + bias of the rater + inconsistency of the rater times normal noise. Each round weights
    raters by the inverse square of their inconsistency. Biases have the mean zero.

    Parameters
    ----------
    votes
        Of the study.
    tolerance
        End when scores move less than this in total (2-norm).
    most
        Largest number of rounds.
    """
    score = votes.per_stimulus(votes.value)
    bias = votes.per_rater(votes.value - score[votes.stimulus])
    spread = np.ones(len(votes.raters))
    for _ in range(most):
        residual = votes.value - score[votes.stimulus] - bias[votes.rater]
        centre = votes.per_rater(residual)
        spread = np.sqrt(np.maximum(votes.per_rater(residual**2) - centre**2, 0))
        weight = 1 / (np.nan_to_num(spread) ** 2 + 1e-8)
        before = score
        score = votes.per_stimulus(votes.value - bias[votes.rater], weight[votes.rater])
        bias = votes.per_rater(votes.value - score[votes.stimulus])
        if float(np.nansum((score - before) ** 2)) ** 0.5 < tolerance:
            break
    shift = float(np.nanmean(bias))
    bias, score = bias - shift, score + shift
    seen = [i for i in range(len(votes.raters)) if np.isfinite(bias[i])]
    residual = votes.value - score[votes.stimulus] - bias[votes.rater]
    return _finish(
        votes,
        score,
        residual,
        bias={votes.raters[i]: float(bias[i]) for i in seen},
        inconsistency={votes.raters[i]: float(spread[i]) for i in seen},
    )


def reject_bt500(votes: Votes) -> Scores:
    """MOS without the raters whom the screening of ITU-R BT.500-14 (A1-2.3.1) rejects.

    A vote is far off when it is at least c standard deviations from the mean of its stimulus, with c = 2 where the
    kurtosis of its votes lies in 2 to 4 and the root of 20 elsewhere. A rater goes when more than 5 % of their votes
    are far off and these lie on both sides (their difference is below 30 % of their sum). A rater with a constant bias
    is therefore kept. Of n raters none can be further off than (n - 1) / sqrt(n) deviations, so that with up to 20
    raters one who is far outside of all others raises the kurtosis and is never rejected: look at the inconsistency of
    :func:`p910` too.
    """
    mean = votes.per_stimulus(votes.value)
    off = votes.value - mean[votes.stimulus]
    second, fourth = votes.per_stimulus(off**2), votes.per_stimulus(off**4)
    count = np.bincount(votes.stimulus, minlength=len(votes.stimuli))
    with np.errstate(invalid="ignore", divide="ignore"):
        kurtosis = fourth / second**2
        spread = np.sqrt(second * count / np.maximum(count - 1, 1))
    limit = np.where((kurtosis >= 2) & (kurtosis <= 4), 2.0, np.sqrt(20.0)) * spread
    far = limit[votes.stimulus]
    # where all agree nobody is far off
    above = np.bincount(votes.rater, (off >= far) & (far > 0), len(votes.raters))
    below = np.bincount(votes.rater, (off <= -far) & (far > 0), len(votes.raters))
    given = np.maximum(np.bincount(votes.rater, minlength=len(votes.raters)), 1)
    total = above + below
    out = (total / given > 0.05) & (np.abs(above - below) < 0.3 * np.maximum(total, 1))
    kept = votes.keep(~out[votes.rater])
    score = kept.per_stimulus(kept.value)
    rejected = tuple(name for name, gone in zip(votes.raters, out, strict=True) if gone)
    return _finish(kept, score, kept.value - score[kept.stimulus], rejected=rejected)


def agreement(votes: Votes) -> float:
    """Krippendorff's alpha for interval scores: 1 is full agreement, 0 that of chance; NaN where it has no meaning.

    Examples
    --------
    >>> agreement(Votes.of([("a", "x", 1), ("b", "x", 1), ("a", "y", 5), ("b", "y", 5)]))
    1.0
    """
    count = np.bincount(votes.stimulus, minlength=len(votes.stimuli))
    shared = count[votes.stimulus] > 1
    value, place = votes.value[shared], votes.stimulus[shared]
    if len(value) < 2 or value.var() == 0:
        return float("nan")
    size = np.bincount(place, minlength=len(votes.stimuli))
    mean = _means(place, value, len(votes.stimuli))
    # a pair of values of one stimulus counts 1 / (size - 1), as in the definition
    inside = np.bincount(place, (value - mean[place]) ** 2, len(votes.stimuli))
    with np.errstate(invalid="ignore", divide="ignore"):
        observed = float(np.nansum(2 * inside * size / np.maximum(size - 1, 1)) / len(value))
    expected = float(2 * value.var() * len(value) / (len(value) - 1))
    return 1 - observed / expected


SCORES: MethodTable[Callable[..., Scores]] = MethodTable(
    "score method",
    [
        Method("p910", p910, "score, bias and inconsistency of raters together", "ITU-T P.910, annex E"),
        Method("mos", mean_opinion, "plain means"),
        Method("bias-removed", bias_removed, "means after the bias of each rater was taken away", "ITU-T P.913"),
        Method("bt500", reject_bt500, "means without inconsistent raters", "ITU-R BT.500-14"),
    ],
)
"""Every way to make scores of votes."""
