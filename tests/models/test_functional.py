"""Linear layers that are used by their weight alone: they become layers that are called, and compute the same."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import _get_current_function_mode

from fewer.models.functional import call_linear_layers, leave_linear_layers
from fewer.models.matching import match
from fewer.models.plain import own_copy


class Joint(nn.Module):
    """As in BEiT: the layer has no bias, and what is added is put together in the forward pass."""

    def __init__(self, width: int = 32, bias: bool = False) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width)
        self.q = nn.Parameter(torch.randn(width))
        self.heads, self.biased = 2, bias

    def joint(self, x):
        bias = torch.cat([self.q, torch.zeros_like(self.q), self.q]) if not self.biased else self.qkv.bias
        return F.linear(x, weight=self.qkv.weight, bias=bias)

    def forward(self, x):
        q, k, v = self.joint(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Net(nn.Module):
    def __init__(self, bias: bool = False) -> None:
        super().__init__()
        self.a, self.b = Joint(bias=bias), Joint(bias=bias)

    def forward(self, x):
        return self.b(self.a(x)) + x


@pytest.mark.parametrize("bias", (False, True))
def test_the_layer_is_a_unit_and_the_output_is_the_same(bias):
    torch.manual_seed(0)
    net, x = Net(bias).eval(), torch.randn(2, 5, 32)
    with torch.no_grad():
        expected, twin = net(x), own_copy(net)
        assert torch.equal(twin(x), expected)
        assert torch.equal(copy.deepcopy(twin)(x), expected) and torch.equal(
            pickle.loads(pickle.dumps(twin))(x), expected
        )
    assert not net.a._forward_hooks, "the user's model has got hooks"
    assert {u.name for u in match(twin, x).units} == {"a.qkv", "a.proj", "b.qkv", "b.proj"}
    assert "a.qkv" not in {u.name for u in match(net, x).units}
    assert set(twin.state_dict()) == set(net.state_dict())


def test_every_layer_is_called_once():
    net, calls = own_copy(Net(True).eval()), []
    for name, module in net.named_modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda *_, name=name: calls.append(name))
    net(torch.randn(1, 5, 32))
    assert calls == ["a.qkv", "a.proj", "b.qkv", "b.proj"]


def test_a_bias_that_a_repair_adds_counts():
    torch.manual_seed(0)
    net, x = own_copy(Net().eval()), torch.randn(2, 5, 32)
    before, shift = net.a.joint(x), torch.randn(96)
    seen = []
    net.a.qkv.register_parameter("bias", nn.Parameter(shift))
    net.a.joint, inner = (lambda y: seen.append(inner(y)) or seen[-1]), net.a.joint
    net(x)
    torch.testing.assert_close(seen[0], before + shift)


def test_a_weight_that_is_changed_on_the_way_is_left_alone():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            return F.linear(x, 2 * self.fc.weight, self.fc.bias) + F.linear(x, self.fc.weight)

    net, x = Scaled().eval(), torch.randn(3, 8)
    twin = own_copy(net)
    assert torch.equal(twin(x), net(x))


def test_a_failure_inside_leaves_no_trace():
    net, before = own_copy(Net().eval()), _get_current_function_mode()
    with pytest.raises(RuntimeError):
        net(torch.randn(1, 5, 31))
    assert _get_current_function_mode() is before
    assert call_linear_layers(net) == [], "hooked twice"


def test_nothing_is_left_on_the_model_where_nothing_needs_it():
    torch.manual_seed(0)
    net, x = own_copy(Net().eval()), torch.randn(2, 5, 32)
    net.b.qkv.register_parameter("bias", nn.Parameter(torch.randn(96)))
    expected = net(x)
    assert torch.equal(leave_linear_layers(net)(x), expected)
    assert not net.a._forward_hooks and not net.a._forward_pre_hooks
    assert net.b._forward_hooks and net.b._forward_pre_hooks
