"""Each integer approximation against double precision, at the errors that their docstrings promise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fewer.approximate.activation import ACTIVATIONS, TARGETS
from fewer.approximate.arithmetic import divide, dyadic, floor_root, rescale
from fewer.approximate.exponential import shift_exp, table_exp, two_step_exp
from fewer.approximate.norm import NORMS, channel_shifts
from fewer.approximate.norm import TARGETS as NORM_TARGETS
from fewer.approximate.piecewise import fit_table
from fewer.approximate.softmax import SOFTMAXES

SCALE = 2.0**-10


def test_the_root_is_exact() -> None:
    rng = np.random.default_rng(0)
    squares = rng.integers(1, 2**30, 3000) ** 2
    numbers = np.concatenate([np.arange(2000), squares - 1, squares, squares + 1, rng.integers(0, 2**60, 3000)])
    assert floor_root(numbers).tolist() == [math.isqrt(int(n)) for n in numbers]


def test_division_and_dyadic_factors_round_to_nearest() -> None:
    a = np.arange(-1000, 1000)
    assert divide(a, 7).tolist() == [math.floor(n / 7 + 0.5) for n in a]
    for factor in (0.3, 1.0, 17.3, 1e-5, 0.99999):
        multiplier, shift = dyadic(factor)
        assert multiplier < 2**16 and abs(multiplier / 2**shift / factor - 1) < 2**-15
    assert np.abs(rescale(a, 0.37) - 0.37 * a).max() <= 0.51


@pytest.mark.parametrize(("function", "bound"), [(two_step_exp, 2.6e-3), (shift_exp, 4.5e-2), (table_exp, 2.6e-3)])
def test_exponentials_stay_within_their_error(function, bound) -> None:
    q = np.arange(-10 * 1024, 1)
    e, scale = function(q, SCALE)
    assert (e >= 0).all() and e.dtype == np.int64
    assert np.abs(e * scale - np.exp(q * SCALE)).max() <= bound


ACTIVATION_ERROR = {
    "table-gelu": 5e-3,
    "polynomial-gelu": 1.3e-2,
    "integer-gelu": 1.9e-2,
    "shift-gelu": 3.5e-2,
    "table-silu": 8e-3,
    "shift-silu": 3.5e-2,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_stay_within_their_error(name: str) -> None:
    q = np.arange(-6 * 1024, 6 * 1024 + 1)
    y, scale = ACTIVATIONS[name].run(q, SCALE, (-6.0, 6.0))
    assert np.abs(y * scale - TARGETS[name](q * SCALE)).max() <= ACTIVATION_ERROR[name]


def test_a_polynomial_that_knows_its_range_errs_less() -> None:
    q = np.arange(-2 * 1024, 1024)
    x = q * SCALE

    def error(span: tuple[float, float]) -> float:
        y, scale = ACTIVATIONS["polynomial-gelu"].run(q, SCALE, span)
        return float(np.square(y * scale - TARGETS["polynomial-gelu"](x)).mean())

    assert error((-2.0, 1.0)) < error((-6.0, 6.0))


def test_breakpoints_where_they_are_needed_halve_the_error_of_equal_parts() -> None:
    target = TARGETS["table-gelu"]
    x = np.linspace(-4, 4, 4001)
    edges = np.linspace(-4, 4, 17)
    equal = np.abs(np.interp(x, edges, target(edges)) - target(x)).max()
    table = fit_table(target, (-4.0, 4.0), 16, ((0.0, 0.0), (1.0, 0.0)))
    assert len(table.slopes) <= 18 and 2.0e-2 < equal < 2.4e-2
    assert np.abs(table(x) - target(x)).max() < equal / 4


SOFTMAX_ERROR = {"table": 4e-3, "polynomial": 4e-3, "shift": 5e-2, "log2": 0.26}


@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmaxes_stay_within_their_error(name: str) -> None:
    q = np.random.default_rng(0).normal(0, 3000, (40, 65)).astype(np.int64)
    p, scale = SOFTMAXES[name].run(q, SCALE, None)
    wanted = np.exp(q * SCALE - (q * SCALE).max(-1, keepdims=True))
    wanted /= wanted.sum(-1, keepdims=True)
    assert (p >= 0).all() and np.abs(p * scale - wanted).max() <= SOFTMAX_ERROR[name]
    if name != "log2":
        assert np.abs((p * scale).sum(-1) - 1).max() < 2e-3
    else:
        assert {bin(v).count("1") for v in np.unique(p)} <= {0, 1}  # powers of two, or nothing


NORM_ERROR = {"layer-norm": 4e-3, "factor-layer-norm": 6e-2, "rms-norm": 4e-3}


@pytest.mark.parametrize("name", NORMS)
def test_norms_stay_within_their_error(name: str) -> None:
    rng = np.random.default_rng(0)
    spread = 2.0 ** rng.integers(0, 6, 96)  # channels of very different size, as in transformers
    q = (rng.normal(0.3, 1, (50, 96)) * spread * 300).astype(np.int64)
    y, scale = NORMS[name].run(q, SCALE, np.abs(q).max(0) * SCALE)
    assert np.abs(y * scale - NORM_TARGETS[name](q.astype(float))).max() <= NORM_ERROR[name]


def test_factors_of_channels_make_a_byte_enough() -> None:
    rng = np.random.default_rng(1)
    q = (rng.normal(0, 1, (50, 64)) * 2.0 ** rng.integers(0, 8, 64) * 40).astype(np.int64)
    shifts = channel_shifts(np.abs(q).max(0) * SCALE, SCALE)
    assert np.abs(np.round(q / 2.0**shifts)).max() <= 127
    wanted = NORM_TARGETS["layer-norm"](q.astype(float))
    ours, scale = NORMS["factor-layer-norm"].run(q, SCALE, np.abs(q).max(0) * SCALE)
    one = np.abs(q).max() / 127  # the same byte with one scale for all channels
    plain = NORM_TARGETS["layer-norm"](np.round(q / one) * one)
    assert np.abs(ours * scale - wanted).mean() < np.abs(plain - wanted).mean() / 2


def test_a_constant_row_is_no_division_by_zero() -> None:
    for name in NORMS:
        y, scale = NORMS[name].run(np.zeros((2, 8), dtype=np.int64), SCALE, None)
        assert np.abs(y * scale).max() == 0
