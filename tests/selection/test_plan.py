"""The plan of a label budget: a file that a person can read, and that says what is wrong with it."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fewer.core.errors import FewerError
from fewer.selection.plan import Asked, QueuePlan, Round, Skipped

TEXT = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)  # names with others are skipped
NAMES = TEXT.filter(lambda name: name.strip("./") and not name.startswith("/") and ".." not in name.split("/"))
PLANS = st.builds(
    QueuePlan,
    pool=TEXT,
    features=TEXT,
    images=st.integers(0, 9),
    skipped=st.lists(st.builds(Skipped, name=TEXT, reason=TEXT), max_size=2),
    rounds=st.just([Round(round=1, method="random", budget="labels=2", seed=0, chosen=2, pool=9, seconds=0.5)]),
    queue=st.lists(st.builds(Asked, round=st.just(1), rank=st.integers(1, 9), name=NAMES, why=TEXT), max_size=3),
    labelled=st.dictionaries(NAMES, st.none() | TEXT, max_size=3),
)


@given(PLANS)
def test_any_names_and_reasons_come_back(plan):
    assert QueuePlan.from_json(plan.to_json()) == plan
    rows = list(csv.DictReader(io.StringIO(plan.to_csv(), newline="")))
    assert [row["name"] for row in rows] == [asked.name for asked in plan.queue]
    waiting = [asked for asked in plan.queue if asked.name not in plan.labelled]
    assert plan.waiting() == waiting and sum(row["status"] == "waiting" for row in rows) == len(waiting)


def test_each_image_of_the_queue_has_a_line_of_its_own():
    queue = [Asked(round=1, rank=rank, name=f"{rank}.png", why="far from all") for rank in (1, 2)]
    text = QueuePlan(pool="p", features="f", images=2, rounds=[], queue=queue).to_json()
    assert sum('"name": "' in line for line in text.splitlines()) == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"images": "many"}, "images"),
        ({"quueue": []}, "quueue"),
        ({"queue": [{"round": 1, "rank": 1, "name": "a"}]}, "why"),
    ],
)
def test_a_damaged_plan_names_what_is_wrong(tmp_path, change, says):
    plan = json.loads(QueuePlan(pool="p", features="f", images=1, rounds=[], queue=[]).to_json())
    (tmp_path / "plan.json").write_text(json.dumps(plan | change))
    with pytest.raises(FewerError, match=says) as error:
        QueuePlan.load(tmp_path / "plan.json")
    assert "\n" not in str(error.value) and "plan.json" in str(error.value)


def test_the_table_is_written_before_the_plan(tmp_path, monkeypatch):
    """A queue with a plan counts as finished, so the plan comes last."""
    monkeypatch.setattr(QueuePlan, "to_json", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        QueuePlan(pool="p", features="f", images=1, rounds=[], queue=[]).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["queue.csv"]
