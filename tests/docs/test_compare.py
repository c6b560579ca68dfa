"""The table beside other tools: our own column is held against the program, and every tool has its sources."""

from __future__ import annotations

import re
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "compare.md").read_text("utf-8")


def _tables() -> list[list[list[str]]]:
    """Cells of every table, its head first."""
    found = re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE)
    rows = [[line.strip("|").split("|") for line in table.splitlines()] for table in found]
    return [[[cell.strip() for cell in row] for row in (table[0], *table[2:])] for table in rows]


def _ours(table: int) -> dict[str, str]:
    return {row[0]: row[1] for row in _tables()[table][1:]}


def test_every_row_has_a_cell_for_each_tool_and_every_tool_its_source() -> None:
    first, second, sources = _tables()
    assert all(len(row) == len(table[0]) and all(row) for table in (first, second) for row in table[1:])
    named = {row[0] for row in sources[1:]}
    tools = {*first[0][2:], *second[0][2:]}
    assert {name.split(",")[0] for name in tools} <= named
    assert all(re.search(r"\d+\.\d+\.\d+", row[1]) for row in sources[1:] if row[0] != "all")
    assert re.search(r"on 20\d\d-\d\d-\d\d", PAGE)


def test_our_packages_licence_and_command() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    always = [name for name in project["dependencies"] if "python_version" not in name]
    for table in (0, 1):
        ours = _ours(table)
        assert ours["packages it needs"] == str(len(always))
        assert ours["licence"] == project["license"]
        assert ours["command line"] == ("yes" if project["scripts"] else "no")


def test_what_may_go_here_and_in_which_precisions() -> None:
    from fewer.engine.settings import Settings
    from fewer.verbs.list_names import LISTS

    patterns = set(LISTS["patterns"]())
    words = {"single weights": "unstructured", "n:m": "2:4", "blocks": "block:16x4", "input channels": "columns"}
    told = _ours(0)["what may go"]
    assert told == ", ".join([*words, "tokens", "pixels"])
    assert set(words.values()) <= patterns
    assert {"tokens", "pixels"} <= set(Settings.model_fields)
    assert _ours(0)["precisions"].startswith("bf16, int8; int4")
    for one in ("bf16", "int8", "int4"):
        assert Settings(precisions=(one,)).precisions == (one,)


def test_budgets_here_are_those_of_the_program() -> None:
    from fewer.core.budget import METRICS

    told = _ours(0)["what a budget is"]
    for metric, word in {
        "weights": "weights", "flops": "FLOPs", "size": "bytes", "latency": "milliseconds", "energy": "joules",
        "cycles": "cycles",
    }.items():  # fmt: skip
        assert metric in METRICS and word in told


def test_formats_and_logs_here() -> None:
    from fewer.verbs.export import FORMATS

    told = _ours(1)["formats to export to"]
    assert {"onnx", "torch", "huggingface"} <= {*FORMATS}
    assert all(word in told for word in ("ONNX", "torch.export", "Hub"))
    assert "TensorBoard" in _ours(1)["logs of training"]


def test_nothing_here_calls_home() -> None:
    """No module of ours opens a connection but those that people asked for by name."""
    assert _ours(0)["telemetry"] == _ours(1)["telemetry"] == "none"
    sources = [path.read_text("utf-8") for path in (ROOT / "src" / "fewer").rglob("*.py")]
    assert not [text for text in sources if re.search(r"opentelemetry|google-analytics|openvino_telemetry", text)]
