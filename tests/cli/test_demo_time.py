"""The demo's part about time: a folder of its own, stages of its own names, and a table with the quickest first."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import fewer
from fewer.cli.demo_time import BUDGET, fast_folder, is_over, time_part
from fewer.cli.show import say, times_box
from fewer.core.errors import UnmetError
from fewer.core.progress import SILENT, in_shares
from fewer.core.unit import Unit
from fewer.engine.options import unit_options
from fewer.engine.settings import Settings
from fewer.timing.result import BenchResult, Row
from tests.tiny import tiny


class Recorder:
    """Notes the names of stages."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def stage(self, name: str, total: float | None = None):
        self.seen.append(name)
        yield SILENT


def _row(name: str, label: str, ms: float, error: float, **more: Any) -> Row:
    facts = {"runtime": "torch", "precision": "fp32", "kind": "peer", "threads": 1} | more
    return Row(name=name, label=label, wall_ms=[ms] * 5, cpu_ms=[ms] * 5, relative_error=error, **facts)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Compress a tiny network by weights and invent times: what is tested is how both are put together."""
    calls: list[dict[str, Any]] = []
    model, x = tiny("tied")
    real = fewer.compress

    def compress(_model: Any, _images: Any, budget: str, **options: Any) -> Any:
        calls.append({"budget": budget, **options})
        few = {"calibration": 4, "sensing": 2, "heldout": 2, "additivity": 0, "baselines": (), "allocator": "dp"}
        where = {name: options[name] for name in ("out", "overwrite", "resume", "progress")}
        return real(model, x.repeat(6, *[1] * (x.ndim - 1)), "weights=50%", settings=Settings(**few), **where)

    def bench(run: Path, *, progress: Any, **options: Any) -> BenchResult:
        with in_shares(progress, "bench") as tell:
            tell("torch", 0.5)
            tell("fewer", 1.0)
        ours = {"kind": "extra", "runtime": "fewer", "precision": "int8"}
        rows = [
            _row("torch-fp32", "torch fp32", 20.0, 0.0),
            _row(f"fewer {run}", "fewer", 30.0, 0.1, kind="extra"),
            _row(f"fewer {run} accelerated", "fewer", 2.0, 0.1, **ours),
        ]
        return BenchResult(model="tiny", input_shapes=[[1, 3]], rounds=5, rows=rows)

    monkeypatch.setattr(fewer, "compress", compress)
    monkeypatch.setattr(fewer, "bench", bench)
    return calls


def test_a_folder_of_its_own_that_is_replaced_once_it_is_finished(asked: list[dict], tmp_path: Path) -> None:
    progress, out = Recorder(), tmp_path / "demo"
    assert not is_over(out)
    found = time_part("a model", [], out, 3, progress)
    assert is_over(out) and found.folder == fast_folder(out) and (found.folder / "report.html").is_file()
    assert {name.split()[0] for name in progress.seen} == {"fast"} and progress.seen[-1] == "fast bench"
    time_part("a model", [], out, None, SILENT)
    assert [(call["overwrite"], call["resume"], call["settings"].seed) for call in asked] == [
        (False, True, 3),
        (True, False, 0),
    ]
    assert asked[0]["budget"] == BUDGET


def test_the_table_shows_the_quickest_first_and_leaves_zeros_in_torch_out(
    asked: list[dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = time_part("a model", [], tmp_path / "demo", None, SILENT)
    assert [row.ms for row in found.runtimes.rows] == [2.0, 20.0, 30.0]
    say(times_box(found.report, found.runtimes, "demo-fast"))
    told = capsys.readouterr().out
    lines = [line for line in told.splitlines() if "kernels" in line or "torch" in line]
    assert len(lines) == 2 and "10" in lines[0] and "0.01" in lines[0]  # times faster, distortion
    assert "plain torch" not in told
    assert found.to_dict()["runtimes"]["rows"][0]["ms"] == 2.0


def test_where_the_budget_cannot_be_met_the_least_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    def compress(_model: Any, _images: Any, budget: str, **_options: Any) -> Any:
        asked.append(budget)
        raise UnmetError("too little", least[len(asked) - 1])

    monkeypatch.setattr(fewer, "compress", compress)
    least = [0.61, 0.95]
    with pytest.raises(UnmetError):
        time_part("a model", [], tmp_path / "demo", None, SILENT)
    assert asked == [BUDGET, "latency=0.63x"]
    asked, least = [], [0.95]
    with pytest.raises(UnmetError):  # nothing to show
        time_part("a model", [], tmp_path / "demo", None, SILENT)


def test_nothing_is_cut_in_the_part_about_time() -> None:
    units = [Unit("qkv", "linear", (4608, 1536)), Unit("patch", "conv2d", (384, 3, 14, 14))]
    settings = Settings.from_preset("demo-fast")
    assert {str(o) for options in unit_options(units, settings).values() for o in options} == {"dense", "dense/int8"}
