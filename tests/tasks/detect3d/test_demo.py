"""The detector that comes with the package, and the demo that starts from it."""

from __future__ import annotations

import json
from types import SimpleNamespace

from fewer.engine.settings import Settings
from fewer.models.spec import load_model
from fewer.tasks.detect3d import demo as module
from fewer.tasks.detect3d.demo import METHODS, demo, trained_detector


def test_the_kept_detector_is_small_and_says_where_it_comes_from():
    place = trained_detector()
    facts = json.loads((place / "detector.json").read_text())
    loaded = load_model(str(place))
    assert (place / "model.safetensors").stat().st_size < 3e6 and loaded.model.config.classes == ("Car",)
    assert facts["simulated AP R40, 3-D, overlap 0.7"]["moderate"] > 50 and facts["script"].startswith("benchmarks/")
    assert facts["parameters"] == sum(p.numel() for p in loaded.model.parameters())


def test_the_demo_compares_four_ways(tmp_path):
    asked = []

    def compress(run, data, budget, *, out, settings, **_):
        asked.append(Settings.of(settings))  # what the engine would refuse is refused here
        model = load_model(run).model
        plan = SimpleNamespace(cost={"flops": 0.26}, dense={"flops": 1.0})
        return SimpleNamespace(model=model, plan=plan)

    done = demo(compress, tmp_path / "demo", scenes=2, judged=3)
    assert len(asked) == len(METHODS) and asked[2].distance == "plain" and asked[3] != asked[1]
    html = done.page.read_text()
    assert all(name in html for name in METHODS) and "simulated" in html and "From above" in html
    assert "3 simulated scans" in done.lines()[0]
    assert (tmp_path / "demo/unseen/SIMULATED.txt").exists() and module._SCENES not in (1, 2)
