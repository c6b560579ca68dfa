"""What every method promises, over every tiny model: the budget by counting zeros, loading, determinism, no trace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fewer.engine.run import CompressedRun
from fewer.engine.settings import Settings
from fewer.models.matching import match
from fewer.patterns import to_matrix
from fewer.reports import RunReport
from fewer.verbs.compress import compress
from tests.tiny import TINY, tiny

PATTERNS = {"unstructured": 0.5, "block:4x4": 0.6, "2:4": 0.75}
METHODS = [(estimator, schedule) for estimator in ("measured", "taylor") for schedule in ("one-shot", "iterative")]


def images_for(name: str) -> torch.Tensor:
    _, x = tiny(name)
    return torch.cat([x, 0.5 * x + 0.1, -x])[:6]


def settings_for(pattern: str, estimator: str, schedule: str) -> Settings:
    return Settings(
        pattern=pattern,
        estimator=estimator,  # type: ignore[arg-type]
        schedule=schedule,  # type: ignore[arg-type]
        rounds=2,
        sparsities=(0.3, 0.6, 0.9),
        calibration=4,
        sensing=2,
        heldout=2,
        batch=2,
        probes=1,
        search=0,
        additivity=0,
        baselines=(),
        backend="serial",
    )


def run_on(name: str, pattern: str, estimator: str, schedule: str, **kwargs) -> CompressedRun:
    model, _ = tiny(name)
    budget = f"weights={PATTERNS[pattern]:.0%}"
    return compress(model, images_for(name), budget, settings=settings_for(pattern, estimator, schedule), **kwargs)


def check_pattern(matrix: torch.Tensor, pattern: str) -> None:
    """Zeros stand where the pattern lets them."""
    nonzero = matrix != 0
    rows, cols = matrix.shape
    if pattern == "2:4" and not bool(nonzero.all()):
        assert all(bool((nonzero[:, c : c + 4].sum(1) <= 2).all()) for c in range(0, cols - 3, 4))
    if pattern == "block:4x4":
        for r in range(0, rows, 4):
            for c in range(0, cols, 4):
                tile = nonzero[r : r + 4, c : c + 4]
                assert bool(tile.all()) or not bool(tile.any())


@pytest.mark.parametrize(("estimator", "schedule"), METHODS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("name", TINY)
def test_every_method_on_every_model(name, pattern, estimator, schedule):
    model, x = tiny(name)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    settings = settings_for(pattern, estimator, schedule)
    run = compress(model, images_for(name), f"weights={PATTERNS[pattern]:.0%}", settings=settings)

    units = match(model, x[:1]).units
    weights = {u.name: run.model.get_submodule(u.name).weight.detach() for u in units}
    left = sum(int((w != 0).sum()) for w in weights.values())
    dense = sum(u.numel for u in units)
    assert left <= PATTERNS[pattern] * dense
    assert left <= run.plan.cost["weights"] <= PATTERNS[pattern] * dense
    for unit, weight in weights.items():
        assert not bool(weight[~run.masks[unit]].any())
        check_pattern(to_matrix(weight), pattern)
    assert run.report.verdict.met and 0 < run.report.verdict.distortion < float("inf")

    # the original is as it was, in every respect
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == flags
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    # what is not a unit's weight, a bias or a BatchNorm statistic is not touched
    touched = {f"{n}.{a}" for u in units for n in (u.name, *u.aliases) for a in ("weight", "bias")}
    for key, value in run.model.state_dict().items():
        if key not in touched and "running_" not in key:
            assert torch.equal(value, before[key]), key
    # the report says the same when it is read again
    data = json.loads(run.report.to_json())
    assert RunReport.from_json(run.report.to_json()).to_json() == run.report.to_json()
    assert left <= data["verdict"]["budgets"][0]["reached"] == sum(int(m.sum()) for m in run.masks.values())


@pytest.mark.parametrize("estimator", ["measured", "taylor"])
@pytest.mark.parametrize("name", ["conv", "vit", "tied"])
def test_the_same_seed_gives_the_same_plan_and_model(name, estimator):
    one, two = (run_on(name, "unstructured", estimator, "one-shot") for _ in range(2))
    assert one.plan.to_json() == two.plan.to_json()
    assert all(torch.equal(v, two.model.state_dict()[k]) for k, v in one.model.state_dict().items())


LOADER = """
import sys, json
from pathlib import Path
import torch
import fewer
from safetensors.torch import load_file
from tests.tiny import TINY
torch.set_num_threads(1)
for folder in sorted(Path(sys.argv[1]).iterdir()):
    if not folder.is_dir():
        continue
    name = folder.name.split("@")[0]
    model = fewer.load(folder, TINY[name][0])
    assert not model.training
    wanted = load_file(folder.parent / (folder.name + ".check"))
    state = model.state_dict()
    for key, value in wanted.items():
        if key != "@input" and not key.startswith("@output"):
            assert torch.equal(state[key], value), (folder.name, key)
    with torch.no_grad():
        # a copy: products may round differently on memory that a file was mapped to, which is not aligned
        output = model(wanted["@input"].clone())
    from fewer.distortion.outputs import output_tensors
    for i, tensor in enumerate(output_tensors(output)):
        assert torch.equal(tensor, wanted[f"@output{i}"]), (folder.name, i)
    print(folder.name)
"""


def test_every_model_loads_bit_equal_in_a_fresh_process(tmp_path):
    from safetensors.torch import save_file

    from fewer.distortion.outputs import output_tensors

    wanted = []
    for i, name in enumerate(TINY):
        pattern = list(PATTERNS)[i % len(PATTERNS)]
        folder = tmp_path / f"{name}@{i}"
        run = run_on(name, pattern, "taylor", "one-shot", out=folder)
        assert {p.name for p in folder.iterdir() if not p.name.startswith(".")} >= {
            "config.toml",
            "plan.json",
            "curves.npz",
            "model.safetensors",
            "recipe.json",
            "report.html",
            "report.json",
        }
        RunReport.from_json((folder / "report.json").read_text())
        x = images_for(name)
        with torch.no_grad():
            outputs = output_tensors(run.model(x))
        check = {k: v.clone().contiguous() for k, v in run.model.state_dict().items()}
        check |= {"@input": x, **{f"@output{j}": t.clone() for j, t in enumerate(outputs)}}
        save_file(check, tmp_path / f"{name}@{i}.check")
        wanted.append(folder.name)
    root = Path(__file__).parents[2]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(root / "src"), str(root), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(tmp_path)], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == sorted(wanted)
