"""Shapes of the rate against their formulas, and where a training ends."""

import math

import pytest

from fewer.core.errors import FewerError
from fewer.training.schedule import SHAPES, Pace, Schedule, schedule_of
from fewer.training.settings import LoopSettings


def test_shapes_follow_their_formulas() -> None:
    for part in (0.0, 0.3, 0.6, 0.99, 1.0):
        wanted = {
            "polynomial": (1 - part) ** 0.9,
            "cosine": (1 + math.cos(math.pi * part)) / 2,
            "steps": 1.0 if part < 0.6 else 0.1 if part < 0.85 else 0.01,
            "constant": 1.0,
        }
        assert set(wanted) == set(SHAPES)
        for shape, value in wanted.items():
            assert Schedule(steps=10, shape=shape).factor(part) == pytest.approx(value, abs=1e-15)


@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_warm_up_rises_in_a_line_and_meets_the_shape(shape: str) -> None:
    schedule = Schedule(steps=10, shape=shape, warm_up=0.2, warm_up_from=0.5)
    assert [schedule.factor(part) for part in (0.0, 0.1, 0.2)] == pytest.approx([0.5, 0.75, 1.0])
    assert schedule.factor(0.6) == pytest.approx(Schedule(steps=10, shape=shape).factor(0.5))


@pytest.mark.parametrize(
    "wrong",
    [{}, {"steps": 1, "seconds": 1.0}, {"steps": 0}, {"seconds": 0.0}, {"steps": 1, "warm_up": 1.0},
     {"steps": 1, "shape": "cosin"}],
)  # fmt: skip
def test_schedules_that_make_no_sense(wrong: dict) -> None:
    with pytest.raises(FewerError):
        Schedule(**wrong)


def test_settings_describe_a_schedule() -> None:
    how = LoopSettings(time=5.0, rate_shape="cosine", rate_warm_up=0.1)
    assert schedule_of(how) == Schedule(seconds=5.0, shape="cosine", warm_up=0.1)
    assert schedule_of(how, 3) == Schedule(steps=3, shape="cosine", warm_up=0.1)


def test_a_time_leaves_room_for_the_slowest_step_and_validation() -> None:
    now = [0.0]
    pace = Pace(Schedule(seconds=10), lambda: now[0])
    pace.validating = 2.0
    pace.note_step(2, 1.5)
    now[0] = 6.2
    assert not pace.is_over(3) and pace.part(3) == pytest.approx(6.2 / 7.8)
    now[0] = 6.4
    assert pace.is_over(3)
    assert pace.affordable(50) == 1 and Pace(Schedule(steps=3)).affordable(50) == 3
