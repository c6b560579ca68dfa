"""Rounding to fewer bits: against brute force, and against what the native kernels do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.formats.activations import round_tokens
from fewer.formats.integers import quantize_rows, rounded
from fewer.formats.ranges import ESTIMATORS, row_scales
from fewer.kernels import native
from fewer.kernels.format import pack, unpack
from fewer.kernels.linear import BlockSparseLinear
from fewer.quantize.activations import rounding_inputs
from fewer.quantize.smooth import readers_of_norms, smooth_norm, smoothed, smoothing_factors


@pytest.fixture
def weight():
    torch.manual_seed(0)
    heavy = torch.randn(32, 64) * torch.randn(32, 64).exp()  # outliers, as real weights have
    heavy[3] = 0
    return heavy


def error(weight, bits, estimator, importance=None):
    change = (quantize_rows(weight, bits, estimator, importance).dense() - weight).square()
    return change if importance is None else change * importance


@pytest.mark.parametrize("bits", [8, 4])
def test_min_max_is_within_half_a_step_and_clips_nothing(weight, bits):
    found = quantize_rows(weight, bits)
    assert bool(((found.dense() - weight).abs() <= 0.5001 * found.scale[:, None]).all())
    assert torch.allclose(found.dense().abs().amax(1), weight.abs().amax(1))
    assert int(found.values.abs().max()) == {8: 64, 4: 7}[bits]


@pytest.mark.parametrize("bits", [8, 4])
def test_mse_is_the_best_of_a_fine_search(weight, bits):
    chosen = error(weight, bits, "mse").sum(1)
    top = {8: 64, 4: 7}[bits]
    best = torch.full((32,), torch.inf)
    for fraction in torch.linspace(0.5, 1.0, 201):
        scale = (fraction * weight.abs().amax(1) / top).clamp_min(1e-9)[:, None]
        best = torch.minimum(best, (((weight / scale).round().clamp(-top, top) * scale) - weight).square().sum(1))
    assert bool((chosen <= error(weight, bits, "min-max").sum(1) + 1e-9).all())
    assert bool((chosen <= 1.25 * best + 1e-9).all()) and float(chosen.sum()) <= 1.05 * float(best.sum())


def test_mse_takes_the_importance_of_inputs_into_account(weight):
    importance = torch.rand(64) ** 8
    plain, weighted = (error(weight, 4, "mse", i).sum() for i in (None, importance))
    blind = (error(weight, 4, "mse") * importance).sum()
    assert float(weighted) < float(blind) <= float(plain)


def test_percentile_clips_only_outliers():
    row = torch.linspace(0.1, 1, 4999)
    matrix = torch.cat([row, torch.tensor([100.0])])[None]
    assert float(row_scales(matrix, estimator="percentile") * 64) == pytest.approx(1.0, rel=0.01)
    sparse = torch.zeros(1, 5000)
    sparse[0, 0] = 3.0
    assert float(row_scales(sparse, estimator="percentile") * 64) == pytest.approx(3.0)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_kernels_store_exactly_the_rounded_weight(weight, estimator):
    found = rounded(weight, "int8", estimator)
    torch.testing.assert_close(unpack(pack(found, precision="int8")), found, rtol=1e-6, atol=0)
    half = rounded(weight, "bf16")
    assert torch.equal(unpack(pack(half, precision="bf16")), half)


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_the_fake_forward_is_the_native_forward(weight, precision):
    if not native.available():
        pytest.skip("the native library is not built")
    layer = nn.Linear(64, 32)
    with torch.inference_mode():
        layer.weight.copy_(rounded(weight, precision, "mse" if precision == "int8" else "min-max"))
        x = torch.randn(50, 64) * torch.randn(50, 1).exp()
        got = BlockSparseLinear.from_dense(layer, precision=precision)(x)
        with rounding_inputs([layer], precision):
            expected = layer(x)
        plain = layer(x)
    if precision == "bf16" and native.library().isa != "avx512_bf16":
        # without a bf16 product the inputs stay in fp32: the rounding that the fake forward counts on is spared
        torch.testing.assert_close(got, plain)
        return
    # the same integers: what is left is the rounding of fp32 sums, far below the rounding of activations
    assert float((got - expected).norm() / expected.norm()) < 0.02 * float((plain - expected).norm() / plain.norm())


def test_images_are_rounded_by_pixel():
    x = torch.randn(2, 8, 3, 3)
    by_pixel = round_tokens(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(round_tokens(x, axis=1), by_pixel)
    conv = nn.Conv2d(8, 4, 1, bias=False)
    with rounding_inputs([conv], "int8"):
        rounded_once = conv(x)
    torch.testing.assert_close(rounded_once, conv(by_pixel))
    torch.testing.assert_close(conv(x), conv(x))


def test_smoothing_keeps_the_function_and_helps_int8():
    torch.manual_seed(0)
    norm, layer = nn.LayerNorm(64), nn.Linear(64, 32)
    with torch.no_grad():
        norm.weight.mul_(torch.where(torch.arange(64) % 16 == 0, 30.0, 1.0))  # a few channels far larger than the rest
        x = torch.randn(200, 64)
        expected = layer(norm(x))

        def int8_error():
            with rounding_inputs([layer], "int8"):
                return float((layer(norm(x)) - expected).norm())

        before = int8_error()
        factors = smooth_norm(norm, [layer], norm(x).abs().amax(0))
        torch.testing.assert_close(layer(norm(x)), expected, rtol=1e-4, atol=1e-4)
        assert factors.max() > 3 * factors.median()
        assert int8_error() < 0.6 * before


class Forked(nn.Module):
    """Two norms: one is read by two layers, the other one also by the end of the network."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LayerNorm(32), nn.LayerNorm(32)
        self.a, self.b, self.c = nn.Linear(32, 16), nn.Linear(32, 16), nn.Linear(32, 16)

    def forward(self, x):
        x, y = self.first(x), self.second(x)
        return self.a(x) + self.b(x) + self.c(y) + y[..., :16]


def test_smoothing_by_powers_of_two_changes_no_bit_of_the_output():
    torch.manual_seed(0)
    net, x = Forked(), torch.randn(200, 32)
    with torch.no_grad():
        for norm in (net.first, net.second):
            norm.weight.mul_(torch.where(torch.arange(32) % 8 == 0, 30.0, 1.0))
        before = {name: value.clone() for name, value in net.state_dict().items()}
        same, readers = smoothed(net, x)
        assert readers == {"first": ["a", "b"]}  # the other norm is read elsewhere as well
        assert torch.equal(same(x), net(x))
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert torch.equal(same.second.weight, net.second.weight) and torch.equal(same.c.weight, net.c.weight)
        factors = same.a.weight / net.a.weight
        assert torch.equal(torch.exp2(torch.round(torch.log2(factors))), factors) and float(factors.max()) >= 2

        def int8_error(model):
            with rounding_inputs([model.a, model.b], "int8"):
                return float((model(x) - expected).norm())

        expected = net(x)
        assert int8_error(same) < 0.7 * int8_error(net)
    assert readers_of_norms(net, x) == {"first": ["a", "b"], "second": ["c"]}


def test_a_model_that_draws_random_numbers_is_not_smoothed():
    class Random(Forked):
        def forward(self, x):
            return super().forward(x) + torch.rand(())

    net = Random()
    assert smoothed(net, torch.randn(2, 32)) == (net, {})
    plain = nn.Linear(2, 2)
    assert smoothed(plain, torch.randn(2, 2)) == (plain, {})


def test_bad_input(weight):
    for call, words in [
        (lambda: quantize_rows(weight, 9), "9 bits"),
        (lambda: row_scales(weight, estimator="msee"), "did you mean 'mse'"),
        (lambda: quantize_rows(torch.full((1, 2), float("nan"))), "NaN"),
        (lambda: rounded(weight, "int3"), "unknown precision 'int3'"),
        (lambda: smoothing_factors(torch.ones(2), torch.ones(1, 2), 2.0), "between 0 and 1"),
        (lambda: smooth_norm(nn.LayerNorm(2, elementwise_affine=False), [], torch.ones(2)), "affine"),
    ]:
        with pytest.raises(FewerError, match=words):
            call()
