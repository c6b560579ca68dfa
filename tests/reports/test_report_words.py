"""The sentences: they say what the numbers say, also when the numbers are not good for us."""

from __future__ import annotations

import pytest
import report_fixtures

from fewer.reports.compression import words
from fewer.reports.compression.data import Additivity, Recovery, RunReport, Search, Sensing
from fewer.reports.compression.words import (
    additivity_sentence,
    best_baseline,
    comparison_sentence,
    lost_points,
    ranking_sentence,
    recovery_sentence,
    search_sentence,
    sensing_sentence,
    verdict_sentence,
)


def verdict(ours, *rivals, met=True):
    """The sentence for our distortion beside rivals of (label, distortion)."""
    rows = [{"name": label.lower(), "label": label, "distortion": value} for label, value in rivals]
    return verdict_sentence(
        RunReport.from_dict({"verdict": {"met": met, "distortion": ours}, "model": {"name": "m"}, "baselines": rows})
    )


def test_ours_is_better():
    told = verdict(0.1, ("SparseGPT", 0.14), ("ERK", 0.3))
    assert "1.40x less distortion than the best baseline, SparseGPT (0.140)" in told


def test_ours_is_worse_is_said_plainly():
    told = verdict(0.2, ("SparseGPT", 0.1), ("ERK", 0.3))
    assert "not the best result: SparseGPT has 2.00x less distortion (0.100)" in told


@pytest.mark.parametrize(("ours", "rival"), [(0.1, 0.104), (0.104, 0.1)])
def test_level_is_neither_won_nor_lost(ours, rival):
    told = verdict(ours, ("ERK", rival))
    assert "level with" in told
    assert "less distortion" not in told


def test_zeros_need_no_ratio():
    assert "distortion 0" in verdict(0.0, ("ERK", 0.1))
    assert "not the best" in verdict(0.1, ("ERK", 0.0))
    assert "same distortion" in verdict(0.0, ("ERK", 0.0))


def test_no_rival_no_comparison():
    assert verdict(0.1) == "The budget is met. On held-out images the distortion is 0.100."


def test_a_rival_over_budget_is_no_rival():
    values = report_fixtures.missed()
    values["baselines"][3]["met"] = False
    report = RunReport.from_dict(values)
    assert best_baseline(report).name == "sparsegpt"
    assert "ERK" not in verdict_sentence(report)


def test_a_missed_budget_says_which_and_by_how_much():
    told = verdict_sentence(report_fixtures.report("missed"))
    assert told.startswith("The budget is not met: weights at 49.4% of the dense model, over the limit of 30%.")
    assert "Met: size=48MB." in told


def test_weights_are_those_of_the_layers_that_can_be_cut():
    values = report_fixtures.missed()
    budget = next(one for one in values["verdict"]["budgets"] if one["metric"] == "weights")
    values["model"]["parameters"] = budget["dense"] / 0.45  # the others are in a recurrent layer, say
    told = verdict_sentence(RunReport.from_dict(values))
    assert "weights at 49.4% of the layers that can be cut, which hold 45% of the parameters, over the limit" in told


def test_ranking_names_a_winner_that_is_not_ours():
    assert "which is not ours" in ranking_sentence(report_fixtures.report("missed"))
    assert "not ours" not in ranking_sentence(report_fixtures.report("realistic"))


def test_lost_points_of_the_frontier_are_named():
    values = report_fixtures.realistic()
    assert lost_points(RunReport.from_dict(values)) == ""
    values["frontier"]["baselines"]["erk"][2]["measured"] = 1e-4
    assert lost_points(RunReport.from_dict(values)) == "ERK is lower at 40%"


@pytest.mark.parametrize(
    ("joint", "predicted", "spearman", "words"),
    [
        (0.2, 0.1, 0.95, ["2.00x", "more together", "almost as they turn out"]),
        (0.1, 0.1, 0.8, ["1.00x", "good forecast", "mostly right"]),
        (0.05, 0.1, 0.3, ["0.50x", "less together", "rough start"]),
        (0.0, 0.0, None, ["distortion of 0", "it is 0."]),
    ],
)
def test_additivity_in_words(joint, predicted, spearman, words):
    told = additivity_sentence(Additivity(joint=joint, sum=predicted, spearman=spearman), joint)
    for word in words:
        assert word in told


def test_a_forecast_that_the_heldout_images_contradict_is_not_called_good():
    exact = Additivity(joint=0.001, sum=0.001, spearman=0.9)
    off = additivity_sentence(exact, 0.067)
    assert "good forecast" not in off and "the forecast is off" in off and "too hopeful" in off and "67" in off
    assert "good forecast" in additivity_sentence(exact, 0.0011)
    assert "good forecast" not in additivity_sentence(exact)  # nothing was held against it


def test_search_in_words():
    assert "5% less" in search_sentence(Search(kept=True, before=0.2, after=0.19, evaluations=10))
    assert search_sentence(Search(kept=False, before=0.2, after=0.21)).startswith("Kept off, because it did not help")
    assert "gained nothing" in search_sentence(Search(kept=True, before=0.0, after=0.0))


def test_sensing_in_words():
    told = sensing_sentence(Sensing(forwards=2000, forward_equivalents=100, paper_forwards=1000, seconds=2))
    assert "100 full forward passes in 2.0 s" in told
    assert "10x as many" in told
    assert sensing_sentence(Sensing(seconds=2)) == "Measuring all curves took 2.0 s."


@pytest.mark.parametrize(
    ("before", "after", "best", "words"),
    [
        (0.4, 0.1, 9, "won back 75% of what was lost: the distortion went from 0.400 to 0.100"),
        (0.4, 0.5, 9, "did not help on held-out images"),
        (0.4, 0.4, 0, "the model stayed as it was"),
        (0.0, 0.0, 0, "the model stayed as it was"),
    ],
)
def test_what_a_recovery_won(before, after, best, words):
    made = Recovery(before=before, after=after, seconds=600, steps=9, best_step=best, images=2, choosing=1)
    assert words in recovery_sentence(made)


def test_least_squares_that_were_kept_changed_the_model_also_where_no_step_helped():
    made = Recovery(before=0.4, after=0.5, seconds=60, steps=9, best_step=0, refitted=200, images=2, choosing=1)
    assert "did not help on held-out images" in recovery_sentence(made)


def test_a_trained_model_is_not_compared_with_methods_that_were_not_trained():
    values = report_fixtures.realistic()
    trained = comparison_sentence(RunReport.from_dict(values))
    assert "Training" in trained and "baseline" not in trained
    del values["recovery"]
    assert "Training" not in comparison_sentence(RunReport.from_dict(values))


@pytest.mark.parametrize(
    ("quality", "said"),
    [
        ([{"name": "top-1 agreement", "value": 0.875}], "on 28 of 32 held-out images"),
        ([{"name": "feature cosine", "value": 0.97123}], "The feature cosine with the dense model is 0.971."),
        ([{"name": "top-1", "value": 0.7, "dense": 0.75, "labelled": True}], "top-1 is 0.700 after and 0.750 before."),
    ],
)
def test_whether_it_is_good_enough_is_said_with_what_is_known(quality, said):
    values = {"verdict": {"met": True, "quality": quality}, "model": {"name": "toy"}, "data": {"heldout": 32}}
    told = words.enough_words(RunReport.from_dict(values))
    assert said in told and ("Only labels tell" in told) == ("labelled" not in quality[0])


def test_few_labels_cannot_tell_two_models_apart():
    row = {"name": "top-1", "value": 0.7, "dense": 0.75, "labelled": True, "dense_interval": [0.6, 0.85]}
    for ends, said in (([0.55, 0.8], "overlap"), ([0.3, 0.4], "are apart")):
        values = {"verdict": {"met": True, "quality": [row | {"interval": ends}]}, "model": {"name": "toy"}}
        assert said in words.enough_words(RunReport.from_dict(values))
    assert words.enough_words(RunReport.from_dict({"verdict": {"met": True}, "model": {"name": "toy"}})) == ""
