"""Fewer levels: layers that become one compute the same, and a budget is met by what says most alike."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.private.cheapen import cheapen
from fewer.private.compile import approximate_activations
from fewer.private.network import Dense, read_network, run_chain
from fewer.private.polynomial import Squares
from fewer.private.price import typical
from fewer.private.shallow import leave_out, shallower


def a_net() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 12), nn.GELU(), nn.Linear(12, 3),
    ).eval()  # fmt: skip
    return net, torch.randn(40, 1, 8, 8)


def line(layer: Squares) -> Squares:
    """So flat a parabola that it is a line on what goes in: 3 x + 1 / 2."""
    return replace(layer, shifts=(1.5e6,), outer=1e-6, rest=0.5 - 1e-6 * 1.5e6**2)


@pytest.mark.parametrize("gone", [(1,), (3,), (1, 3)])
def test_layers_around_a_straight_line_become_one_that_computes_the_same(gone: tuple[int, ...]) -> None:
    net, images = a_net()
    chain, names = approximate_activations(read_network(net, images[:1]), images)
    chain = [line(layer) if i in gone and isinstance(layer, Squares) else layer for i, layer in enumerate(chain)]
    made = leave_out(chain, names, images, gone)
    assert made is not None and len(made[0]) == 5 - 2 * len(gone) == len(made[1])
    assert torch.allclose(run_chain(made[0], images.double()), run_chain(chain, images.double()), atol=1e-2)


def test_two_convolutions_are_left_alone() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 2)).eval()
    images = torch.randn(9, 1, 8, 8)
    chain, names = approximate_activations(read_network(net, images[:1]), images)
    assert leave_out(chain, names, images, [1]) is None and shallower(chain, names, images) == []


def test_a_budget_is_met_by_fewer_levels_and_the_result_is_the_best_of_what_was_taught() -> None:
    net, images = a_net()
    chain, names = approximate_activations(read_network(net, images[:1]), images)
    found = cheapen(net, chain, names, images, "he=0.5x", steps=5, shift=0)
    assert found.after["he"] <= 0.5 * found.before["he"] and found.after["levels"] < 3 == found.before["levels"]
    taught = [t for t in found.tried if t.loss is not None]
    assert min(taught, key=lambda t: t.loss or 0).name == found.name and len(found.tried) == 4
    assert found.parameters.degree == 8192 and found.circuit.levels == found.after["levels"]
    assert sum(isinstance(layer, Dense) for layer in chain) == 2  # what was given is as it was


def test_where_no_activation_can_go_diagonals_do() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32)).eval()
    images = torch.randn(20, 1, 8, 8)
    chain, names = approximate_activations(read_network(net, images[:1]), images)
    found = cheapen(net, chain, names, images, "he=0.8x", steps=4)
    assert "fewer diagonals" in found.name and found.after["he"] <= 0.8 * found.before["he"]
    assert typical(found.parameters).measured is False


def test_budgets_that_no_circuit_has_or_reaches_are_told() -> None:
    net, images = a_net()
    chain, names = approximate_activations(read_network(net, images[:1]), images)
    with pytest.raises(FewerError, match="not for 'size'"):
        cheapen(net, chain, names, images, "size=1MB")
    with pytest.raises(FewerError, match="cannot be met"):
        cheapen(net, chain, names, images, "he=0.001x", steps=1)
