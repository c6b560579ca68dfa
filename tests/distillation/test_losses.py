"""Errors of a student: the report's own distortion with gradients, and blocks in units of each channel's spread."""

import pytest
import torch

from fewer.distillation.losses import block_error, output_error
from fewer.distortion.outputs import Reference


def outputs(seed: int):
    make = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(3, 4, generator=make), "b": [torch.randn(3, 2, 5, generator=make), torch.tensor([1])]}


def test_the_output_error_is_the_distortion_of_the_report():
    wanted, got = outputs(0), outputs(1)
    reference = Reference([wanted])
    assert float(output_error(reference, wanted, got)) == pytest.approx(
        float(reference.change(0, got).mean()), rel=1e-6
    )
    assert float(output_error(reference, wanted, wanted)) == 0


def test_gradients_go_into_every_output():
    wanted, got = outputs(0), outputs(1)
    for tensor in (got["a"], got["b"][0]):
        tensor.requires_grad_()
    output_error(Reference([wanted]), wanted, got).backward()
    scale = Reference([wanted]).scale
    assert torch.allclose(got["a"].grad, 2 * (got["a"] - wanted["a"]).detach() / (float(scale[0]) * 3), atol=1e-7)
    assert got["b"][0].grad.abs().min() > 0


@pytest.mark.parametrize(("axis", "shape"), [(1, (6, 5, 4, 4)), (-1, (6, 7, 5)), (1, (6, 5))])
def test_a_block_that_gives_only_means_is_wrong_by_one(axis, shape):
    wanted = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 3 + 2
    others = [i for i in range(len(shape)) if i != axis % len(shape)]
    mean = wanted.mean(others, keepdim=True).expand(shape)
    assert float(block_error(wanted, mean, axis)) == pytest.approx(0.91, abs=0.03)


def test_a_channel_that_is_much_larger_does_not_drown_the_others():
    wanted = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1, 1, 20])
    wrong_small, wrong_large = wanted.clone(), wanted.clone()
    wrong_small[:, 0] = 0
    wrong_large[:, 3] = 0
    ratio = float(block_error(wanted, wrong_small, 1)) / float(block_error(wanted, wrong_large, 1))
    assert 0.8 < ratio < 1.2


def test_silent_channels_do_not_blow_the_error_up():
    wanted = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    wanted[:, :5] = 0
    assert float(block_error(wanted, wanted + 0.01, 1)) < 0.5


def test_constant_outputs_give_a_finite_error():
    assert float(block_error(torch.zeros(3, 4), torch.zeros(3, 4), 1)) == 0
