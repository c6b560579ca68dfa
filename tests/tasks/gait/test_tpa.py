"""Temporal Periodic Alignment: what must hold exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.tasks.gait.networks import NetworkConfig, build_network
from fewer.tasks.gait.tpa import CHOICES, TAM, TPA, TPAConfig
from fewer.tasks.gait.tpa.moments import Moments, moments_of
from fewer.tasks.gait.tpa.spectrum import centred, correlation, find_lag, find_rhythm
from fewer.tasks.gait.tpa.tam import aggregate, decompose

ENCODINGS = ("none", "sinusoid", "fourier", "fundamental", "phase")


def stirred(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Every parameter moved, so that what starts at zero takes part."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


def loop_correlation(x: torch.Tensor, length: int) -> list[float]:
    found = []
    for lag in range(length):
        a, b = x[: length - lag], x[lag:length]
        found.append(float((a * b).sum() / (a.square().sum() * b.square().sum()).clamp(min=1e-12).sqrt()))
    return found


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 40), st.integers(0, 1000))
def test_correlation_by_fft_is_that_of_a_loop(length: int, seed: int) -> None:
    x = torch.randn(1, 45, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    lengths = torch.tensor([length])
    x = centred(x, lengths)
    assert correlation(x, lengths)[0, :length].tolist() == pytest.approx(loop_correlation(x[0], length), abs=1e-9)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), st.sampled_from([3, 5, 13]), st.integers(0, 1000), st.integers(0, 20))
def test_trend_and_seasonal_add_up(length: int, window: int, seed: int, lag: int) -> None:
    x = torch.randn(2, 3, length, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    lengths = torch.full((2,), length)
    trend, seasonal = decompose(x, window, lengths, torch.full((2,), lag))
    assert torch.allclose(trend + seasonal, x, atol=1e-12)
    if length > window:  # inside, it is the plain moving average
        at = length // 2
        if window // 2 <= at < length - window // 2:
            mean = x[:, :, at - window // 2 : at + window // 2 + 1].mean(2)
            assert torch.allclose(trend[:, :, at], mean)


@settings(max_examples=20, deadline=None)
@given(st.integers(9, 24), st.integers(3, 4), st.integers(0, 100), st.integers(0, 1000))
def test_a_circular_shift_of_a_periodic_walk_changes_nothing(period: int, times: int, shift: int, seed: int) -> None:
    cycle = torch.randn(1, 4, period, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    module = stirred(TPA(6, TPAConfig(encoding="phase")).double())
    x = cycle.repeat(1, 1, times, 1)
    moved = x.roll(shift, 2)
    assert torch.allclose(module(x).amax(2), module(moved).amax(2), atol=1e-8)


@pytest.mark.parametrize("size", [1.0, 1e-3, 1e-6])
def test_a_faint_rhythm_is_found_as_exactly_as_a_strong_one(size: float) -> None:
    cycle = torch.randn(1, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    signal, lengths = size * cycle.repeat(1, 4), torch.tensor([40])
    there, moved = find_rhythm(signal, lengths), find_rhythm(signal.roll(3, 1), lengths)
    whole = there.frequency * 10
    assert torch.allclose(whole, whole.round(), atol=1e-6) and torch.allclose(
        there.frequency, moved.frequency, atol=1e-7
    )
    turned = (there.offset - moved.offset) / (2 * torch.pi) - 3 * there.frequency
    assert torch.allclose(turned, turned.round(), atol=1e-5)


def test_the_same_holds_for_a_whole_network_and_not_for_a_fixed_sinusoid() -> None:
    torch.manual_seed(0)
    cycle = torch.rand(1, 12, 64, 44)
    x = cycle.repeat(1, 4, 1, 1)
    found = {}
    for encoding in ("phase", "sinusoid"):
        net = build_network(NetworkConfig(size="tiny", tpa=TPAConfig(encoding=encoding)))
        stirred(net)
        with torch.no_grad():
            found[encoding] = float((net(x) - net(x.roll(5, 1))).abs().max() / net(x).abs().max())
    assert found["phase"] < 1e-4 < found["sinusoid"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_padding_changes_nothing_at_any_length(encoding: str) -> None:
    module = stirred(TPA(6, TPAConfig(encoding=encoding)).double())
    lengths = [1, 2, 7, 31, 50]
    x = torch.randn(5, 4, 50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = module(x, torch.tensor(lengths))
    for i, length in enumerate(lengths):
        alone = module(x[i : i + 1, :, :length])
        assert torch.allclose(found[i, :, :length], alone[0], atol=1e-9)


def test_lags_are_those_of_each_sample() -> None:
    t = torch.arange(80.0)
    x = torch.stack([torch.sin(2 * math.pi * t / 12), torch.sin(2 * math.pi * t / 20)])[:, :, None]
    lengths = torch.tensor([80, 80])
    assert find_lag(correlation(centred(x, lengths), lengths), lengths).tolist() == [12, 20]
    flat = torch.ones(1, 30, 1)
    assert find_lag(correlation(centred(flat, torch.tensor([30])), torch.tensor([30])), torch.tensor([30])).item() == 0


def test_period_of_a_sine() -> None:
    rng = np.random.default_rng(0)
    errors = []
    for frames in rng.integers(40, 101, 60):
        period = float(rng.uniform(10, frames / 2))
        t = torch.arange(int(frames), dtype=torch.float64)
        rhythm = find_rhythm(torch.cos(2 * math.pi * t / period + rng.uniform(-3, 3))[None], torch.tensor([frames]))
        errors.append(abs(rhythm.frequency.item() - 1 / period) * frames)
    # in cycles over the whole sequence; what stays is the leak of the negative frequency
    assert np.median(errors) < 0.03 and max(errors) < 0.45


def test_aggregation_removes_noise_and_keeps_the_walk() -> None:
    t = torch.arange(60, dtype=torch.float64)
    clean = torch.sin(2 * math.pi * t / 15).view(1, 1, 60, 1)
    noisy = clean + 0.5 * torch.randn(clean.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    lags, lengths = torch.tensor([[15, 30]]), torch.tensor([60])
    kept = aggregate(noisy, lags, torch.ones(1, 2, dtype=torch.float64), lengths)
    assert torch.allclose(aggregate(clean, lags, torch.ones(1, 2, dtype=torch.float64), lengths), clean, atol=1e-9)
    assert (kept - clean).square().mean() < 0.6 * (noisy - clean).square().mean()


@pytest.mark.parametrize("fusion", ["sum", "concat", "gate"])
@pytest.mark.parametrize("rule", ["period", "top"])
def test_it_starts_as_nothing_and_learns(fusion: str, rule: str) -> None:
    module = TAM(6, fusion=fusion, rule=rule)  # type: ignore[arg-type]
    x = torch.randn(2, 4, 40, 6, requires_grad=True)
    out = module(x, torch.tensor([40, 30]))
    assert torch.allclose(out, x, atol=1e-5)
    out.square().sum().backward()
    assert x.grad is not None and module.value.weight.grad.abs().sum() > 0


def test_moments_are_those_of_a_loop_at_any_length() -> None:
    rng = np.random.default_rng(1)
    x, lengths = rng.normal(size=(3, 2, 11, 4)), [11, 4, 1]
    found = moments_of(torch.from_numpy(x), torch.tensor(lengths)).numpy()
    for i, length in enumerate(lengths):
        for part in range(2):
            own = x[i, part, :length]
            changes = [np.abs(own[k:] - own[:-k]).mean(0) if k < length else np.zeros(4) for k in (1, 3, 6)]
            assert np.allclose(found[i, part], np.concatenate([own.mean(0), own.std(0), *changes]), atol=2e-3)


def test_moments_see_order_only_in_changes() -> None:
    x = torch.rand(1, 2, 20, 3)
    mixed, length = x[:, :, torch.randperm(20)], torch.tensor([20])
    still, moving = moments_of(x, length, ("mean", "spread")), moments_of(x, length, ("change",))
    assert torch.allclose(still, moments_of(mixed, length, ("mean", "spread")), atol=1e-5)
    assert not torch.allclose(moving, moments_of(mixed, length, ("change",)), atol=1e-3)
    assert Moments(3, 2, ("mean",)).fc_bin.shape == (2, 3, 3)
    twice = moments_of(x, length, ("spread", "maximum", "maximum"))
    assert torch.equal(twice[..., 3:6], x.amax(2)) and torch.equal(twice[..., 6:], x.amax(2))
    assert torch.equal(twice[..., :3], still[..., 3:])


def test_what_can_be_chosen_can_be_told() -> None:
    from typing import get_args

    from fewer.tasks.gait.settings import TrainSettings

    assert set(get_args(TrainSettings.model_fields["tpa"].annotation)) == set(CHOICES)
