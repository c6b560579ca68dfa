"""Evaluation of runs and of masks: what trained is not scored, and quality is one function of a model."""

from __future__ import annotations

import shutil

import pytest

from fewer.core.errors import FewerError
from fewer.models.spec import load_model
from fewer.tasks.segment.evaluate import evaluate, quality
from fewer.tasks.segment.settings import EvaluateSettings


def test_only_what_did_not_train_is_scored_unless_all_is_asked_for(disc_data, disc_run) -> None:
    assert evaluate(disc_run, disc_data).cases == 2
    assert evaluate(disc_run, disc_data, settings=EvaluateSettings(all_data=True)).cases == 8


def test_masks_are_scored_and_a_page_is_written(disc_data, tmp_path) -> None:
    shutil.copytree(disc_data / "masks", tmp_path / "m")
    found = evaluate(tmp_path / "m", disc_data, out=tmp_path / "page")
    assert found.overall.dice == 1 and (tmp_path / "page" / "evaluation.html").read_text().startswith("<!DOCTYPE")


def test_quality_is_that_of_the_evaluation(disc_data, disc_run) -> None:
    loaded = load_model(str(disc_run))
    judge = quality(loaded, disc_data)
    assert judge(loaded.model) == pytest.approx(evaluate(disc_run, disc_data).measures())
    assert judge.note == "on 2 annotated cases" and "missed structures" in judge.lower_is_better


def test_a_target_that_is_nothing_is_told(disc_data, tmp_path) -> None:
    with pytest.raises(FewerError):
        evaluate(tmp_path / "nothing", disc_data)
