"""Edges that tasks share: results never replace others unasked, findings are listed by check."""

from __future__ import annotations

from pathlib import Path

import pytest

from fewer.core.errors import FewerError
from fewer.tasks.findings import SHOWN, Finding, finding_lines
from fewer.tasks.folders import check_out, device_of, make_folder


def test_results_do_not_replace_others(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    check_out(tmp_path, ["b.json"], overwrite=False)
    check_out(tmp_path, ["a.json"], overwrite=True)
    with pytest.raises(FewerError, match="exists already"):
        check_out(tmp_path, ["a.json"], overwrite=False)
    with pytest.raises(FewerError, match="is a file"):
        check_out(tmp_path / "a.json", [], overwrite=True)
    with pytest.raises(FewerError, match="make the folder"):
        make_folder(tmp_path / "a.json" / "b")


def test_a_missing_device_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_of("auto").type == "cpu"
    with pytest.raises(FewerError, match="no CUDA device"):
        device_of("cuda")


def test_many_findings_are_cut_short() -> None:
    found = [Finding("odd", "warning", f"case{i}", "is odd", "is left out") for i in range(SHOWN + 2)]
    lines = finding_lines(found, {"odd": ("warning", "something is odd")})
    assert lines[1] == "warning: something is odd (odd)"
    assert lines[2] == "  case0: is odd; --fix: is left out"
    assert lines[-1] == "  and 2 more; see all with --json"
