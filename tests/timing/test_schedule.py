"""The order of the measurement and what a fake clock says it measures."""

from __future__ import annotations

import pytest

from fewer.timing.sample import sample, warm_up
from fewer.timing.schedule import Samples, choose_rounds, interleave, lead_for, repeats_for
from fewer.timing.spread import paired_ratio, spread


class Runner:
    def __init__(self, name, log, answers=None):
        self.name, self.log, self.answers = name, log, iter(answers) if answers else None

    def time(self, repeats, lead):
        self.log.append(self.name)
        answer = next(self.answers) if self.answers else (1.0, 1.0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_rounds_take_turns():
    log = []
    rounds = []
    interleave([Runner(name, log) for name in "ABC"], [10.0] * 3, 3, rounds.append)
    assert "".join(log) == "ABCABCABC"
    assert rounds == [1, 2, 3]


def test_every_runner_gets_its_own_repeats_and_lead():
    seen = []

    class Seeing(Runner):
        def time(self, repeats, lead):
            seen.append((repeats, lead))
            return 1.0, 1.0

    interleave([Seeing("A", []), Seeing("B", [])], [0.5, 300.0], 1)
    assert seen == [(40, 1), (1, 0)]
    assert (repeats_for(0.0), lead_for(99.0), lead_for(101.0)) == (1000, 1, 0)


def test_values_stay_with_their_runner_and_round():
    log = []
    a, b = interleave([Runner("A", log, [(1, 10), (2, 20)]), Runner("B", log, [(3, 30), (4, 40)])], [9.0, 9.0], 2)
    assert (a.wall_ms, a.cpu_ms, b.wall_ms, b.cpu_ms) == ([1, 2], [10, 20], [3, 4], [30, 40])


def test_a_failure_leaves_the_others_alone():
    log = []
    runners = [Runner("A", log), Runner("B", log, [(1, 1), RuntimeError("out of memory")]), Runner("C", log)]
    a, b, c = interleave(runners, [9.0] * 3, 3)
    assert "".join(log) == "ABCABCAC"
    assert b.error == "out of memory" and len(a.wall_ms) == len(c.wall_ms) == 3


def test_ctrl_c_keeps_whole_rounds_only():
    log = []
    answers = [(1, 1), (1, 1), KeyboardInterrupt()]
    with pytest.raises(KeyboardInterrupt) as caught:
        interleave([Runner("A", log), Runner("B", log, answers)], [9.0] * 2, 5)
    samples: list[Samples] = caught.value.samples  # type: ignore[attr-defined]
    assert [len(s.wall_ms) for s in samples] == [2, 2]


@pytest.mark.parametrize(
    ("estimates", "seconds", "rounds"),
    [([500.0, 500.0], 20.0, 20), ([5000.0], 20.0, 7), ([0.01], 20.0, 50), ([50.0], 2.0, 20)],
)
def test_rounds_fill_the_time(estimates, seconds, rounds):
    # 50 ms: no repeats but one untimed call, 100 ms per round
    assert choose_rounds(estimates, seconds) == rounds


def test_a_sample_counts_the_timed_calls_only():
    wall, cpu = Clock(), Clock()

    def call():
        wall.now += 0.004
        cpu.now += 0.001

    assert sample(call, repeats=5, lead=3, wall=wall, cpu=cpu) == pytest.approx((4.0, 1.0))
    assert wall.now == pytest.approx(8 * 0.004)


def test_warm_up_ends_when_times_had_a_chance_to_settle_and_reports_the_quickest():
    clock = Clock()
    costs = iter([5.0, 0.2, 0.05, 0.05, 0.05])

    def call():
        clock.now += next(costs)

    assert warm_up(call, wall=clock) == pytest.approx(50.0)
    assert len(list(costs)) == 2  # three calls, and 0.3 s had long passed
    clock = Clock()
    calls = []

    def quick():
        calls.append(1)
        clock.now += 0.01

    warm_up(quick, wall=clock)
    assert 30 <= len(calls) <= 31


def test_spread_against_numbers_worked_out_by_hand():
    found = spread([10.0, 14.0, 12.0, 11.0, 13.0])
    assert (found.median, found.low, found.high, found.best) == (12.0, 11.0, 13.0, 10.0)
    assert found.relative == pytest.approx(2 / 12) and found.noisy
    assert not spread([10.0, 10.1, 10.2]).noisy


def test_a_ratio_is_taken_round_by_round():
    reference, values = [2.0, 20.0, 4.0], [1.0, 10.0, 1.0]  # the ratio of the medians would be 4
    assert paired_ratio(reference, values) == 2.0
