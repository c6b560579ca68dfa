"""The demo of gait recognition, with a stand-in for the compression."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fewer.engine.settings import Settings
from fewer.models.spec import load_model
from fewer.tasks.gait.demo import demo


def test_the_demo_ends_in_a_page_that_compares(tmp_path: Path) -> None:
    asked = []

    def compress(run: str, data: str, budget: str, *, out: Path, settings: dict[str, Any], **_: Any) -> Any:
        asked.append((budget, Settings.of(settings)))  # what the engine would refuse is refused here
        return SimpleNamespace(model=load_model(run).model)

    done = demo(compress, tmp_path / "demo", people=4, frames=10, steps=2)
    assert asked[0][0] == "flops=0.5x" and "simulated" in done.lines()[0] and "mean silhouettes" in done.lines()[0]
    page = done.page.read_text()
    assert "rank-1 at flops=0.5x" in page and "Period and phase" in page and "data:image/png" in page
    told = json.loads((tmp_path / "demo/demo.json").read_text())
    assert "mean silhouettes" in json.dumps(told) and "compressed" in json.dumps(told)
