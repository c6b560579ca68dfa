"""How sure a model is of its predictions: entropy, BALD, and a small probe that makes predictions from few labels."""

from __future__ import annotations

import numpy as np

from fewer.core.errors import FewerError
from fewer.selection.pool import Pool, Selection, blocks, entropy, shannon_entropy

__all__ = ["bald_score", "cold_start", "probe_predictions", "select_bald", "select_entropy"]


def bald_score(samples: np.ndarray) -> np.ndarray:
    """Mutual information of prediction and model (Houlsby et al., 2011), in nats: what an answer would teach.

    Parameters
    ----------
    samples
        [S, N, C] probabilities of S members of an ensemble, or S passes with dropout.

    Returns
    -------
    np.ndarray
        [N]; 0 where all members agree, however unsure each one is.

    Examples
    --------
    >>> agree, differ = [[0.5, 0.5], [0.5, 0.5]], [[1.0, 0.0], [0.0, 1.0]]
    >>> bald_score(np.array([agree, differ]).transpose(1, 0, 2)).round(3).tolist()
    [0.0, 0.693]
    """
    samples = np.asarray(samples, np.float64)
    samples = samples / np.maximum(samples.sum(-1, keepdims=True), 1e-30)
    return np.maximum(shannon_entropy(samples.mean(0)) - shannon_entropy(samples).mean(0), 0)


def probe_predictions(
    features: np.ndarray, rows: np.ndarray, classes: np.ndarray, *, members: int = 8, seed: int = 0
) -> np.ndarray:
    """Predict the classes of a whole pool with logistic regressions on the vectors of the labelled images.

    Parameters
    ----------
    features
        [N, d].
    rows
        Rows that have a class.
    classes
        [len(rows)] their classes, of any kind.
    members
        Regressions, each trained on a bootstrap sample in which no class is missing.
    seed
        Of the samples.

    Returns
    -------
    np.ndarray
        [members, N, C] probabilities.

    Raises
    ------
    FewerError
        When there are fewer than two classes.
    """
    from sklearn.linear_model import LogisticRegression

    names, codes = np.unique(np.asarray(classes), return_inverse=True)
    if len(names) < 2:
        raise FewerError("all labels so far are of one class, so no probe can be trained; give --predictions")
    known = np.asarray(features[rows], np.float32)
    mean, spread = known.mean(0), known.std(0) + 1e-6
    rng = np.random.default_rng([seed, 8])
    probes = []
    for member in range(members):
        firsts = [rng.choice(np.flatnonzero(codes == c)) for c in range(len(names))]
        drawn = np.concatenate([firsts, rng.integers(len(codes), size=len(codes) - len(firsts))])
        drawn = np.arange(len(codes)) if member == 0 else drawn.astype(int)
        probes.append(LogisticRegression(C=0.1, max_iter=300).fit((known[drawn] - mean) / spread, codes[drawn]))
    out = np.zeros((members, len(features), len(names)), np.float32)
    for start, block in blocks(features):
        block = (block - mean) / spread
        for member, probe in enumerate(probes):
            out[member, start : start + len(block)] = probe.predict_proba(block)
    return out


def _top(pool: Pool, score: np.ndarray, count: int, seed: int, why: str) -> Selection:
    rows = pool.candidates()
    value = np.nan_to_num(score[rows], nan=-np.inf)
    order = np.lexsort((np.random.default_rng([seed, 9]).random(len(rows)), -value))[:count]
    scores = [float(v) if np.isfinite(v) else 0.0 for v in value[order]]
    return Selection.of(rows[order], [why.format(v) for v in scores], scores=scores)


def select_entropy(pool: Pool, count: int, seed: int = 0) -> Selection:
    """Take the images whose prediction is least sure.

    Raises
    ------
    FewerError
        In a cold start, as there are no predictions yet.
    """
    if pool.predictions is not None:
        score = entropy(pool.predictions)
    elif pool.uncertainty is not None:
        score = pool.uncertainty
    else:
        raise cold_start("entropy")
    return _top(pool, score, count, seed, "the prediction for it is among the least sure (entropy {:.2f})")


def select_bald(pool: Pool, count: int, seed: int = 0) -> Selection:
    """Take the images on which members of an ensemble disagree most.

    Raises
    ------
    FewerError
        In a cold start, or when there is only one prediction per image.
    """
    why = "several models disagree on it (mutual information {:.3f})"
    if pool.disagreement is not None:
        return _top(pool, pool.disagreement, count, seed, why)
    if pool.predictions is None and pool.uncertainty is None:
        raise cold_start("bald")
    if pool.predictions is None or pool.predictions.ndim != 3 or len(pool.predictions) < 2:
        raise FewerError(
            "bald needs several predictions per image, [S, N, C] with S of at least 2; use entropy instead"
        )
    score = bald_score(pool.predictions)
    return _top(pool, score, count, seed, why)


def cold_start(method: str) -> FewerError:
    """The error of a method that needs predictions where there are none."""
    return FewerError(
        f"{method} needs predictions, and in a cold start there is no model yet: choose the first round with "
        "coverage, then give --predictions or labels with classes"
    )
