"""What all trainings share: the run folder, the plan in words, unfinished work, and the exchange at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from fewer.core.errors import FewerError
from fewer.core.run import RunFolder
from fewer.tasks.runs import Order, Training, carry_out, plain_settings
from fewer.training.settings import LoopSettings


@dataclass
class Plan:
    told: tuple[str, ...] = ("two rows train", "one judges")

    def lines(self) -> list[str]:
        return list(self.told)


@dataclass
class Result:
    number: int
    folder: Path | None = None


def count(plan: Plan, scratch: Path | None) -> Result:
    """Counts to 3, one step a call, and is interrupted on the way where it has a place to go on from."""
    if scratch is None:
        return Result(3)
    place = scratch / "count"
    number = 1 + int(place.read_text()) if place.exists() else 1
    place.write_text(str(number))
    if number < 3:
        raise KeyboardInterrupt
    return Result(number)


def training(fit=count, plan=Plan) -> Training[Plan, Result]:
    def save(run: RunFolder, _plan: Plan, result: Result) -> None:
        run.write_json("report_json", {"number": result.number})

    return Training("toy", plan, lambda plan: {"data": "rows/"}, fit, save)


def run(out: Path | None, fit=lambda plan, scratch: Result(7), **order) -> Result:
    return carry_out(training(fit), LoopSettings(steps=5), Order(out, **order))


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    assert run(None, count, tell=told.append) == Result(3) and told == ["two rows train", "one judges"]
    assert not list(tmp_path.iterdir())


def test_the_folder_holds_what_was_asked_for_and_what_came_out(tmp_path):
    done = run(tmp_path / "run", command="fewer train rows/")
    folder = RunFolder.open(tmp_path / "run")
    assert done.folder == folder.home and folder.read_json("report_json") == {"number": 7}
    config = folder.read_config()
    assert (config["task"], config["data"], config["settings"]["steps"]) == ("toy", "rows/", 5)
    (started,) = folder.read_log()
    assert started["command"] == "fewer train rows/" and started["plan"] == Plan().lines()
    assert not (folder.home / ".scratch").exists()


def test_an_interrupted_training_goes_on_and_a_finished_one_is_not_done_again(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", count)
    with pytest.raises(FewerError, match="already holds a run; give --resume"):
        run(tmp_path / "run", count)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", count, resume=True)
    assert run(tmp_path / "run", count, resume=True).number == 3
    with pytest.raises(FewerError, match=r"the training in .* is finished; give --overwrite to do it again"):
        run(tmp_path / "run", count, resume=True)


def test_the_old_run_stays_until_the_new_one_is_saved_and_the_result_names_its_place(tmp_path):
    run(tmp_path / "run")

    def fit(plan: Plan, scratch: Path | None) -> Result:
        assert RunFolder.open(tmp_path / "run").read_json("report_json") == {"number": 7}
        return Result(8)

    done = run(tmp_path / "run", fit, overwrite=True)
    assert done.folder == tmp_path / "run"
    assert RunFolder.open(tmp_path / "run").read_json("report_json") == {"number": 8}


def test_a_mistake_in_the_data_leaves_no_folder(tmp_path):
    def plan() -> Plan:
        raise FewerError("there are no rows")

    with pytest.raises(FewerError, match="there are no rows"):
        carry_out(training(plan=plan), LoopSettings(), Order(tmp_path / "a" / "run"))
    assert not list(tmp_path.iterdir())


def test_settings_are_kept_without_what_toml_cannot_say():
    kept = plain_settings(LoopSettings(steps=5))
    assert kept["steps"] == 5 and None not in kept.values()
    assert LoopSettings.of(kept) == LoopSettings(steps=5)
