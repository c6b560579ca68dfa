"""The stopwatch with a clock that is made up: a slow phase of the machine must not show in the ratios."""

from __future__ import annotations

import itertools
import time

import pytest
import torch

from fewer.cost.stopwatch import Stopwatch


@pytest.fixture
def machine(monkeypatch):
    """A clock in nanoseconds that work moves; ``pace`` says how slow the machine is in each round."""

    class Machine:
        now = 0.0
        pace = itertools.repeat(1.0)
        slow = 1.0

        def work(self, milliseconds):
            self.now += milliseconds * 1e6 * self.slow

        def reference(self):
            self.work(2.0)
            self.slow = next(self.pace)

    made = Machine()
    watch = Stopwatch()
    monkeypatch.setattr(watch, "_clock", lambda: made.now)
    monkeypatch.setattr(watch, "_reference", made.reference)
    return made, watch


def test_a_ratio_is_time_over_the_time_of_the_reference(machine):
    made, watch = machine
    found = watch.time({"a": lambda: made.work(3.0), "b": lambda: made.work(0.1)}, budget_ms=0)
    assert found["a"].ratio == pytest.approx(1.5) and found["b"].ratio == pytest.approx(0.05)
    assert watch.reference_ms == pytest.approx(2.0)
    assert found["a"].rounds == 5 and not found["a"].noisy


def test_a_phase_in_which_everything_is_slow_does_not_count(machine):
    made, watch = machine
    made.pace = itertools.cycle([1.0] * 8 + [1.9] * 8)
    found = watch.time({"a": lambda: made.work(3.0)}, budget_ms=0, rounds=40)
    assert found["a"].ratio == pytest.approx(1.5, rel=0.01)
    assert watch.reference_ms == pytest.approx(2.0)  # that of the undisturbed machine


def test_a_small_model_is_timed_as_users_run_it_again_and_again(machine):
    """The reference in between empties the caches, so the first calls of a candidate are slow and do not count."""
    made, watch = machine
    reference, warm = watch._reference, [0]

    def emptied():
        warm[0] = 0
        reference()

    def run():
        made.work(3.0 if warm[0] >= 2 else 9.0)
        warm[0] += 1

    watch._reference = emptied
    assert watch.time({"a": run}, budget_ms=0, warm=True)["a"].ratio == pytest.approx(1.5)
    assert watch.time({"a": run}, budget_ms=0)["a"].ratio == pytest.approx(4.5)


def test_too_wide_a_spread_is_measured_on_and_said(machine):
    made, watch = machine
    times = itertools.cycle([1.0, 1.0, 1.0, 4.0, 5.0, 6.0])
    found = watch.time({"a": lambda: made.work(next(times))}, budget_ms=0, rounds=6)
    assert found["a"].rounds == 12 and found["a"].noisy


def test_real_products_have_the_ratio_of_their_work():
    torch.set_num_threads(1)
    x, small, large = torch.randn(64, 256), torch.randn(256, 256), torch.randn(256, 256 * 8)
    found = Stopwatch().time({"small": lambda: x @ small, "large": lambda: x @ large}, budget_ms=20)
    assert 3 < found["large"].ratio / found["small"].ratio < 20


def test_models_in_several_runtimes_wait_until_the_threads_of_the_last_one_rest(monkeypatch):
    """A runtime whose thread goes on spinning for 50 ms: neither the reference nor the next model runs beside it."""
    now = spent = until = 0.0
    beside: list[str] = []

    def sleep(seconds: float) -> None:
        nonlocal now, spent
        spent += min(seconds, max(0.0, until - now))
        now += seconds

    def spinner() -> None:
        nonlocal until
        until = now + 0.05

    def note(name: str) -> None:
        if now < until:
            beside.append(name)

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "process_time", lambda: spent)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    watch = Stopwatch(runtimes=True)
    monkeypatch.setattr(watch, "_reference", lambda: note("reference"))
    watch.time({"a": spinner, "b": lambda: note("b")}, budget_ms=0, rounds=3)
    # the first calls come before the timing, one after the other
    assert beside == ["b", "b", "reference"]


def test_one_thread_waits_for_nothing(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it waited"))
    Stopwatch(runtimes=True).time({"a": lambda: None}, budget_ms=0)
