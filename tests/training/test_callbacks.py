"""Files and logs that are written while a training goes on."""

import builtins
from pathlib import Path

import pytest

from fewer.core.errors import FewerError
from fewer.training.callbacks import Callback, TensorBoard, WriteHistory, looking_on, trainings_of
from fewer.training.history import Fit
from fewer.training.loop import fit
from fewer.training.settings import LoopSettings
from tests.training import nets


def test_callbacks_are_called_in_order() -> None:
    class Look(Callback):
        def __init__(self) -> None:
            self.seen: list[str] = []

    for name in ("start", "before_step", "after_step", "validated", "finish"):
        setattr(Look, name, lambda self, fit, name=name: self.seen.append(f"{name} {fit.step}"))
    look = Look()
    fit(nets.net(), nets.loss, LoopSettings(every=2), steps=2, callbacks=[look])
    steps = ["before_step 0", "after_step 1", "before_step 1", "after_step 2"]
    assert look.seen == ["start 0", *steps, "validated 2", "finish 2"]


def test_history_files_follow_the_training(tmp_path: Path) -> None:
    fit(nets.net(), nets.loss, LoopSettings(every=2), steps=4, callbacks=[WriteHistory(tmp_path)])
    assert (tmp_path / "history.csv").read_text().startswith("step,loss\n2,")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "history.svg"]


def test_tensorboard_gets_the_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the [logs] extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    done = fit(nets.net(), nets.loss, LoopSettings(every=2), steps=4, callbacks=[TensorBoard(tmp_path)])
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    events = read.Scalars("loss")
    assert [event.step for event in events] == [2, 4]
    assert [event.value for event in events] == pytest.approx([entry["loss"] for entry in done.history])


class Names(Callback):
    """Notes what is trained."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def start(self, fit: Fit) -> None:
        self.seen.append(fit.name)


def test_who_looks_on_sees_every_training_inside(tmp_path: Path) -> None:
    names = Names()
    with looking_on([names, WriteHistory(tmp_path, plot=False)]):
        fit(nets.net(), nets.loss, LoopSettings(every=2), steps=2)
        with trainings_of("curves"):
            fit(nets.net(), nets.loss, LoopSettings(every=2), steps=2, name="second stage")
    fit(nets.net(), nets.loss, LoopSettings(every=2), steps=2)
    assert names.seen == ["train", "curves-second stage"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history-curves-second-stage.csv", "history.csv"]


def test_a_training_that_was_over_leaves_its_table_too(tmp_path: Path) -> None:
    settings = LoopSettings(every=2)
    fit(nets.net(), nets.loss, settings, steps=4, checkpoint=tmp_path / "point")
    fit(nets.net(), nets.loss, settings, steps=4, checkpoint=tmp_path / "point", callbacks=[WriteHistory(tmp_path)])
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3


def test_scalars_of_a_stage_have_its_name(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the [logs] extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path)
    assert not list(tmp_path.iterdir())  # nothing is written before a training begins
    for name in ("first", "second"):
        fit(nets.net(), nets.loss, LoopSettings(every=2), steps=2, name=name, callbacks=[board])
    tags = set()
    for file in tmp_path.iterdir():
        read = EventAccumulator(str(file))
        read.Reload()
        tags |= {*read.Tags()["scalars"]}
    assert tags == {"first/loss", "second/loss"}


def test_without_tensorboard_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: object, **more: object):
        if name.startswith("torch.utils.tensorboard"):
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(FewerError, match=r"pip install .*\[logs\]"):
        TensorBoard(tmp_path)
