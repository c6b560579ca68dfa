"""Scores of raters against loops, planted biases and a planted random rater."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.study.scores import SCORES, Votes, agreement, bias_removed, mean_opinion, p910, reject_bt500


def planted(seed=0, stimuli=80, raters=20, random=0, missing=0.2):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1.5, 4.5, stimuli)
    bias = rng.normal(0, 0.5, raters)
    bias -= bias.mean()
    spread = rng.uniform(0.2, 0.7, raters)
    rows = []
    for r in range(raters):
        for s in range(stimuli):
            if rng.random() > missing:
                value = truth[s] + bias[r] + spread[r] * rng.standard_normal()
                rows.append((f"r{r:02d}", f"s{s:03d}", rng.uniform(-3, 9) if r < random else value))
    return Votes.of(rows), truth, bias, spread


def test_p910_recovers_planted_biases_and_spreads_and_beats_the_mean():
    votes, truth, bias, spread = planted()
    found = p910(votes)
    assert np.abs(np.array(list(found.bias.values())) - bias).max() < 0.2
    assert np.corrcoef(list(found.inconsistency.values()), spread)[0, 1] > 0.9

    def error(scores):
        return float(np.sqrt(((scores.score - truth) ** 2).mean()))

    assert error(found) < error(bias_removed(votes)) < error(mean_opinion(votes))
    assert abs(np.mean(list(found.bias.values()))) < 1e-9


def scale_votes(seed, bad):
    """Votes on the scale 1 to 5 of 24 raters, of whom the first ones answer at random."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(1.5, 4.5, 100)
    rows = []
    for r in range(24):
        seen = rng.integers(1, 6, 100) if r < bad else np.clip(np.rint(truth + 0.7 * rng.standard_normal(100)), 1, 5)
        rows += [(f"r{r:02d}", f"s{s:03d}", float(seen[s])) for s in range(100)]
    return Votes.of(rows), truth


@pytest.mark.parametrize("seed", range(3))
def test_bt500_rejects_the_planted_random_rater_and_keeps_biased_ones(seed):
    votes, truth = scale_votes(seed, bad=1)
    rejected = reject_bt500(votes)
    assert rejected.rejected == ("r00",) and rejected.votes.max() == 23
    assert ((rejected.score - truth) ** 2).mean() < ((mean_opinion(votes).score - truth) ** 2).mean()
    assert max(p910(votes).inconsistency.items(), key=lambda pair: pair[1])[0] == "r00"
    kept, _ = scale_votes(seed, bad=0)
    shifted = Votes(kept.rater, kept.stimulus, kept.value + 2.0 * (kept.rater == 3), kept.raters, kept.stimuli)
    assert reject_bt500(shifted).rejected == ()


def test_bt500_equals_a_loop_over_the_recommendation():
    votes, *_ = planted(seed=3, stimuli=25, raters=9, random=2, missing=0.0)
    u = np.zeros((25, 9))
    u[votes.stimulus, votes.rater] = votes.value
    up, down = np.zeros(9), np.zeros(9)
    for row in u:
        d = row - row.mean()
        kurtosis = (d**4).mean() / (d**2).mean() ** 2
        c = 2 if 2 <= kurtosis <= 4 else 20**0.5
        up += d >= c * row.std(ddof=1)
        down += d <= -c * row.std(ddof=1)
    out = [i for i in range(9) if (up + down)[i] / 25 > 0.05 and abs(up - down)[i] / (up + down)[i] < 0.3]
    assert reject_bt500(votes).rejected == tuple(f"r{i:02d}" for i in out)


@pytest.mark.parametrize("name", SCORES)
def test_every_method_agrees_with_the_mean_where_raters_agree(name):
    rows = [(f"r{r}", f"s{s}", float(s % 5)) for r in range(4) for s in range(7)]
    done = SCORES[name].run(Votes.of(rows))
    assert np.allclose(done.score, [s % 5 for s in range(7)]) and np.allclose(done.deviation, 0)
    assert done.rejected == () and done.votes.tolist() == [4] * 7


def test_agreement_equals_the_definition_over_pairs():
    votes, *_ = planted(seed=5, stimuli=6, raters=4)
    groups = [votes.value[votes.stimulus == s] for s in range(6)]
    groups = [g for g in groups if len(g) > 1]
    everything = np.concatenate(groups)
    n = len(everything)
    observed = sum(((g[:, None] - g) ** 2).sum() / (len(g) - 1) for g in groups) / n
    expected = ((everything[:, None] - everything) ** 2).sum() / (n * (n - 1))
    assert agreement(votes) == pytest.approx(1 - observed / expected)
    assert np.isnan(agreement(Votes.of([("a", "x", 1.0)])))


def test_bad_votes_are_one_sentence():
    with pytest.raises(FewerError, match="no votes yet"):
        Votes.of([])
    with pytest.raises(FewerError, match="no finite number"):
        Votes.of([("a", "b", float("nan"))])


def test_sureal_says_the_same(capsys):
    sureal = pytest.importorskip("sureal.subjective_model", reason="sureal is not installed; it is the oracle only")
    reader = pytest.importorskip("sureal.dataset_reader")
    votes, *_ = planted(seed=6, stimuli=12, raters=6, missing=0.0)
    shown = [
        {"content_id": s, "asset_id": s, "path": str(s), "os": votes.value[votes.stimulus == s].tolist()}
        for s in range(12)
    ]
    refs = [{"content_id": s, "path": str(s)} for s in range(12)]

    class Data:
        ref_videos, dis_videos, ref_score, dataset_name = refs, shown, 5.0, "planted"

    raw = reader.RawDatasetReader(Data)
    kinds = {
        "bt500": "SubjrejMosModel",
        "p910": "MaximumLikelihoodEstimationModelContentObliviousAlternativeProjection",
    }
    theirs = {name: getattr(sureal, kind)(raw).run_modeling() for name, kind in kinds.items()}
    capsys.readouterr()  # it prints every round
    assert np.allclose(theirs["bt500"]["quality_scores"], reject_bt500(votes).score, atol=1e-6)
    assert np.allclose(theirs["p910"]["quality_scores"], p910(votes).score, atol=0.05)
