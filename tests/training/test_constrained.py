"""What training may not change: zeros, and the values of a stored precision."""

import numpy as np
import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.formats.integers import rounded
from fewer.models.packing import decode_values, encode_values
from fewer.training.constrained import Constrained, Held
from tests.tiny import tiny


def random_mask(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5


def train(model, weights, x, steps=5):
    optimiser = torch.optim.Adam(weights.parameters(), lr=0.02)
    for _ in range(steps):
        model(x).square().sum().backward()
        weights.collect()
        optimiser.step()
        optimiser.zero_grad()
        weights.install()


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "int8", "int4"])
def test_what_was_trained_is_what_is_stored(precision):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 9, 5))
    mask = {name: random_mask(net.get_submodule(name).weight.shape) for name in ("0", "3")}
    with torch.no_grad():
        for name, m in mask.items():
            weight = net.get_submodule(name).weight
            weight.copy_(rounded((weight * m).flatten(1), precision).view_as(weight))
    before = {k: v.clone() for k, v in net.state_dict().items()}
    weights = Constrained(net, {name: Held(m, precision) for name, m in mask.items()})
    weights.install()
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items()), "nothing moves before the first step"
    train(net, weights, torch.randn(4, 3, 5, 5))
    for name, m in mask.items():
        weight = net.get_submodule(name).weight.detach()
        assert not torch.equal(weight, before[f"{name}.weight"])
        assert bool((weight[~m] == 0).all())
        assert torch.equal(weight, rounded(weight.flatten(1), precision).view_as(weight))
        if precision != "fp32":
            kept = np.asarray(m)
            stored = encode_values(weight, precision, kept)
            assert stored is not None
            back = decode_values(stored["values"], stored.get("scale"), precision, kept)
            assert torch.equal(back, weight)


def test_a_tied_weight_is_one_parameter_with_the_gradients_of_both_users():
    net, x = tiny("tied")
    mask = random_mask(net.first.weight.shape)
    with torch.no_grad():
        net.first.weight.mul_(mask)
    weights = Constrained(net, {"first": Held(mask, "int8")})
    assert sum(name.endswith("weight") for name in weights.names()) == 2
    weights.install()
    train(net, weights, x)
    assert net.first.weight is net.second.weight and bool((net.first.weight[~mask] == 0).all())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_models_of_other_precisions_learn(dtype):
    torch.manual_seed(0)
    net = nn.Linear(8, 3).to(dtype)
    start = net.weight.detach().clone()
    weights = Constrained(net, {"": Held(None)}, ())
    x = torch.randn(5, 8, dtype=dtype)
    first = float(net(x).detach().double().square().sum())
    train(net, weights, x, steps=30)
    assert net.weight.dtype == dtype and not torch.equal(net.weight, start)
    assert float(net(x).detach().double().square().sum()) < 0.5 * first


def test_frozen_modules_stay():
    net, x = tiny("called-twice")
    before = net.head.weight.detach().clone()
    weights = Constrained(net, {}, ["head"])
    train(net, weights, x)
    assert torch.equal(net.head.weight, before) and not any(n.startswith("head") for n in weights.names())


def test_a_mask_of_another_shape_is_refused():
    with pytest.raises(FewerError, match="mask of '0'"):
        Constrained(nn.Sequential(nn.Linear(2, 3)), {"0": Held(torch.ones(2, 2, dtype=torch.bool))})
