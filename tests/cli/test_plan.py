"""Plan: another budget from curves alone; a run that has a model keeps its plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewer.cli.plan import contest_note
from tests.cli.conftest import QUICK


@pytest.fixture(autouse=True)
def _sensed(fewer) -> None:
    assert fewer("sense", "net.py:net", "--images=photos", "--out=run", *QUICK).code == 0


def test_several_budgets_hold_at_once(fewer) -> None:
    told = fewer("plan", "run", "--budget=weights=60%,size=70%", "--json")
    plan = json.loads(told.out)
    for metric, share in (("weights", 0.6), ("size", 0.7)):
        assert plan["cost"][metric] <= share * plan["dense"][metric]


def test_a_dry_run_writes_nothing_and_no_budget_is_asked_for(fewer) -> None:
    assert fewer("plan", "run", "--budget=weights=50%", "--dry-run").code == 0 and not Path("run/plan.json").exists()
    assert "which budget?" in fewer("plan", "run").err
    assert "weights=50%" in fewer("plan", "run", "--budget=weights=50").err


def test_what_a_plan_has_not_been_through_is_said() -> None:
    assert "--allocator lamp" in contest_note("auto:lamp") and "another way (magnitude)" in contest_note(
        "auto:magnitude"
    )


def test_a_plan_is_written_over_an_earlier_plan_alone(fewer) -> None:
    Path("coco.json").write_text('{"images": []}', "utf-8")
    curves = Path("run/curves.npz").read_bytes()
    for other, reason in (("coco.json", "coco.json is there and holds no plan"), ("run/curves.npz", "run/curves.npz")):
        told = fewer("plan", "run", "--budget=weights=60%", f"--out={other}", "--overwrite")
        assert told.code == 2 and reason in told.err
    assert Path("coco.json").read_text("utf-8") == '{"images": []}' and Path("run/curves.npz").read_bytes() == curves
    assert fewer("plan", "run", "--budget=weights=60%", "--out=mine.json").code == 0
    assert fewer("plan", "run", "--budget=weights=70%", "--out=mine.json").code == 2
    assert fewer("plan", "run", "--budget=weights=70%", "--out=mine.json", "--overwrite").code == 0
