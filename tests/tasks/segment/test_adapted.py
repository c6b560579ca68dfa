"""What an adaptation tells: what it would do, and that nothing is known of the target without labels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import nn

from fewer.tasks.segment.adapted import AdaptedRun, AdaptPlan


def plan(**settings: Any) -> Any:
    preparation = SimpleNamespace(
        spacing=(1.0, 0.5),
        classes=("background", "disc"),
        dims=2,
        axes="",
        channels=1,
        normalise="inside",
        patch=(32, 32),
    )
    domains = SimpleNamespace(
        preparation=preparation, source=[1, 2, 3], held=[4], unlabelled=[], target=[5, 6], notes=["a note"]
    )
    chosen = SimpleNamespace(**{"method": "contrasts", "without": (), **settings})
    return AdaptPlan(domains, SimpleNamespace(name="dynunet"), chosen, "needs little")  # type: ignore[arg-type]


def test_a_plan_says_who_trains_and_what_is_switched_off() -> None:
    told = "\n".join(plan(without=("curves", "filter")).lines())
    assert "method contrasts, without curves, filter" in told and "3 labelled source scans train, 1 judge" in told
    assert "1 x 0.5 mm" in told and "without target labels" in told and told.endswith("a note")


def test_without_a_test_folder_nothing_is_claimed() -> None:
    stage = SimpleNamespace(best_step=40, history=[{"step": 40, "score": 0.5}])
    adapted = SimpleNamespace(stages={"student": stage}, checks={"edges": 0.8}, members=[])
    run = AdaptedRun(nn.Identity(), plan(), adapted)  # type: ignore[arg-type]
    told = run.lines()
    assert told[0] == "student: step 40 was chosen" and "nothing is known of how good it is" in told[1]
    found = run.to_dict()
    assert found["evaluation"] is None and found["stages"]["student"]["best_step"] == 40
