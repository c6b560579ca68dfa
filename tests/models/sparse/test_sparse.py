"""Sparse convolution against dense convolution on the filled-in grid: values, gradients, pairs and state dicts."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewer.core.errors import FewerError
from fewer.models.sparse import (
    Sites,
    SparseConv3d,
    SparseInverseConv3d,
    SparseSequential,
    SubMConv3d,
    strided_rules,
    submanifold_rules,
)
from fewer.models.sparse.product import gathered_rows
from fewer.patterns import to_matrix

SHAPE = (5, 7, 6)


def some_sites(count: int = 60, channels: int = 3, samples: int = 2, seed: int = 0) -> Sites:
    generator = torch.Generator().manual_seed(seed)
    cells = torch.randperm(samples * 5 * 7 * 6, generator=generator)[:count]
    where = torch.stack([cells // 210, cells // 42 % 5, cells // 6 % 7, cells % 6], 1)
    features = torch.randn(count, channels, generator=generator, dtype=torch.float64)
    return Sites(features, where, SHAPE, samples)


def occupied(sites: Sites) -> torch.Tensor:
    return sites.with_features(torch.ones(len(sites), 1, dtype=torch.float64)).dense()


@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 5), (3, 1, 1)])
@pytest.mark.parametrize("dilation", [1, 2])
def test_submanifold_values_and_gradients(kernel, dilation):
    sites = some_sites()
    layer = SubMConv3d(3, 4, kernel, dilation=dilation, bias=True).double()
    features = sites.features.clone().requires_grad_()
    got = SparseSequential(layer)(sites.with_features(features))
    dense = features.detach().clone().requires_grad_()
    twin = layer.weight.detach().clone().requires_grad_()
    grid = sites.with_features(dense).dense()
    padding = tuple((k - 1) // 2 * dilation for k in kernel)
    wanted = F.conv3d(grid, twin, layer.bias.detach(), padding=padding, dilation=dilation) * occupied(sites)
    assert torch.allclose(got.dense(), wanted)
    probe = torch.randn_like(wanted)
    (got.dense() * probe).sum().backward()
    (wanted * probe).sum().backward()
    assert torch.allclose(features.grad, dense.grad)
    assert torch.allclose(layer.weight.grad, twin.grad)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((3, 3, 3), 2, 1), ((3, 3, 3), 2, (0, 1, 1)), ((3, 1, 1), (2, 1, 1), 0), (2, 2, 0)],
)
def test_strided_values_and_gradients(kernel, stride, padding):
    sites = some_sites()
    layer = SparseConv3d(3, 4, kernel, stride, padding).double()
    features = sites.features.clone().requires_grad_()
    got = SparseSequential(layer)(sites.with_features(features))
    dense = features.detach().clone().requires_grad_()
    twin = layer.weight.detach().clone().requires_grad_()
    wanted = F.conv3d(sites.with_features(dense).dense(), twin, stride=stride, padding=padding)
    assert got.dense().shape == wanted.shape
    assert torch.allclose(got.dense(), wanted)
    probe = torch.randn_like(wanted)
    (got.dense() * probe).sum().backward()
    (wanted * probe).sum().backward()
    assert torch.allclose(features.grad, dense.grad)
    assert torch.allclose(layer.weight.grad, twin.grad)


def test_inverse_is_a_transposed_convolution_on_the_old_sites():
    sites = some_sites()
    down = SparseConv3d(3, 4, 3, 2, 1, key="down").double()
    up = SparseInverseConv3d(4, 2, 3, key="down").double()
    got = SparseSequential(down, up)(sites)
    assert torch.equal(got.where, sites.where)
    middle = F.conv3d(sites.dense(), down.weight, stride=2, padding=1)
    # a transposed convolution holds its weight as (in, out, kernel)
    extra = [n - ((m - 1) * 2 - 2 + 3) for n, m in zip(SHAPE, middle.shape[2:], strict=True)]
    wanted = F.conv_transpose3d(middle, up.weight.transpose(0, 1), stride=2, padding=1, output_padding=extra)
    assert torch.allclose(got.dense(), wanted * occupied(sites))


def test_pairs_against_brute_force():
    sites = some_sites(40, samples=2)
    places = {tuple(row) for row in sites.where.tolist()}
    wanted = sum(
        (b, z + dz, y + dy, x + dx) in places
        for b, z, y, x in places
        for dz, dy, dx in itertools.product((-1, 0, 1), repeat=3)
    )
    assert submanifold_rules(sites, (3, 3, 3)).count == wanted
    rules = strided_rules(sites, (3, 3, 3), (2, 2, 2), (1, 1, 1))
    reached = [
        (b, oz, oy, ox)
        for b, z, y, x in places
        for oz, oy, ox in itertools.product(range(3), range(4), range(3))
        if all(0 <= i - 2 * o + 1 < 3 for i, o in ((z, oz), (y, oy), (x, ox)))
    ]
    assert rules.count == len(reached)
    assert {tuple(row) for row in rules.where.tolist()} == set(reached)


def test_gathered_rows_times_the_matrix_is_the_convolution():
    sites = some_sites()
    layer = SparseConv3d(3, 4, 3, 2, 1).double()
    out = SparseSequential(layer)(sites).features
    rows = gathered_rows(sites.features, layer.rules)
    assert torch.allclose(rows @ to_matrix(layer.weight).T, out)
    some = torch.tensor([4, 0])
    assert torch.allclose(gathered_rows(sites.features, layer.rules, some), rows[some])
    assert layer.positions * 27 == layer.rules.count


def test_layouts_of_spconv_load():
    layer = SubMConv3d(4, 6, 3, bias=False)
    for order in ((0, 2, 3, 4, 1), (2, 3, 4, 1, 0)):
        twin = SubMConv3d(4, 6, 3, bias=False)
        twin.load_state_dict({"weight": layer.weight.detach().permute(order).contiguous()}, strict=True)
        assert torch.equal(twin.weight, layer.weight)
    with pytest.raises(RuntimeError):
        layer.load_state_dict({"weight": torch.zeros(6, 5, 3, 3, 3)})


def test_no_site_and_no_rulebook():
    empty = Sites(torch.zeros(0, 3), torch.zeros(0, 4, dtype=torch.int64), SHAPE, 1)
    net = SparseSequential(SubMConv3d(3, 4, 3), SparseConv3d(4, 4, 3, 2, 1))
    assert net(empty).dense().shape == (1, 4, 3, 4, 3)
    with pytest.raises(FewerError, match="rulebook"):
        SubMConv3d(3, 4, 3)(torch.zeros(2, 3))


def test_a_copy_leaves_the_rulebook_behind():
    net = SparseSequential(SubMConv3d(3, 4, 3), nn.ReLU()).double()
    net(some_sites())
    assert net[0].rules is not None and copy.deepcopy(net)[0].rules is None
