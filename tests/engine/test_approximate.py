"""``--approximate`` from end to end: sensed, chosen, judged, saved, loaded, and refused where integers cannot go."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fewer
from fewer.approximate.sites import approximations_of
from fewer.core.errors import FewerError
from fewer.engine.approximate import _choose
from fewer.engine.settings import Settings
from fewer.models.vit import VisionTransformer
from tests.support.nets import transformer

QUICK = {
    "calibration": 8, "sensing": 2, "heldout": 3, "backend": "serial", "additivity": 0, "baselines": (),
    "sparsities": (0.3, 0.6), "allocator": "dp", "search": 0,
}  # fmt: skip


def architecture() -> nn.Module:
    return VisionTransformer(16, 4, width=16, depth=1, heads=2, num_classes=5)


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return transformer()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def test_a_run_tells_each_place_and_is_loaded_as_it_was_judged(net, images, tmp_path: Path) -> None:
    settings = Settings.of({**QUICK, "approximate": "best"})
    run = fewer.compress(
        net, images, "weights=70%", settings=settings, out=tmp_path / "run",
        quality=lambda model: {"first": float(model(images[:4]).detach()[0, 0])},
    )  # fmt: skip
    rows = run.report.integers
    assert [r.function for r in rows] == ["layer-norm", "softmax", "layer-norm", "gelu", "layer-norm"]
    assert all(r.distortion == min(r.options.values()) and len(r.options) > 1 for r in rows)
    told = {q.name: q for q in run.report.verdict.quality}
    assert 0 < told["change by integer functions"].value < 0.05
    plain = next(b for b in run.report.baselines if b.name == "plain")
    assert abs(plain.distortion - (run.report.verdict.distortion or 0)) < 0.05 and "first" in plain.quality
    assert "Integers in place of functions" in (tmp_path / "run" / "report.html").read_text()
    again = fewer.load(tmp_path / "run", architecture)
    assert torch.equal(again(images), run.model(images)) and approximations_of(again) == approximations_of(run.model)
    kept = json.loads((tmp_path / "run" / "recipe.json").read_text())["integers"]
    assert kept == approximations_of(run.model) and len(kept) == 5
    with pytest.raises(FewerError, match="in plain torch only"):
        fewer.load(tmp_path / "run", architecture, accelerated=True, example=images[:1])
    with pytest.raises(FewerError, match="in plain torch only"):
        fewer.export(tmp_path / "run", "torch", example=images[:1], architecture=architecture)
    kept["blocks.0.attn"] = {"softmax": "none"}
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    (tmp_path / "run" / "recipe.json").write_text(json.dumps({**recipe, "integers": kept}))
    with pytest.raises(FewerError, match="softmax"):
        fewer.load(tmp_path / "run", architecture)


def test_published_sets_and_budgets_of_energy_choose_what_they_say(net, images) -> None:
    made = fewer.compress(net, images, "weights=70%", settings=Settings.of({**QUICK, "approximate": "i-vit"}))
    assert {(r.function, r.method) for r in made.report.integers} == {
        ("softmax", "shift"), ("gelu", "shift-gelu"), ("layer-norm", "layer-norm"),
    }  # fmt: skip
    cheap = fewer.compress(net, images, "weights=70%", settings=Settings.of({**QUICK, "approximate": "energy=0.6x"}))
    assert len(cheap.report.integers) == 5


def test_a_budget_of_energy_is_kept_with_the_least_distortion() -> None:
    from itertools import product

    from fewer.approximate.sites import Site, methods_for

    kinds = {"softmax": "softmax", "activation": "gelu", "norm": "layer-norm"}
    sites = [Site(kind, kind, kinds[kind], n) for kind, n in zip(kinds, (100, 300, 50), strict=True)]
    rng = np.random.default_rng(0)
    sensed = [{m: float(rng.uniform()) for m in methods_for(s)} for s in sites]
    joules = [{m: s.joules(m) for m in methods_for(s)} for s in sites]
    limit = 0.6 * sum(max(j.values()) for j in joules)
    chosen = _choose("energy=0.6x", sites, sensed)
    best = min(
        (sum(f[m] for f, m in zip(sensed, ms, strict=True)), ms)
        for ms in product(*(methods_for(s) for s in sites))
        if sum(j[m] for j, m in zip(joules, ms, strict=True)) <= limit
    )
    assert sum(j[m] for j, m in zip(joules, chosen, strict=True)) <= limit
    assert tuple(chosen) == best[1]


def test_what_cannot_be_is_told_before_anything_is_measured(net, images) -> None:
    with pytest.raises(FewerError, match="did you mean 'i-bert'"):
        Settings.of({"approximate": "ibert"})
    with pytest.raises(FewerError, match="energy"):
        Settings.of({"approximate": "energy=much"})
    with pytest.raises(FewerError, match="leave --approximate or the budget in latency out"):
        fewer.compress(net, images, "latency=0.5x", settings=Settings.of({**QUICK, "approximate": "best"}))
    plain = nn.Sequential(nn.Flatten(), nn.Linear(768, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(FewerError, match="calls no softmax, GELU, SiLU, LayerNorm or RMSNorm"):
        fewer.compress(plain, images, "weights=70%", settings=Settings.of({**QUICK, "approximate": "best"}))
