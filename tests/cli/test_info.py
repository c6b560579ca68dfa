"""Info: a model with how its images are made, a run in any state, and folders that are neither."""

from __future__ import annotations

import json

from tests.cli.conftest import QUICK


def test_a_model_says_how_its_images_are_made(fewer) -> None:
    told = fewer("info", "net.py:net")
    assert "3 layers can be cut" in told.out and "16" in told.out
    found = json.loads(fewer("info", "net.py:net", "--json").out)
    assert found["preprocess"]["input_size"] == [3, 16, 16] and len(found["layers"]) >= 3


def test_a_folder_that_is_no_run_and_one_that_is_not_there(fewer) -> None:
    assert fewer("info", "photos").code == 2
    told = fewer("info", "runs/")
    assert told.code == 2 and "the run folder runs/ does not exist" in told.err


def test_a_folder_for_the_hub_is_finished_though_it_has_no_report(fewer) -> None:
    assert fewer("compress", "net.py:net", "--images=photos", "--out=run", "--budget=weights=60%", *QUICK).code == 0
    assert fewer("export", "run", "--to=huggingface", "--out=hub", "--trust=net.py").code == 0
    told = fewer("info", "hub")
    assert told.code == 0 and "finished; it has no report" in told.out
    told = fewer("report", "hub")
    assert told.code == 2 and "fewer apply" not in told.err
