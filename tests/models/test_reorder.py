"""Channels in another order: the model stays the same function, and what cannot be reordered is left alone."""

import copy
import json

import pytest
import torch
from torch import nn

import fewer
from fewer.core.errors import FewerError
from fewer.core.unit import Unit
from fewer.models.matching import match
from fewer.models.reorder import Reordering, by_likeness, read_reorderings, reorder, reordered
from fewer.models.vit import VisionTransformer
from tests.engine.test_shrink import mobile
from tests.support.nets import quick


class Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        hidden = self.first(x)
        return self.second(hidden.relu()) + hidden  # read twice


def transformer() -> VisionTransformer:
    torch.manual_seed(0)
    net = VisionTransformer(32, 8, width=32, depth=2, heads=2).eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return net


def change(a, b, x) -> float:
    with torch.no_grad():
        return float((a(x) - b(x)).abs().max() / b(x).abs().max())


@pytest.mark.parametrize("heads", [False, True])
def test_a_transformer_computes_the_same(heads):
    net, x = transformer(), torch.randn(6, 3, 32, 32)
    before = copy.deepcopy(net.state_dict())
    made, orders = reordered(net, match(net, x[:1]).units, x, heads=heads)
    readers = {f"blocks.{i}.mlp.fc2" for i in range(2)} | (
        {f"blocks.{i}.attn.proj" for i in range(2)} if heads else set()
    )
    assert {one.consumer for one in orders} == readers
    assert change(made, net, x) < 1e-4
    assert not torch.equal(made.blocks[0].mlp.fc1.weight, net.blocks[0].mlp.fc1.weight)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    # channels stay in their heads
    within = list(range(16))
    for order in (o for one in orders if "attn" in one.consumer for o in (one.order, one.inner)):
        assert [sorted(order[:16]), sorted(order[16:])] == [within, [16 + i for i in within]]
    # and what was done can be done again, from JSON
    again = reorder(copy.deepcopy(net), read_reorderings(json.loads(json.dumps([one.to_dict() for one in orders]))))
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in again.state_dict().items())


def test_norms_and_depthwise_layers_follow_their_channels():
    torch.manual_seed(0)
    net = mobile()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
    x = torch.randn(4, 3, 8, 8)
    made, orders = reordered(net, match(net, x[:1]).units, x)
    assert any(len(one.producers) == 2 and len(one.followers) == 2 for one in orders)
    assert change(made, net, x) < 1e-4


def test_channels_that_are_read_elsewhere_stay_where_they_are():
    net, x = Attention(32).eval(), torch.randn(9, 32)
    made, orders = reordered(net, match(net, x[:1]).units, x)
    assert made is net and orders == []
    random = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.Linear(8, 8))
    random[1].forward = lambda x: nn.functional.dropout(x, 0.5, True)  # draws in evaluation as well
    assert reordered(random, match(random, x[:1, :8]).units, x[:, :8])[1] == []


def test_rows_that_are_alike_stand_together():
    torch.manual_seed(0)
    kinds = torch.arange(64) % 4
    found = by_likeness(torch.randn(4, 30)[kinds] + 0.01 * torch.randn(64, 30))
    assert sorted(found.tolist()) == list(range(64))
    assert all(len(set(kinds[found[i : i + 16]].tolist())) == 1 for i in range(0, 64, 16))
    assert sorted(by_likeness(torch.zeros(21, 2)).tolist()) == list(range(21))


def test_blocks_lose_less_in_a_better_order():
    """Every second hidden unit is weak: blocks of sixteen cannot tell, until these stand together."""
    torch.manual_seed(0)
    strong = torch.where(torch.arange(64) % 2 == 0, 1.0, 0.05)
    net = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32)).eval()
    with torch.no_grad():
        net[0].weight.mul_(strong[:, None])
        net[2].weight.mul_(strong)
    x = torch.randn(300, 32)
    settings = {"pattern": "block:16x16", "calibration": 200, "heldout": 60}
    found = {}
    for wanted in (False, True):
        run = fewer.compress(net, x, "weights=50%", settings=quick(**settings, reorder=wanted))
        found[wanted] = run.report.verdict.distortion
    assert found[True] < 0.3 * found[False]


def test_a_run_knows_its_order(tmp_path):
    net, x = transformer(), torch.randn(24, 3, 32, 32)
    settings = quick(pattern="block:16x16", calibration=16, heldout=6, reorder=True)
    fewer.compress(net, x, "weights=70%", settings=settings, out=tmp_path / "run")
    plan = fewer.plan(tmp_path / "run", "weights=60%")
    again = fewer.apply(tmp_path / "run", plan, model=net, images=x)
    assert again.report.verdict.met
    bare = lambda: VisionTransformer(32, 8, width=32, depth=2, heads=2)  # noqa: E731
    with torch.no_grad():
        assert torch.equal(fewer.load(tmp_path / "run", bare)(x[:2]), again.model(x[:2]))
    done = fewer.recover(tmp_path / "run", None, steps=2, model=net, images=x)
    assert done.report.recovery is not None


@pytest.mark.parametrize(
    "entry",
    [{}, {"consumer": "a"}, {**Reordering("b", ("a",), (), (0, 2)).to_dict()},
     {**Reordering("b", ("a",), (), (0, 1), (1, 1)).to_dict()}],
)  # fmt: skip
def test_an_order_that_is_none_is_refused(entry):
    with pytest.raises(FewerError, match="make the run again"):
        read_reorderings([entry])


def test_another_model_cannot_be_put_in_this_order():
    with pytest.raises(FewerError, match="cannot be put in order"):
        reorder(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), [Reordering("1", ("0",), (), (1, 0))])
    assert Unit("a", "linear", (1, 1)).groups == 1
