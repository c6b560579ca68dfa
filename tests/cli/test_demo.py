"""The demo: its stages are those that it says beforehand, and it ends with what to do next."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

import fewer
from fewer.cli import demo
from fewer.cli.setting_flags import SettingFlags
from fewer.core.errors import FewerError
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
        course = demo.course_of(model_name, settings, timed=False)
        assert isinstance(course, Course)
        usual = [name for name in course.usual if name != "save"]  # nothing is saved here
        rows = [name for name in usual if not name.startswith("try ")]
        assert rows == [name for name in seen if not name.startswith("try ")]
        tried = [name for name in seen if name.startswith("try ")]  # which plans are close, the network decides
        assert {"try dp", "try lamp"} <= {*tried} & {*usual}
        assert seen.index("contest") < seen.index("try dp") < seen.index("evaluate")


def test_rows_that_are_left_out_are_no_stages() -> None:
    course = demo.course_of("fewer/dinov2-small", Settings.from_preset("demo", baselines=("lamp",)))
    assert course is not None
    assert not [name for name in course.usual if name.startswith("baseline")]  # LAMP's model is the contest's
    assert demo.course_of("timm/resnet18", Settings.from_preset("demo")) is None


def test_a_stage_that_is_passed_over_counts_no_more() -> None:
    course = Course({"try dp": 40.0, "try bold": 40.0, "apply": 10.0, "save": 10.0}, lambda: 0.0)
    course.begin("try dp")
    assert course.where() == "stage 1 of 4"
    course.begin("apply")
    assert course.where() == "stage 2 of 3"
    course.part(1.0)
    assert course.done == pytest.approx(5 / 6)


def test_the_demo_shows_published_methods() -> None:
    assert {"sparsegpt", "wanda"} <= {*preset_values("demo")["baselines"]}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Parts that do nothing but say that they were called."""
    calls: list[str] = []

    def first(*args: object, **keywords: object) -> int:
        calls.append("first")
        return 0

    def second(*args: object, **keywords: object) -> None:
        calls.append("second")
        raise FewerError("the machine is too busy")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("fewer.data.photos.real_photos", lambda: [])
    monkeypatch.setattr("fewer.cli.work.run_compress", first)
    monkeypatch.setattr("fewer.cli.demo_time.time_part", second)
    return calls


def test_a_part_about_time_that_fails_spoils_nothing(quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.demo() == 0 and quick == ["first", "second"]
    assert "left out: the machine is too busy" in capsys.readouterr().err


def test_a_budget_in_time_has_one_part(quick: list[str]) -> None:
    assert demo.demo(budget="latency=0.5x") == 0 and quick == ["first"]


def test_it_ends_with_the_next_command(quick: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.demo() == 0
    last = capsys.readouterr().out.rstrip().splitlines()[-1]
    assert "fewer compress fewer/dinov2-small --images PHOTOS/ --budget weights=50%" in last


def test_an_interrupted_second_part_does_not_repeat_the_first(
    quick: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, x = tiny("tied")
    few = {"calibration": 4, "sensing": 2, "heldout": 2, "additivity": 0, "baselines": (), "backend": "serial"}
    settings = Settings.from_preset("demo", **few)
    data = x.repeat(6, *[1] * (x.ndim - 1))
    run = fewer.compress(model, data, "weights=50%", settings=settings, out=tmp_path / demo.FOLDER)
    config = tmp_path / demo.FOLDER / "config.toml"
    name = next(line for line in config.read_text("utf-8").splitlines() if line.startswith("model"))
    text = config.read_text("utf-8").replace(name, 'model = "fewer/dinov2-small"')
    config.write_text(text, "utf-8")
    flags = SettingFlags(calibration=4, sensing=2, heldout=2, additivity=0, baselines=[], backend="serial")
    assert demo.demo(settings=flags) == 0 and quick == ["second"]
    assert f"{run.report.verdict.distortion:.3g}" in capsys.readouterr().out
    assert demo.demo() == 0 and quick == ["second", "first", "second"]  # other settings: begun anew


@pytest.mark.parametrize(
    ("name", "flag"), [("select", "--budget=size=4MB"), ("gait", "--budget=size=4MB"), ("private", "--allocator=dp")]
)
def test_a_demo_refuses_what_it_would_ignore(fewer, name: str, flag: str) -> None:
    """``fewer demo select --budget size=4MB`` ran for its own labels without a word about the budget."""
    told = fewer("demo", name, flag)
    assert told.code == 2 and f"{flag.partition('=')[0]} has no meaning for the demo {name}" in told.err
