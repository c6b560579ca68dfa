"""The demo: its stages are those that it says beforehand, and it ends with what to do next."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

import fewer
from fewer.cli import demo
from fewer.core.progress import SILENT, Course
from fewer.engine.settings import Settings
from fewer.presets import preset_values
from tests.tiny import tiny


def test_the_stages_that_are_told_are_those_that_come() -> None:
    """The demo's settings on a tiny network: as many images as it has, and the same stages in the same order."""
    seen: list[str] = []

    class Recorder:
        @contextmanager
        def stage(self, name: str, total: float | None = None):
            seen.append(name)
            yield SILENT

    model, x = tiny("tied")
    few = {"calibration": 4, "sensing": 2, "heldout": 2, "additivity": 1, "backend": "serial"}
    settings = Settings.from_preset("demo", **few)
    fewer.compress(model, x.repeat(6, *[1] * (x.ndim - 1)), "weights=50%", settings=settings, progress=Recorder())
    for model_name in demo.STAGES:
        course = demo.course_of(model_name, settings)
        assert isinstance(course, Course)
        assert [name for name in course.usual if name != "save"] == seen  # nothing is saved here


def test_rows_that_are_left_out_are_no_stages() -> None:
    course = demo.course_of("fewer/dinov2-small", Settings.from_preset("demo", baselines=("lamp",)))
    assert course is not None
    assert [name for name in course.usual if name.startswith("baseline")] == ["baseline LAMP"]
    assert demo.course_of("fewer/dinov2-small", Settings()) is None  # a contest has stages that depend on its rounds
    assert demo.course_of("timm/resnet18", Settings.from_preset("demo")) is None


def test_the_demo_shows_published_methods() -> None:
    assert {"sparsegpt", "wanda"} <= {*preset_values("demo")["baselines"]}


def test_it_ends_with_the_next_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("fewer.data.photos.real_photos", lambda: [])
    monkeypatch.setattr("fewer.cli.work.run_compress", lambda *args, **keywords: 0)
    assert demo.demo() == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert "fewer compress fewer/dinov2-small --images PHOTOS/ --budget weights=50%" in last
