"""Exported files give the model's own output, say what they lose, and are never half-written."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.models.artefact import save_artefact
from fewer.verbs import export as module
from fewer.verbs.export import export


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 32)).eval()


@pytest.fixture
def run(tmp_path):
    model = net()
    mask = torch.zeros(32, 576, dtype=torch.bool)
    mask[:16] = True
    with torch.no_grad():
        model[3].weight.mul_(mask)
    units = [{"name": "3", "pattern": "block:16x16", "sparsity": 0.5, "precision": "int8", "mask": mask}]
    save_artefact(tmp_path / "run", model, units, {"kind": "object", "class": "Sequential"})
    return tmp_path / "run"


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("to", ["onnx", "torch"])
def test_the_file_gives_the_models_output(run, to):
    if to == "onnx" and not all(importlib.util.find_spec(n) for n in ("onnx", "onnxscript", "onnxruntime")):
        pytest.skip("needs the [deploy] extra")
    made = export(run, to, example=X, architecture=net)
    assert made.difference is not None and made.difference < 1e-5
    assert made.path.stat().st_size == made.bytes and made.path.parent == run
    text = " ".join(made.lost)
    assert "1 pruned layers" in text and "layers of int8" in text and "input size is fixed" in text
    with pytest.raises(FewerError, match="--overwrite"):
        export(run, to, example=X, architecture=net)
    assert export(run, to, example=X, architecture=net, overwrite=True).bytes == made.bytes


def test_a_wrong_file_is_not_kept(run, monkeypatch):
    monkeypatch.setattr(module, "_difference", lambda *_: 0.5)
    files = sorted(p.name for p in run.iterdir())
    with pytest.raises(FewerError, match="another output"):
        export(run, "torch", example=X, architecture=net)
    assert sorted(p.name for p in run.iterdir()) == files


def test_bad_input(run, monkeypatch, tmp_path):
    with pytest.raises(FewerError, match="did you mean 'onnx'"):
        export(run, "onx")
    with pytest.raises(FewerError, match="give example="):
        export(run, "torch", architecture=net)
    with pytest.raises(FewerError, match="does not exist"):
        export(run, "torch", example=X, architecture=net, out=tmp_path / "no" / "folder.pt2")
    monkeypatch.setattr(module, "_installed", lambda name: False)
    with pytest.raises(FewerError, match=r"fewer\[deploy\]"):
        export(run, "onnx", example=X, architecture=net)
