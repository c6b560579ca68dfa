"""Sparse convolutions are units like any other: found, costed, watched, with the norm behind them."""

from __future__ import annotations

import torch
from torch import nn

from fewer.compensate.moments import collect_moments
from fewer.models.layers import find_layers
from fewer.models.macs import model_macs
from fewer.models.matching import match, mean_positions
from fewer.models.sparse import Sites, SparseConv3d, SparseSequential, SubMConv3d
from fewer.models.sparse.product import gathered_rows
from fewer.patterns import to_matrix


class Net(nn.Module):
    """Two sparse layers and a dense head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = SparseSequential(
            SubMConv3d(4, 8, 3, key="a"), nn.BatchNorm1d(8), nn.ReLU(), SparseConv3d(8, 8, 3, 2, 1), nn.BatchNorm1d(8)
        )
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, *scans: torch.Tensor) -> torch.Tensor:
        where = torch.cat([nn.functional.pad(s[:, :3].long(), (1, 0), value=i) for i, s in enumerate(scans)])
        features = torch.cat([s[:, :4] for s in scans])
        return self.head(self.body(Sites(features, where, (4, 4, 4), len(scans))).dense().flatten(1, 2))


def scan(count: int, seed: int = 0) -> torch.Tensor:
    cells = torch.randperm(64, generator=torch.Generator().manual_seed(seed))[:count]
    return torch.stack([cells // 16, cells // 4 % 4, cells % 4, cells], 1).float()


def test_units_with_costs_from_the_rulebook():
    net = Net().eval()
    one = (scan(20),)
    found = match(net, one, lambda m, x: m(*x))
    units = {u.name: u for u in found.units}
    assert units["body.0"].kind == "conv3d" and units["body.0"].shape == (8, 4, 3, 3, 3)
    assert net.body[0].rules is not None
    # the example is one scan, whose first dimension is its points
    assert units["body.0"].positions * 20 * 27 == net.body[0].rules.count
    macs = sum(u.macs for u in found.units) * 20
    assert abs(model_macs(net, one, lambda m, x: m(*x)) * 20 - macs) < 1e-6 * macs
    mean = mean_positions(net, found, [(scan(20),), (scan(20),)], lambda m, x: m(*x))
    assert {u.name: u.positions for u in mean.units} == {u.name: u.positions for u in found.units}


def test_norm_behind_and_moments():
    net = Net().eval()
    found = match(net, (scan(20),), lambda m, x: m(*x))
    layers = find_layers(net, found.units, (scan(20),), lambda m, x: m(*x))
    assert layers["body.0"].norm is net.body[1] and layers["body.3"].norm is net.body[4]
    inputs = {}
    handle = net.body[3].register_forward_pre_hook(lambda m, x: inputs.update(x=x[0].detach().clone()))
    moments = collect_moments(net, {"body.3": [net.body[3]]}, [(scan(20),)], lambda m, x: m(*x))["body.3"]
    handle.remove()
    rows = gathered_rows(inputs["x"], net.body[3].rules)
    assert moments.count == len(rows)
    assert torch.allclose(moments.mean()[0], rows.mean(0), atol=1e-6)


def test_two_batches_in_one_layer_at_once():
    net = Net().eval()
    layer = net.body[0]
    books = []
    for count in (20, 30):
        sites = Sites(torch.randn(count, 4), nn.functional.pad(scan(count)[:, :3].long(), (1, 0)), (4, 4, 4), 1)
        rules = layer.rules_for(sites)
        layer.put_down(sites.features, rules)
        books.append((sites, rules))
    for sites, rules in books:
        assert layer.rules_of(sites.features) is rules
        assert torch.allclose(
            layer(sites.features), gathered_rows(sites.features, rules) @ to_matrix(layer.weight).T, atol=1e-5
        )
