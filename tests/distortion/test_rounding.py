"""Distortion of rounded inputs against a model whose inputs were rounded by hand."""

from __future__ import annotations

import torch
from torch import nn

from fewer.distortion.outputs import Reference
from fewer.distortion.rounding import input_rounding_distortion
from fewer.formats.activations import round_tokens
from fewer.models.layers import find_layers
from fewer.models.matching import match


def test_only_the_inputs_of_one_layer_are_rounded():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5)).eval()
    x = torch.randn(6, 3, 4, 4) * torch.tensor([1.0, 10.0, 0.1])[:, None, None]
    layers = find_layers(net, match(net, x).units, x[:1])
    found = input_rounding_distortion(net, layers, [x[:4], x[4:]], ["fp32", "bf16", "int8"])
    with torch.no_grad():
        reference = Reference([net(x[:4]), net(x[4:])])
        hidden = net[:3](x)
        by_hand = {
            "0": {p: net[1:](net[0](round_tokens(x, p, axis=1))) for p in ("bf16", "int8")},
            "3": {p: net[3](round_tokens(hidden, p)) for p in ("bf16", "int8")},
        }
    for name, outputs in by_hand.items():
        for precision, y in outputs.items():
            wanted = torch.cat([reference.change(0, y[:4]), reference.change(1, y[4:])]).double()
            torch.testing.assert_close(found[name][precision], wanted, rtol=1e-4, atol=1e-10)
        assert 0 < found[name]["bf16"].mean() < found[name]["int8"].mean() < 1e-2
    assert input_rounding_distortion(net, layers, [x], ["fp32", "int4"]) == {}
