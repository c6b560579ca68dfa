"""Sparse convolutions on the native kernels: the blocks of each offset multiply the rows that it gathers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import fewer.kernels.accelerate as room
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.cost.subjects import find_subjects, random_mask
from fewer.kernels import native
from fewer.kernels.accelerate import accelerate
from fewer.kernels.candidates import kept_blocks, sparse_candidates
from fewer.kernels.choose import Choice
from fewer.models.sparse import Sites, SparseConv3d, SparseSequential, SubMConv3d
from tests.models.sparse.test_units import Net, scan

pytestmark = pytest.mark.skipif(not native.available(), reason="the native library is not built")


@pytest.fixture
def always_native(monkeypatch):
    """Where there is a native way, it is taken."""

    def choose(runs, baseline, **_):
        name = next((n for n in runs if n != baseline), baseline)
        return Choice(name, dict.fromkeys(runs, 1.0), "asked for by a test")

    monkeypatch.setattr(room, "choose_backend", choose)


def wide() -> Net:
    """Layers whose outputs fill the blocks of 16 rows."""
    net = Net()
    net.body[0], net.body[1] = SubMConv3d(4, 16, 3, key="a"), nn.BatchNorm1d(16)
    net.body[3], net.body[4] = SparseConv3d(16, 32, 3, 2, 1), nn.BatchNorm1d(32)
    net.head = nn.Conv2d(64, 3, 1)
    return net.eval()


def masked(net: nn.Module, masks: dict[str, torch.Tensor]) -> nn.Module:
    twin = copy.deepcopy(net)
    with torch.no_grad():
        for name, mask in masks.items():
            twin.get_submodule(name).weight.mul_(mask)
    return twin


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_a_pruned_model_gives_the_same_on_the_kernels(sparsity, always_native):
    torch.manual_seed(0)
    net = wide()
    masks = {
        n: random_mask(net.get_submodule(n).weight.shape, Option("block:16x4", sparsity)) for n in ("body.0", "body.3")
    }
    fast, rows = accelerate(net, masks, example=(scan(20),), budget_ms=1)
    row = next(r for r in rows if r.name == "body.3")
    assert (row.kind, row.backend) == ("sparse conv", "native")
    assert row.skipped == pytest.approx(sparsity, abs=0.05)
    for scans in ((scan(20),), (scan(31, 1),), (scan(9, 2), scan(40, 3))):  # other numbers of points and scans
        with torch.no_grad():
            assert torch.allclose(fast(*scans), masked(net, masks)(*scans), atol=1e-4)
    assert net.body[0].products is None  # the model itself is as it was


def test_an_offset_without_weights_gathers_nothing():
    torch.manual_seed(0)
    layer = SubMConv3d(4, 16, 3, bias=True)
    layer.bias.data = torch.randn(16)
    mask = torch.zeros(layer.weight.shape, dtype=torch.bool)
    mask[:, :, 1, 1, 1], mask[:, :2, 0, 1, 1] = True, True
    where = nn.functional.pad(scan(30)[:, :3].long(), (1, 0))
    sites = Sites(torch.randn(30, 4), where, (4, 4, 4), 1)
    with torch.no_grad():
        layer.weight.mul_(mask)
        wanted = SparseSequential(layer)(sites).features
        made = sparse_candidates(layer, mask, "fp32")["native fp32"]
        assert sum(one is not None for one in made.products) == 2 and kept_blocks(made) < 0.1
        assert torch.allclose(SparseSequential(made)(sites).features, wanted, atol=1e-5)


def test_times_depend_on_the_pairs_and_stay_those_of_the_scan(always_native):
    torch.manual_seed(0)
    net = Net().eval()
    unit = Unit("body.0", "conv3d", (8, 4, 3, 3, 3))
    (subject,) = find_subjects(net, [unit], (scan(20),))
    pairs = net.body[0].rules.count
    assert f"{pairs} pairs" in subject.key and "20x4" in subject.key
    with torch.no_grad():
        net(scan(33, 1))  # another rulebook in the layer
        wanted = subject.as_it_came()()
        (way,) = subject.ways(None, "fp32").values()
        assert torch.allclose(way(), wanted, atol=1e-5)
