"""A run folder in the bench: the dense peers, the compressed model as plain torch runs it, and the accelerated one."""

from __future__ import annotations

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.kernels import native
from fewer.kernels.linear import BlockSparseLinear
from fewer.models.artefact import save_artefact
from fewer.models.load import load
from fewer.models.spec import load_model
from fewer.verbs.bench import bench

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 1024), nn.ReLU(), nn.Linear(1024, 16))
    return net, {"input_size": (3, 16, 16)}
"""


@pytest.fixture
def run(tmp_path):
    """A saved model: the first layer at 15/16 block sparsity in bf16, the second dense."""
    (tmp_path / "net.py").write_text(NET)
    loaded = load_model(f"{tmp_path / 'net.py'}:make")
    model = loaded.model
    mask = (torch.arange(64 * 48).view(64, 48) % 16 == 0).repeat_interleave(16, 0).repeat_interleave(16, 1)
    with torch.no_grad():
        model[1].weight.mul_(mask)
    units = [
        {"name": "1", "pattern": "block:16x16", "sparsity": 0.9375, "precision": "bf16", "mask": mask},
        {"name": "3", "pattern": "dense", "sparsity": 0.0, "precision": "fp32", "mask": None},
    ]
    save_artefact(tmp_path / "run", model, units, loaded.source, preprocess=loaded.preprocess)
    return tmp_path / "run"


def test_the_bench_shows_the_accelerated_run_by_itself(run):
    x = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    result = bench(run, x, vs="torch-fp32", threads=[1], rounds=5)
    plain, fast = result.rows[1:]
    assert fast.name == f"{plain.name} accelerated" and (plain.status, fast.status) == ("ok", "ok")
    assert (plain.precision, fast.precision) == ("fp32", "bf16")
    # it is the compressed model in both rows, which differs from the dense one much more than bf16 does
    assert plain.relative_error > 0.1 and fast.relative_error == pytest.approx(plain.relative_error, rel=0.02)
    if native.available():
        # 15/16 of three quarters of the work is gone; a busy machine does not make up for that
        assert min(fast.wall_ms) < min(plain.wall_ms)


def test_a_loaded_run_can_be_accelerated(run):
    if not native.available():
        pytest.skip("the native library is not built")
    x = torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    plain, fast = load(run), load(run, accelerated=True, example=x)
    sparse = fast.get_submodule("1")
    assert isinstance(sparse, BlockSparseLinear) and sparse.precision == "bf16" and sparse.packed().density < 0.07
    with torch.inference_mode():
        torch.testing.assert_close(fast(x), plain(x), rtol=0.02, atol=0.02)


def test_without_an_input_size_an_example_is_asked_for(tmp_path):
    units = [{"name": "", "pattern": "dense", "sparsity": 0.0, "precision": "fp32", "mask": None}]
    source = {"kind": "object", "class": "Linear"}
    save_artefact(tmp_path, torch.nn.Linear(4, 4), units, source)
    with pytest.raises(FewerError, match="give example="):
        load(tmp_path, lambda: torch.nn.Linear(4, 4), accelerated=True)
