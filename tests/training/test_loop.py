"""The loop: killed and resumed equals uninterrupted, it stops when it should, and constraints hold at every step."""

import random
import signal
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fewer.core.errors import FewerError
from fewer.formats.integers import rounded
from fewer.training.average import Average
from fewer.training.callbacks import Callback
from fewer.training.checkpoint import Checkpoint
from fewer.training.constrained import Constrained, Held
from fewer.training.history import Fit
from fewer.training.loop import Special, Validation, fit
from fewer.training.optimise import Player
from fewer.training.schedule import Schedule
from fewer.training.settings import LoopSettings
from tests.training import nets

STEPS = 7
KINDS = {
    "adamw": LoopSettings(every=3, average=0.9),
    "sgd": LoopSettings(every=2, optimiser="sgd", momentum=0.9, learning_rate=1e-2, accumulate=2),
    "relative-adam": LoopSettings(every=3, optimiser="relative-adam", rate_shape="cosine", rate_warm_up=0.2),
}


class Kill(Callback):
    """Interrupts the training at one of its points, once."""

    def __init__(self, point: str, step: int) -> None:
        self.point, self.at = point, step

    def _reached(self, point: str, fit: Fit) -> None:
        if point == self.point and fit.step == self.at:
            raise KeyboardInterrupt

    def before_step(self, fit: Fit) -> None:
        self._reached("before", fit)

    def after_step(self, fit: Fit) -> None:
        self._reached("after", fit)

    def validated(self, fit: Fit) -> None:
        self._reached("validated", fit)


def run(kind: str, checkpoint: Path | None = None, kill: Kill | None = None) -> tuple[dict, Fit]:
    model = nets.net()
    count = 0

    def objective(net: nn.Module, step: int) -> torch.Tensor:
        nonlocal count
        found = nets.loss(net, step)  # BatchNorm has moved on already
        if kill is not None and kill.point == "inside" and step == kill.at:
            raise KeyboardInterrupt
        return found

    def validate(net: nn.Module) -> float:
        nonlocal count
        count += 1
        if kill is not None and kill.point == "validation" and count == 1 + kill.at // KINDS[kind].every:
            raise KeyboardInterrupt
        return nets.score(net)

    done = fit(
        model, objective, KINDS[kind], steps=STEPS, validate=validate, callbacks=[kill] if kill else [],
        checkpoint=checkpoint and Checkpoint(checkpoint, "k"),
    )  # fmt: skip
    return model.state_dict(), done


WHOLE: dict[str, tuple[dict, Fit]] = {}


@given(
    kind=st.sampled_from(list(KINDS)),
    point=st.sampled_from(["before", "inside", "after", "validation", "validated"]),
    step=st.integers(0, STEPS),
)
@settings(max_examples=8, deadline=None)
def test_killed_and_resumed_equals_uninterrupted(kind: str, point: str, step: int) -> None:
    if kind not in WHOLE:
        WHOLE[kind] = run(kind)
    wanted, whole = WHOLE[kind]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "checkpoint.safetensors"
        try:
            run(kind, place, Kill(point, step))
        except KeyboardInterrupt:
            assert [path.name for path in Path(folder).iterdir()] == [place.name]
        state, again = run(kind, place)
    assert nets.same(state, wanted)
    assert again.history == whole.history
    assert again.best is not None and whole.best is not None and nets.same(again.best, whole.best)
    assert again.best_step == whole.best_step


@pytest.mark.apart
def test_a_signal_within_a_step_waits_for_its_end(tmp_path: Path) -> None:
    place = tmp_path / "checkpoint.safetensors"

    class Interrupted(torch.optim.SGD):
        def step(self, closure=None):
            signal.raise_signal(signal.SIGINT)
            return super().step(closure)

    model = nets.net()
    player = Player("", nets.loss, make=lambda parameters: Interrupted(parameters, lr=0.01))
    with pytest.raises(KeyboardInterrupt):
        fit(model, [player], LoopSettings(), steps=3, checkpoint=place)
    plain = Player("", nets.loss, make=lambda parameters: torch.optim.SGD(parameters, lr=0.01))
    done = fit(model, [plain], LoopSettings(), steps=3, checkpoint=place)
    other = nets.net()
    fit(other, [plain], LoopSettings(), steps=3)
    assert done.step == 3 and nets.same(model.state_dict(), other.state_dict())


def test_the_global_generators_are_as_before() -> None:
    model = nets.net()
    before = torch.get_rng_state(), random.getstate()
    fit(model, nets.loss, steps=2)
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == random.getstate()


def test_it_ends_in_time_with_the_last_validation_inside() -> None:
    now = [0.0]

    def slow(model: nn.Module, step: int) -> torch.Tensor:
        now[0] += 1.0
        return nets.loss(model, step)

    def validate(model: nn.Module) -> float:
        now[0] += 3.0
        return nets.score(model)

    done = fit(
        nets.net(), slow, schedule=Schedule(seconds=100, shape="cosine"), special=Special(clock=lambda: now[0]),
        validate=Validation(validate, at_start=True, times=10),
    )  # fmt: skip
    assert 95 <= now[0] <= 100 and 70 <= done.step <= 90 and done.stopped == "schedule"
    assert 3 <= len(done.history) <= 6 and done.history[-1]["step"] == done.step
    assert done.times == sorted(done.times) and done.times[-1] <= 100


def test_time_spent_outlives_an_interruption(tmp_path: Path) -> None:
    now, place = [0.0], tmp_path / "c.safetensors"

    def slow(model: nn.Module, step: int) -> torch.Tensor:
        now[0] += 1.0
        return nets.loss(model, step)

    schedule = Schedule(seconds=20)
    with pytest.raises(KeyboardInterrupt):
        fit(
            nets.net(),
            slow,
            schedule=schedule,
            checkpoint=place,
            callbacks=[Kill("after", 8)],
            special=Special(clock=lambda: now[0]),
        )
    now[0] = 1000.0
    done = fit(nets.net(), slow, schedule=schedule, checkpoint=place, special=Special(clock=lambda: now[0]))
    assert 1010 <= now[0] <= 1012 and 18 <= done.step <= 20


def test_it_stops_early_without_a_better_validation(tmp_path: Path) -> None:
    scores = iter([1.0, 3.0, 2.0, 2.0, 2.0, 9.0])
    place = tmp_path / "c.safetensors"
    how = LoopSettings(every=2, patience=3)
    done = fit(nets.net(), nets.loss, how, steps=40, validate=lambda model: next(scores), checkpoint=place)
    assert (done.step, done.best_step, done.stopped) == (10, 4, "patience")
    again = fit(nets.net(), nets.loss, how, steps=40, validate=lambda model: 99.0, checkpoint=place)
    assert again.step == 10 and again.best_score == 3.0


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_constraints_hold_after_every_step(precision: str) -> None:
    model = nets.net()
    mask = torch.rand(8, 4, generator=torch.Generator().manual_seed(0)) > 0.5
    model[0].weight.data.mul_(mask)
    weights = Constrained(model, {"0": Held(mask, precision)})
    weights.install()

    class Look(Callback):
        seen = 0

        def after_step(self, fit: Fit) -> None:
            weight = model[0].weight.detach()
            assert bool((weight[~mask] == 0).all())
            assert precision == "fp32" or torch.equal(weight, rounded(weight, precision))
            self.seen += 1

    look, before = Look(), model[0].weight.detach().clone()
    fit(model, nets.loss, LoopSettings(learning_rate=0.05), steps=8, constraints=weights, callbacks=[look])
    assert look.seen == 8 and not torch.equal(model[0].weight, before)


def test_a_mean_teacher_is_the_moving_average_of_its_student() -> None:
    model = nets.net()
    average = Average(model, decay=0.8)
    teacher = average.teacher().eval()
    seen: list[torch.Tensor] = []

    class Look(Callback):
        def after_step(self, fit: Fit) -> None:
            seen.append(model[0].weight.detach().double().clone())

    def objective(student: nn.Module, step: int) -> torch.Tensor:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return nets.loss(student, step) + (student(x) - teacher(x)).square().mean()

    fit(model, objective, steps=12, average=average, callbacks=[Look()])
    mean = torch.zeros_like(seen[0])
    for step, weight in enumerate(seen, 1):
        kept = min(0.8, 1 - 1 / step)
        mean = kept * mean + (1 - kept) * weight
    assert torch.allclose(teacher[0].weight.double(), mean, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_without_a_validation_the_average_is_the_best_state() -> None:
    model = nets.net()
    average = Average(model, decay=0.9)
    done = fit(model, nets.loss, steps=5, average=average)
    assert done.best is not None and torch.equal(done.best["0.weight"], average.values[0])
    assert not torch.equal(model[0].weight, done.best["0.weight"])
    done.load_best(model)
    assert torch.equal(model[0].weight, average.values[0])


def test_a_lower_error_can_be_better_and_the_start_counts() -> None:
    model = nets.net()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    errors = iter([1.0, 2.0, 3.0])
    judge = Validation(lambda model: next(errors), "lower", at_start=True)
    done = fit(model, nets.loss, LoopSettings(every=2), steps=4, validate=judge)
    done.load_best(model)
    assert done.best_step == 0 and not done.improved and nets.same(model.state_dict(), start)


def test_several_scores_of_which_the_first_counts() -> None:
    done = fit(nets.net(), nets.loss, steps=1, validate=lambda model: {"dice": 0.5, "surface": 2})
    assert done.history[0] | {"loss": 0.0} == {"step": 1.0, "loss": 0.0, "score": 0.5, "dice": 0.5, "surface": 2.0}
    assert done.best_score == 0.5


def test_a_checkpoint_is_written_every_so_many_seconds(tmp_path: Path) -> None:
    place, now, written = tmp_path / "c.safetensors", [0.0], []

    class Look(Callback):
        def before_step(self, fit: Fit) -> None:
            now[0] += 4.0
            written.append(place.exists())

    fit(
        nets.net(), nets.loss, steps=5, callbacks=[Look()], special=Special(clock=lambda: now[0]),
        checkpoint=Checkpoint(place, seconds=10.0, at_validations=False),
    )  # fmt: skip
    assert written == [False, False, False, True, True]


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "c.safetensors"
    fit(nets.net(), nets.loss, steps=2, checkpoint=Checkpoint(place, "one"))
    with pytest.raises(FewerError, match="other settings"):
        fit(nets.net(), nets.loss, steps=2, checkpoint=Checkpoint(place, "two"))
    with pytest.raises(FewerError, match="does not fit"):
        fit(nn.Linear(4, 1), nets.loss, steps=2, checkpoint=Checkpoint(place, "one"))
    place.write_bytes(place.read_bytes()[:100])
    with pytest.raises(FewerError, match="cannot be read"):
        fit(nets.net(), nets.loss, steps=2, checkpoint=Checkpoint(place, "one"))


def test_relative_steps_stay_relative_to_the_weights_of_the_start(tmp_path: Path) -> None:
    """What a later process starts from may be other weights: a repair before the first step is not made twice."""
    how, place = KINDS["relative-adam"], tmp_path / "checkpoint.safetensors"

    def repaired(factor: float) -> nn.Module:
        net = nets.net()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.mul_(factor)
        return net

    whole = repaired(3.0)
    fit(whole, nets.loss, how, steps=6)
    with pytest.raises(KeyboardInterrupt):
        fit(repaired(3.0), nets.loss, how, steps=6, checkpoint=place, callbacks=[Kill("before", 3)])
    again = repaired(1.0)
    assert fit(again, nets.loss, how, steps=6, checkpoint=place).step == 6
    for a, b in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
