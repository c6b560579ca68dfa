"""Weights as matrices: groups of channels outside, taps, channels of a group inside."""

import pytest
import torch

from fewer.patterns import Pattern, select_mask, to_matrix, to_weight


@pytest.mark.parametrize("shape", [(5, 3), (5, 8, 1, 1), (5, 3, 4), (5, 8, 2, 4), (4, 1, 3, 3), (2, 4, 2, 1, 4)])
def test_the_way_back_is_exact(shape):
    weight = torch.randn(shape)
    assert torch.equal(to_weight(to_matrix(weight), shape), weight)
    assert to_matrix(weight).shape == (shape[0], weight[0].numel())


def test_a_tile_of_a_convolution_lies_along_the_channels_of_one_tap():
    score = torch.rand(16, 3 * 3 * 8)
    mask = to_weight(select_mask(score, Pattern.parse("block:16x4"), 0.5), (16, 8, 3, 3))
    for part in mask.split(4, dim=1):
        assert torch.equal(part, part[:1, :1].expand_as(part))  # a tap stays or goes with four channels
    assert set(mask[0, 0].flatten().tolist()) == {True, False}


def test_a_run_of_channels_is_a_run_of_columns():
    weight = torch.zeros(2, 16, 3, 3)
    weight[:, 8:12] = 1
    found = to_matrix(weight)[0].nonzero().flatten()
    assert torch.equal(found, torch.arange(8 * 9, 12 * 9))
