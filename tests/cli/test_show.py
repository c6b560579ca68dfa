"""Tables and boxes: they say the right things and fit the terminal."""

from __future__ import annotations

import pytest
from rich.console import Console

from fewer.cli.show import match_rows, plan_table, shorten, verdict_box
from fewer.core.plan import Plan
from fewer.reports import RunReport

ROWS = [
    {"layer": "blocks.0.attn.qkv", "kind": "linear", "shape": "1152x384", "positions": "257", "macs": "1.14e+08"},
    {"layer": f"encoder.{'deep.' * 20}conv", "kind": "conv2d groups=16", "shape": "16x1x3x3", "positions": "49"},
    {"layer": "embedding", "kind": "Embedding", "shape": "", "positions": "", "macs": ""},
]
for row, status in zip(ROWS, ["matched", "matched", "skipped: not a layer that can be cut"], strict=True):
    row.setdefault("macs", "1e6")
    row["status"] = status


def _shown(what: object, width: int) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(what)
    text = captured.get()
    assert max(map(len, text.splitlines())) <= width
    return text


def _plan(**options: str) -> Plan:
    units = {
        name.replace("_", "."): {"option": option, "distortion": 0.1, "cost": {"weights": 50.0}}
        for name, option in options.items()
    }
    return Plan.model_validate(
        {
            "curves": "0" * 64,
            "budgets": ["weights=50%"],
            "cost": {"weights": 100.0, "size": 5e6},
            "dense": {"weights": 200.0, "size": 9e6},
            "distortion": 0.2,
            "units": units,
        }
    )


def _report(**changes: object) -> RunReport:
    budget = {"budget": "weights=50%", "metric": "weights", "limit": 100.0, "dense": 200.0, "reached": 99.0}
    values: dict[str, object] = {
        "verdict": {"met": True, "budgets": [budget | {"unit": "weights"}], "distortion": 0.11},
        "model": {"name": "toy"},
        "data": {"heldout": 32, "skipped": [{"file": "a.jpg", "reason": "truncated"}]},
        "baselines": [
            {"name": "dp", "label": "fewer (exact DP)", "ours": True, "distortion": 0.11},
            {"name": "uniform", "label": "Uniform", "distortion": 0.22},
            {"name": "erk", "label": "ERK", "distortion": 0.05, "met": False},
        ],
    }
    return RunReport.from_dict(values | changes)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_match_table_fits_and_says_why(width: int) -> None:
    text = _shown(match_rows(ROWS, width), width)
    assert "blocks.0.attn.qkv" in text
    assert "114 M" in text
    assert "not a layer that can be cut" in " ".join(text.split())
    assert "2 layers can be cut, 1 is left alone" in text


@pytest.mark.parametrize("width", [3, 10, 16, 27])
def test_a_long_name_keeps_its_ends(width: int) -> None:
    name = "encoder.blocks.11.attn.qkv"
    short = shorten(name, width)
    assert len(short) == min(width, len(name))
    assert short == name or (name.startswith(short.split("…")[0]) and name.endswith(short.split("…")[1]))


@pytest.mark.parametrize("width", [60, 80, 140])
def test_the_verdict_says_budget_distortion_rivals_and_where_the_page_is(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = _shown(verdict_box(_report(), "run", "run/report.html"), width)
    flat = " ".join(text.replace("│", " ").split())
    assert "budget met" in text
    assert "99 weights (49.5% of the dense model); limit 100 weights" in flat
    assert "0.110 on 32 held-out images" in flat
    assert "1 unreadable image: a.jpg" in flat
    assert "run/report.html" in text
    assert flat.index("less distortion than the best baseline") < flat.index("99 weights")  # the verdict comes first
    table = flat[flat.index("at the same budget") :]
    order = [table.index(label) for label in ("fewer (exact DP)", "Uniform", "ERK")]
    assert order == sorted(order)
    assert "2.00x" in text
    assert "over the budget" in text


def test_a_missed_budget_is_said_plainly() -> None:
    assert "NOT met" in _shown(verdict_box(_report(verdict={"met": False}), "run", "run/report.html"), 100)


def test_a_time_stands_beside_the_dense_models_and_says_what_both_run_in() -> None:
    note = "batch 1; with OpenVINO, the dense model with onnxruntime"
    time = {"name": "latency in ms", "value": 1.65, "dense": 3.32, "higher_is_better": False, "note": note}
    text = _shown(verdict_box(_report(verdict={"met": True, "quality": [time]}), "run", "run/report.html"), 120)
    assert f"1.65 (dense model 3.32; {note})" in " ".join(text.replace("│", " ").split())


def test_a_plan_by_layer() -> None:
    text = _shown(plan_table(_plan(a="unstructured@0.5", b="dense"), width=80), 80)
    assert "unstructured@0.5" in text
    assert "5MB" in text


def test_only_what_changes_is_listed_beside_another_plan() -> None:
    before, now = _plan(one="dense", two="dense"), _plan(one="dense", two="unstructured@0.5")
    text = _shown(plan_table(now, before, width=80), 80)
    assert "1 of 2 layers change" in text
    assert "two" in text
    assert " one " not in text
