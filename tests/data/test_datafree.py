"""Inputs without images: seeded, of the right spectrum, and closer to what BatchNorm remembers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewer.core.errors import FewerError
from fewer.engine.datafree import batchnorm_inputs, coloured_noise, gaussian_noise
from tests.tiny import tiny


@pytest.mark.parametrize("make", [gaussian_noise, coloured_noise])
@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 64), (1, 8, 8, 8), (5,)])
def test_seeded_and_standardised(make, shape):
    noise = make(shape, 4, seed=1)
    assert noise.shape == (4, *shape) and noise.dtype == torch.float32
    assert torch.equal(noise, make(shape, 4, seed=1)) and not torch.equal(noise, make(shape, 4, seed=2))
    assert torch.isfinite(noise).all()


def test_coloured_noise_falls_as_one_over_frequency():
    noise = coloured_noise((1, 64, 64), 32).numpy()[:, 0]
    power = (np.abs(np.fft.fft2(noise)) ** 2).mean(axis=0)
    along = power[0, 2:24]
    slope = np.polyfit(np.log(np.arange(2, 24)), np.log(along), 1)[0]
    assert slope == pytest.approx(-2, abs=0.3)  # power is amplitude squared
    assert np.allclose(noise.std(axis=(1, 2)), 1, atol=1e-4)


def gap(model, x):
    """Mean squared distance of the batch means from the running means, over all BatchNorms."""
    found = []
    hooks = [
        m.register_forward_pre_hook(
            lambda m, i: found.append(((i[0].mean((0, 2, 3)) - m.running_mean) ** 2 / m.running_var).mean().item())
        )
        for m in model.modules()
        if isinstance(m, torch.nn.BatchNorm2d)
    ]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return sum(found) / len(found)


def test_batchnorm_inputs_match_the_statistics_and_leave_the_model_alone():
    model, _ = tiny("conv")
    # the statistics of a distribution that is far from the starting noise, learnt as training would
    real = 0.4 * coloured_noise((3, 16, 16), 64, seed=9) + torch.tensor([1.5, -1.0, 0.5])[:, None, None]
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(real)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    inputs, note = batchnorm_inputs(model, (3, 16, 16), 8, steps=30)
    assert model.training and not any(m._forward_pre_hooks for m in model.modules())
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert "30 steps" in note and "3 BatchNorm" in note
    model.eval()
    assert gap(model, inputs) < 0.3 * gap(model, coloured_noise((3, 16, 16), 8))
    twice = [batchnorm_inputs(model, (3, 16, 16), 2, steps=2)[0] for _ in range(2)]
    assert torch.allclose(*twice, atol=1e-4)


def test_a_model_without_batchnorm_says_so():
    model, _ = tiny("vit")
    inputs, note = batchnorm_inputs(model, (3, 16, 16), 2)
    assert "no BatchNorm" in note
    assert torch.equal(inputs, coloured_noise((3, 16, 16), 2))


def test_errors():
    with pytest.raises(FewerError, match="positive count"):
        gaussian_noise((3, 8, 8), 0)
    model, _ = tiny("conv")
    with pytest.raises(FewerError, match="does not run"):
        batchnorm_inputs(model, (5, 8, 8), 2)
    assert not any(m._forward_pre_hooks for m in model.modules())
