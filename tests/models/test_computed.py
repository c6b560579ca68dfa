"""Layers that multiply with another weight than the one they hold become plain ones, or are left alone and told."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fewer
from fewer.core.errors import FewerError
from fewer.models.build import build_architecture
from fewer.models.computed import SameConv2d, fold_computed, fold_named, unusual
from fewer.models.matching import match


class Standardised(nn.Conv2d):
    """Of BiT and of many networks with GroupNorm."""

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=[1, 2, 3], keepdim=True, unbiased=False)
        weight = (self.weight - mean) / torch.sqrt(variance + 1e-10)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class StandardisedSame(nn.Conv2d):
    """The same with the padding of TensorFlow."""

    def forward(self, x: Tensor) -> Tensor:
        sides = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return F.conv2d(F.pad(x, sides), weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Gained(nn.Conv2d):
    """A gain for each row (NFNet), in ``_conv_forward``."""

    def __init__(self, *args: object, **keywords: object) -> None:
        super().__init__(*args, **keywords)  # type: ignore[arg-type]
        self.gain = nn.Parameter(torch.rand(self.out_channels, 1, 1, 1) + 0.5)

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight * self.gain, bias)


class Masked(nn.Conv2d):
    """Of PixelCNN."""

    def __init__(self, *args: object, **keywords: object) -> None:
        super().__init__(*args, **keywords)  # type: ignore[arg-type]
        mask = torch.ones_like(self.weight)
        mask[..., 2:, :] = 0
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.weight * self.mask, self.bias)


class Equalised(nn.Linear):
    """Of StyleGAN: weight and bias are scaled."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * 0.3, self.bias * 0.1)


class Cosine(nn.Linear):
    """Of face recognition."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x), F.normalize(self.weight))


class Normed(nn.Linear):
    """Norm and projection in one layer."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.layer_norm(x, x.shape[-1:]), self.weight, self.bias)


class Adapted(nn.Linear):
    """A second, small product beside the layer's own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.low = nn.Parameter(torch.randn(2, inputs))
        self.high = nn.Parameter(torch.randn(outputs, 2))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.low), self.high)


class Dynamic(nn.Conv2d):
    """The weight depends on the input."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * x.mean().sigmoid(), self.bias, self.stride, self.padding)


class Plain(nn.Conv2d):
    """A forward pass of its own that does what torch does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


FOLDED = {
    "standardised": (lambda: Standardised(3, 8, 3, 2, 1, bias=False), nn.Conv2d),
    "grouped and dilated": (lambda: Standardised(4, 8, 3, padding=2, dilation=2, groups=2), nn.Conv2d),
    "same": (lambda: StandardisedSame(3, 8, 3, 2), SameConv2d),
    "gain": (lambda: Gained(3, 8, 5, padding=2), nn.Conv2d),
    "mask": (lambda: Masked(3, 8, 3, padding=1), nn.Conv2d),
    "reflect": (lambda: Masked(3, 8, 3, padding=1, padding_mode="reflect"), nn.Conv2d),
}


@pytest.mark.parametrize("name", FOLDED)
def test_a_convolution_that_computes_its_weight_becomes_a_plain_one(name: str) -> None:
    make, kind = FOLDED[name]
    torch.manual_seed(0)
    layer = make()
    net = nn.Sequential(layer)
    inputs = [torch.randn(2, layer.in_channels, 11, 14), torch.randn(2, layer.in_channels, 12, 9)]
    wanted = [net(x) for x in inputs]
    (form,) = fold_computed(net).values()
    assert type(net[0]) is kind
    for x, output in zip(inputs, wanted, strict=True):
        torch.testing.assert_close(net(x), output, rtol=1e-5, atol=1e-5)
    fresh = nn.Sequential(make())
    fold_named(fresh, {"0": form})
    fresh.load_state_dict(net.state_dict())
    assert torch.equal(fresh(inputs[0]), net(inputs[0]))
    assert fold_computed(net) == {}


def test_the_bias_goes_along() -> None:
    net = nn.Sequential(Equalised(4, 3))
    x = torch.randn(5, 4)
    wanted = net(x)
    assert fold_computed(net) == {"0": "plain"}
    torch.testing.assert_close(net(x), wanted)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Cosine(4, 3, bias=False), "computes the weight"),
        (Dynamic(3, 4, 3), "computes the weight"),
        (Normed(4, 3), "changes the input"),
    ],
)
def test_what_cannot_be_folded_is_left_alone_with_the_reason(layer: nn.Module, reason: str) -> None:
    inputs = 4 if isinstance(layer, nn.Linear) else 3
    tail = nn.Linear(3, 3) if isinstance(layer, nn.Linear) else nn.Conv2d(4, 3, 1)
    net = nn.Sequential(layer, tail).eval()
    assert fold_computed(net) == {}
    assert reason in unusual(layer)
    found = match(net, torch.randn(2, inputs) if isinstance(layer, nn.Linear) else torch.randn(2, inputs, 8, 8))
    assert [unit.name for unit in found.units] == ["1"]
    assert reason in found.skipped[0].reason


@pytest.mark.parametrize("layer", [Adapted(4, 3), Plain(3, 4, 3), SameConv2d(3, 4, 3), nn.Linear(2, 2)])
def test_a_layer_that_multiplies_with_what_it_holds_is_a_layer_like_any_other(layer: nn.Module) -> None:
    assert unusual(layer) == ""
    assert fold_computed(nn.Sequential(layer)) == {}


def test_a_shared_weight_is_not_folded() -> None:
    net = nn.ModuleList([Equalised(3, 3), Equalised(3, 3)])
    net[1].weight = net[0].weight
    assert fold_computed(net) == {}


def test_a_recipe_that_names_another_layer_is_refused() -> None:
    for wrong in ({"nowhere": "plain"}, {"0": "same"}, {"0": "os.system"}):
        with pytest.raises(FewerError, match="save the run again"):
            fold_named(nn.Sequential(nn.Linear(1, 1)), wrong)
    for wrong in ([1], {"0": 3}):
        with pytest.raises(FewerError, match="computed weights"):
            build_architecture({"kind": "object", "computed": wrong}, lambda: nn.Linear(1, 1))


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        Standardised(3, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        StandardisedSame(16, 16, 3, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        Equalised(16, 4),
    ).eval()


def test_zeros_are_zeros_in_the_product_and_survive_a_save(tmp_path) -> None:
    net, images = _network(), torch.randn(24, 3, 9, 9)
    run = fewer.compress(
        net, images, "weights=50%", calibration=16, sensing=4, heldout=4, baselines=(), additivity=0, backend="serial"
    )
    assert type(net[0]) is Standardised and net[0].weight.abs().min() > 0
    for name, mask in run.masks.items():
        assert not run.model.get_submodule(name).weight[~mask].any()
    run.save(tmp_path / "run")
    again = fewer.load(tmp_path / "run", architecture=_network)
    assert torch.equal(again(images), run.model(images))


class Halved(nn.Linear):
    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight * 0.5, self.bias)


class Trained(nn.Linear):
    """Computes its weight in training only."""

    def forward(self, x):
        return torch.nn.functional.linear(x, self.weight * (0.5 if self.training else 1.0), self.bias)


class ReadTwice(nn.Module):
    """A decoder reads the weight that the encoder holds, and does not halve it."""

    def __init__(self):
        super().__init__()
        self.encoder, self.last = Halved(12, 8), nn.Linear(12, 5)

    def forward(self, x):
        return self.last(torch.nn.functional.linear(self.encoder(x).relu(), self.encoder.weight.t()))


@pytest.mark.parametrize("make", [ReadTwice, lambda: nn.Sequential(Trained(12, 8), nn.ReLU(), nn.Linear(8, 3))])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_stays_the_one_that_was_given(make, training):
    torch.manual_seed(0)
    net, x = make().train(training), torch.randn(24, 12)
    run = fewer.compress(net, x, "weights=100%", calibration=12, heldout=6, sensing=4, baselines=(), additivity=0)
    with torch.no_grad():
        torch.testing.assert_close(run.model(x), net.eval()(x), rtol=1e-4, atol=1e-5)
