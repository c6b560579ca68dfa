"""What every task promises: settings that explain themselves, one-sentence errors, and the whole way on a tiny set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fewer
from fewer.cli.flags import flags_of
from fewer.core.errors import FewerError
from fewer.core.progress import Silent
from fewer.core.strict import StrictSettings
from fewer.engine.settings import Settings
from fewer.tasks import BUILT_IN, TASKS, Task, open_task, register_task, task_for, task_notes, task_of_run
from fewer.tasks.task import Result
from fewer.training.callbacks import Callback
from fewer.training.history import Fit
from fewer.training.settings import LoopSettings
from tests.support.tiny_tasks import TINY

QUICK = Settings(calibration=8, sensing=4, heldout=4, additivity=0, baselines=(), workers=1)


def test_every_task_has_a_tiny_set() -> None:
    own = {"quality"}  # tunes a language model, which needs an extra; tests/tasks/quality goes its whole way
    assert set(BUILT_IN) - own <= set(TINY)


@pytest.mark.parametrize("name", TINY)
def test_settings_explain_themselves(name: str) -> None:
    task = open_task(name)
    assert task.name == name and task.note and task.data
    assert issubclass(task.settings, LoopSettings)
    for model in (task.settings, task.evaluate_settings, task.predict_settings):
        assert issubclass(model, StrictSettings)
        assert model.of({}) == model()  # defaults are valid
        for field, info in model.model_fields.items():
            assert info.description, f"{name}: {field} has no description"
        flags_of(model, "Flags")()


@pytest.mark.parametrize("name", BUILT_IN)
def test_its_networks_are_listed(name: str) -> None:
    task = open_task(name)
    assert all(note for note in task.networks().values())
    choice = task.settings.model_fields.get("network") or task.settings.model_fields["language"]
    assert choice.default in task.networks()
    with pytest.raises(FewerError):  # the default is one of those that the task itself knows
        task.network("no-such-network", {})


@pytest.mark.parametrize("name", TINY)
def test_what_is_missing_is_told_in_a_sentence(name: str, tmp_path: Path) -> None:
    task, nothing = open_task(name), tmp_path / "nothing"
    (tmp_path / "empty").mkdir()
    for act in (
        lambda: task.train(nothing),
        lambda: task.train(tmp_path / "empty"),
        lambda: task.evaluate(nothing, nothing),
        lambda: task.predict(nothing, nothing, out=tmp_path / "out"),
        lambda: task.checkup(nothing),
    ):
        with pytest.raises(FewerError) as told:
            act()
        assert "\n" not in str(told.value)
    assert not task.recognises(nothing) and not (tmp_path / "out").exists()


class _Stop(Exception):
    pass


class _Interrupted(Silent):
    """Stops a training after its third step."""

    def stage(self, name: str, total: int | None) -> Any:
        stage = super().stage(name, total)
        if name != "train":
            return stage
        return _Stage(stage)


class _Stage:
    def __init__(self, inner: Any) -> None:
        self.inner, self.steps = inner, 0

    def __enter__(self) -> _Stage:
        self.inner.__enter__()
        return self

    def __exit__(self, *what: Any) -> None:
        self.inner.__exit__(*what)

    def advance(self, count: int = 1, note: str = "") -> None:
        self.steps += count
        if self.steps >= 3:
            raise _Stop


class _Look(Callback):
    """Counts steps."""

    steps = 0

    def after_step(self, fit: Fit) -> None:
        self.steps += 1


@pytest.fixture(scope="module", params=TINY)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, Path]]:
    """Name, data and run of a task."""
    folder = tmp_path_factory.mktemp(request.param)
    tiny = TINY[request.param]
    data = tiny.tiny_data(folder)
    look = _Look()
    settings = _settings(request.param, folder)
    done = fewer.train(data, task=request.param, out=folder / "run", callbacks=[look], **settings)
    assert isinstance(done, Result) and done.lines()
    assert len(repr(done)) < 3000 and "<" in done._repr_html_()  # type: ignore[attr-defined]
    assert look.steps and (folder / "run" / "history.csv").read_text("utf-8").startswith("step,")
    json.dumps(done.to_dict(), allow_nan=False)
    yield request.param, data, folder / "run"


def _settings(name: str, folder: Path) -> dict[str, Any]:
    given = TINY[name].settings.items()
    return {key: value.format(folder=folder) if isinstance(value, str) else value for key, value in given}


def test_a_dry_run_writes_nothing(made: tuple[str, Path, Path]) -> None:
    name, data, run = made
    before = set(run.parent.iterdir())
    task = open_task(name)
    assert task.plan(data, task.settings.of(_settings(name, run.parent)))
    assert set(run.parent.iterdir()) == before


def test_a_misspelt_option_has_its_neighbour(made: tuple[str, Path, Path]) -> None:
    name, data, _ = made
    with pytest.raises(FewerError, match=r"fewer\.train knows no 'stps'; did you mean 'steps'"):
        fewer.train(data, task=name, stps=3)


def test_a_resumed_training_ends_with_the_same_weights(made: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, data, run = made
    settings = _settings(name, run.parent)
    with pytest.raises(_Stop):
        fewer.train(data, task=name, out=tmp_path / "run", progress=_Interrupted(), **settings)
    fewer.train(data, task=name, out=tmp_path / "run", resume=True, **settings)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    with pytest.raises(FewerError, match="finished"):
        fewer.train(data, task=name, out=tmp_path / "run", resume=True, **settings)


def test_the_run_knows_its_task_and_the_data_do_too(made: tuple[str, Path, Path]) -> None:
    name, data, run = made
    assert task_of_run(run) == name
    assert task_for(None, run=run).name == name == task_for(None, data=data).name


def test_scores_and_predictions(made: tuple[str, Path, Path], tmp_path: Path) -> None:
    _, data, run = made
    result = fewer.evaluate(run, data, out=tmp_path / "scores")
    assert isinstance(result, Result) and result.lines()
    json.loads((tmp_path / "scores/evaluation.json").read_text())
    with pytest.raises(FewerError, match="exists already"):
        fewer.evaluate(run, data, out=tmp_path / "scores")
    done = fewer.predict(run, data, out=tmp_path / "out")
    assert isinstance(done, Result) and done.lines() and any((tmp_path / "out").iterdir())
    json.dumps(done.to_dict(), allow_nan=False)


def test_a_compression_shows_quality_before_and_after(made: tuple[str, Path, Path], tmp_path: Path) -> None:
    name, data, run = made
    small = fewer.compress(str(run), data, "weights=70%", settings=QUICK, quality=data, out=tmp_path / "small")
    shown = [quality for quality in small.report.verdict.quality if quality.labelled]
    assert shown and all(quality.dense is not None for quality in shown)
    assert task_of_run(tmp_path / "small") == name
    assert fewer.evaluate(tmp_path / "small", data).lines()


def test_a_broken_plug_in_does_not_break_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    known = TASKS._known
    monkeypatch.setitem(known, "broken", EntryPoint("broken", "no.such.package:Task", "fewer.tasks"))
    monkeypatch.setitem(known, "other", EntryPoint("other", "json:dumps", "fewer.tasks"))
    notes = task_notes()
    assert ("cannot be imported" in notes["broken"] and "cannot be made" in notes["other"]) or notes["other"]
    assert notes["segment"] == open_task("segment").note
    with pytest.raises(FewerError, match=r"'broken'.*no\.such\.package"):
        open_task("broken")


def test_an_entry_point_is_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    point = EntryPoint("points", "fewer.tasks.segment.task:Segment", "fewer.tasks")
    monkeypatch.setitem(TASKS._known, "points", point)
    assert isinstance(open_task("points"), Task)
    with pytest.raises(FewerError, match="comes with fewer"):
        register_task(type("Mine", (Task,), {"name": "segment"}))
