"""A plan can be read, edited and trusted: every mistake in it is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
from core_curves import smooth_curves

from fewer.core.allocation.allocate import allocate
from fewer.core.errors import FewerError
from fewer.core.plan import Plan

curves = smooth_curves(6, 11)
allocation = allocate(curves, "weights=50%,latency=0.9x")
plan = Plan.from_allocation(curves, "weights=50%,latency=0.9x", allocation)


def test_round_trip_and_predictions(tmp_path):
    back = Plan.load(plan.save(tmp_path / "plan.json"))
    assert back == plan and back.to_json() == plan.to_json()
    assert back.choice(curves).tolist() == allocation.choice.tolist()
    assert back.cost == allocation.cost and back.distortion == allocation.distortion
    assert sum(u.cost["weights"] for u in back.units.values()) + 3 == pytest.approx(back.cost["weights"])
    assert back.budgets == ["weights=50%", "latency=0.9x"]


def test_one_unit_per_line_in_model_order():
    lines = [line for line in plan.to_json().splitlines() if '"option"' in line]
    assert len(lines) == 6
    assert [line.split('"')[1] for line in lines] == [f"layer{i}" for i in range(6)]
    assert json.loads(plan.to_json())["schema_version"] == 1


def edited(change) -> str:
    data = json.loads(plan.to_json())
    change(data)
    return json.dumps(data)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(unitz={}), "unknown key 'unitz'; did you mean 'units'"),
        (
            lambda d: d["units"]["layer0"].update(optoin="dense"),
            "unknown key 'optoin' in units.layer0; did you mean 'o",
        ),
        (lambda d: d["units"]["layer0"].pop("option"), "the key 'option' is missing in units.layer0"),
        (lambda d: d["units"]["layer0"].update(option="blok:16x4"), "units.layer0.option.*did you mean 'block:16x4'"),
        (lambda d: d.pop("curves"), "the key 'curves' is missing"),
        (lambda d: d.update(schema_version=2), "'schema_version' is wrong"),
        (lambda d: d.update(distortion="much"), "'distortion' is wrong"),
        (lambda d: d.update(distortion=float("nan")), "'distortion' is wrong"),
        (lambda d: d.update(budgets=["wieghts=5%"]), "did you mean 'weights'"),
        (lambda d: d["units"].update(layer0=5), "'units.layer0' is wrong"),
    ],
)
def test_mistakes(change, says):
    with pytest.raises(FewerError, match=says) as error:
        Plan.from_json(edited(change), "run/plan.json")
    assert str(error.value).startswith("run/plan.json: ") and "\n" not in str(error.value)


def test_text_that_is_no_plan(tmp_path):
    with pytest.raises(FewerError, match="not valid JSON"):
        Plan.from_json("{")
    with pytest.raises(FewerError, match="the key 'schema_version' is there twice"):
        Plan.from_json('{"schema_version": 1, "schema_version": 1}')
    with pytest.raises(FewerError, match="the plan"):
        Plan.from_json("[]")
    with pytest.raises(FewerError, match="does not exist"):
        Plan.load(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FewerError, match="not a text file"):
        Plan.load(tmp_path / "b.json")


def test_integers_are_fine_where_numbers_are_wanted():
    assert Plan.from_json(edited(lambda d: d.update(distortion=1))).distortion == 1.0


def test_a_plan_is_held_against_its_curves():
    with pytest.raises(FewerError, match="made from other curves"):
        plan.choice(smooth_curves(6, 11, seed=5))
    with pytest.raises(FewerError, match="the unit 'layer5', which the model does not have"):
        plan.choice(smooth_curves(5, 11), same_curves=False)
    with pytest.raises(FewerError, match="no option for the unit 'layer6'"):
        plan.choice(smooth_curves(7, 11), same_curves=False)
    changed = Plan.from_json(edited(lambda d: d["units"]["layer2"].update(option="unstructured@0.55")))
    with pytest.raises(FewerError, match=r"'layer2' was not sensed with option 'unstructured@0\.55'; did you mean"):
        changed.choice(curves)


def test_an_edit_by_hand_is_looked_up_again():
    changed = Plan.from_json(edited(lambda d: d["units"]["layer2"].update(option="dense"))).refreshed(curves)
    choice = allocation.choice.copy()
    choice[2] = 0
    assert changed.choice(curves).tolist() == choice.tolist()
    assert changed.distortion == curves.distortion(choice)
    assert changed.units["layer2"].distortion == 0.0
    assert changed.cost["weights"] == curves.total("weights", choice)
    assert changed.method == "edited"
    assert "weights=50%" not in changed.budgets  # it was tight before


def test_options_and_numpy_do_not_leak_into_the_file():
    assert plan.options()["layer0"] == curves.curves[0].options[allocation.choice[0]]
    assert not any(isinstance(v, np.generic) for v in [*plan.cost.values(), *plan.dense.values(), plan.distortion])
