"""Layers in a live model: installing, restoring, and which BatchNorm may take a layer's bias."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewer.core.unit import Unit
from fewer.models.layers import Layer, find_layers
from fewer.models.matching import match
from tests.tiny import TINY, tiny


def layers_of(model: nn.Module, x: torch.Tensor) -> dict[str, Layer]:
    return find_layers(model, match(model, x).units, x)


def randomised(model: nn.Module) -> nn.Module:
    for m in model.modules():
        if isinstance(m, nn.modules.batchnorm._BatchNorm):
            m.running_mean.normal_()
            m.running_var.uniform_(0.5, 2)
    return model.eval()


class Net(nn.Module):
    """A convolution and a BatchNorm, joined in the way that ``how`` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.other = nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        if self.how == "plain":
            return F.relu(self.norm(y))
        if self.how == "shape read":
            return self.norm(y).view(y.shape[0], y.size(1), -1)
        if self.how == "second reader":
            return self.norm(y) + y
        if self.how == "second norm":
            return self.norm(y) + self.other(y)
        if self.how == "returned":
            return {"out": self.norm(y), "raw": [y]}
        if self.how == "changed in place":
            return self.norm(y.mul_(2.0))
        if self.how == "a view between":
            return self.norm(y[:, :])
        if self.how == "conv twice":
            return self.norm(y) + self.conv(x).mean()
        if self.how == "norm twice":
            return self.norm(self.norm(y))
        raise AssertionError(self.how)


ONLY = {"plain", "shape read"}
HOW = ["plain", "shape read", "second reader", "second norm", "returned", "changed in place", "a view between"]


@pytest.mark.parametrize("how", [*HOW, "conv twice", "norm twice"])
def test_a_norm_is_taken_only_if_nothing_else_reads_the_layers_output(how):
    torch.manual_seed(0)
    net, x = randomised(Net(how)), torch.randn(2, 3, 6, 6)
    found = layers_of(net, x)["conv"].norm
    assert found is (net.norm if how in ONLY else None)
    # and the reason: only then does shifting the norm do what a bias would
    shift = torch.randn(4)
    twin = copy.deepcopy(net)
    twin.norm.running_mean -= shift
    handle = net.conv.register_forward_hook(lambda _m, _i, out: out + shift.view(1, -1, 1, 1))
    same = all(torch.allclose(a, b, atol=1e-4) for a, b in zip(_flat(net(x)), _flat(twin(x)), strict=True))
    handle.remove()
    assert same or how not in ONLY


def _flat(output):
    return [output["out"], *output["raw"]] if isinstance(output, dict) else [output]


def test_norms_over_another_axis_are_not_taken():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.norm = nn.Linear(6, 5), nn.BatchNorm1d(5)

        def forward(self, x):
            return self.norm(self.fc(x))

    net = Tokens().eval()
    assert layers_of(net, torch.randn(3, 6))["fc"].norm is net.norm
    assert layers_of(net, torch.randn(3, 5, 6))["fc"].norm is None  # axis 1 is the tokens here


def test_norms_without_running_statistics_are_not_taken():
    net = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4, track_running_stats=False)).eval()
    layer = layers_of(net, torch.randn(2, 3, 4, 4))["0"]
    assert layer.norm is None and not layer.centred


@pytest.mark.parametrize("name", TINY)
def test_looking_for_layers_leaves_no_trace(name):
    model, x = tiny(name)
    model.train()
    state = copy.deepcopy(model.state_dict())
    layers = layers_of(model, x)
    assert layers and all(m.training for m in model.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_every_batchnorm_of_the_tiny_conv_net_is_found():
    model, x = tiny("conv")
    norms = [layer.norm for layer in layers_of(model, x).values()]
    assert norms[:3] == [model.features[1], model.features[4], model.features[7]] and norms[3:] == [None, None]


@pytest.mark.parametrize("name", ["conv", "conv3d", "conv1d", "tied"])
def test_a_shift_is_a_bias_wherever_it_goes_and_everything_comes_back(name):
    model, x = tiny(name)
    before, state = model(x), copy.deepcopy(model.state_dict())
    for layer in layers_of(model, x).values():
        assert layer.centred == (name != "conv3d" or layer.unit.name != "second")
        if not layer.centred:
            continue
        shift = torch.linspace(-1, 1, layer.unit.rows)
        axis = [1, -1] + [1] * (len(layer.unit.shape) - 2)
        hooks = [u.register_forward_hook(lambda _m, _i, out, s=shift, a=axis: out + s.view(a)) for u in layer.users]
        wanted = model(x)
        for hook in hooks:
            hook.remove()
        with layer.borrowed():
            layer.install(layer.matrix.clone(), shift)
            torch.testing.assert_close(model(x), wanted, rtol=1e-3, atol=1e-4)
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert torch.equal(model(x), before)


def test_bias_compensation_through_a_norm_keeps_mean_and_variance():
    from fewer.compensate.moments import Moments, add_input
    from fewer.compensate.sweep import Repair, Sweep
    from fewer.core.option import Option

    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=0.0)
    net, x = nn.Sequential(conv, norm).eval(), torch.randn(8, 3, 10, 10) + 0.5
    with torch.no_grad():
        raw = conv(x)
        norm.running_mean.copy_(raw.mean((0, 2, 3)))
        norm.running_var.copy_(raw.var((0, 2, 3), correction=0))
    layer = layers_of(net, x)["0"]
    moments = Moments(1, 27)
    add_input(moments, conv, x)
    fit = list(Sweep(layer.matrix, moments, Repair("bias"), centred=layer.centred).run([Option("unstructured", 0.5)]))
    before = net(x)
    layer.install(fit[0].weight, fit[0].shift, fit[0].spread)
    after = net(x)
    torch.testing.assert_close(after.mean((0, 2, 3)), before.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(after.var((0, 2, 3)), before.var((0, 2, 3)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_precisions_keep_every_digit_of_what_is_not_changed(dtype):
    net = nn.Linear(5, 3).to(dtype)
    with torch.no_grad():
        net.weight += torch.rand(3, 5, dtype=torch.float64).mul(1e-12).to(dtype)
    layer = Layer(Unit("", "linear", (3, 5)), (net,))
    old = net.weight.detach().clone()
    layer.install(layer.matrix.float())
    assert net.weight.dtype == dtype and torch.equal(net.weight, old)
    changed = layer.matrix.float()
    changed[0, 0] = 7
    with layer.borrowed():
        layer.install(changed, torch.ones(3))
        assert net.weight[0, 0] == 7 and torch.equal(net.weight.flatten()[1:], old.flatten()[1:])
    assert torch.equal(net.weight, old)
