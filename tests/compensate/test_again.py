"""Layers that a pass uses several times are repaired for all of their uses."""

import copy

import torch
from torch import Tensor, nn

from fewer.compensate.again import calls_of, later_inputs, with_later
from fewer.compensate.sequential import HeldOut, Layered, UnitFacts, compress_in_order
from fewer.compensate.sweep import Repair
from fewer.core.option import Option
from fewer.models.layers import find_layers
from fewer.models.matching import match


class Shared(nn.Module):
    """One layer for two images of very different kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.tower = nn.Linear(12, 12), nn.Linear(6, 16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.stem(x).chunk(2, 1)
        return self.tower(a), self.tower(b)


def _half(model: nn.Module, x: Tensor, calls: dict[str, int], folds: list[int] | None = None) -> nn.Module:
    dense, target = copy.deepcopy(model), copy.deepcopy(model)
    units = match(model, x[:1]).units
    ladders = {u.name: [Option(), *([Option("unstructured", 0.5)] if u.name == "tower" else [])] for u in units}
    one, two = (Layered(net, find_layers(net, units, x[:1])) for net in (dense, target))
    facts, held_out = UnitFacts(calls=calls), HeldOut(folds=folds)
    compress_in_order(one, two, ladders, [x], Repair(), facts=facts, held_out=held_out)
    return target


def test_a_shared_layer_is_repaired_for_both_of_its_uses() -> None:
    torch.manual_seed(0)
    model = Shared().eval()
    first, second = torch.randn(400, 2) @ torch.randn(2, 6), torch.randn(400, 6) @ torch.randn(6, 6)
    with torch.no_grad():
        model.stem.weight.copy_(torch.eye(12))
        model.stem.bias.zero_()
    x = torch.cat([first, second], 1)
    for folds in (None, [0] * 200 + [1] * 200):
        errors = []
        for calls in ({"tower": 1}, {"tower": 2}):
            net = _half(model, x, calls, folds)
            pairs = zip(net(x), model(x), strict=True)
            errors.append(float(sum((a - b).square().sum() / b.square().sum() for a, b in pairs)))
        assert errors[1] < 0.8 * errors[0]


def test_the_later_inputs_are_those_of_all_uses_but_the_first() -> None:
    layer = nn.Linear(2, 2)
    net, x = nn.Sequential(layer, nn.ReLU(), layer, layer), torch.randn(3, 2)
    assert calls_of(net, {"0": [layer]}, x) == {"0": 3}
    with torch.no_grad():
        second = layer(x).relu()
        wanted = [second, layer(second)]
    assert all(map(torch.equal, later_inputs(net, [layer], x, 3), wanted))
    assert not layer._forward_pre_hooks


def test_rows_that_the_dense_model_does_not_have_are_not_held_against_its_own() -> None:
    x, y = torch.ones(2, 3), torch.ones(1, 3)
    wanted, inputs, batches = with_later(([x], [x + 1]), [([x], [y])])
    assert wanted is inputs and batches == [0, 0]
    wanted, inputs, batches = with_later(([x, x], [y, y]), [([y], [y + 1]), ([], [])])
    assert [len(one) for one in wanted] == [2, 2, 1] and torch.equal(inputs[2], y + 1) and batches == [0, 1, 0]
