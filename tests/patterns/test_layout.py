"""Weights as matrices: taps outside, input channels inside."""

import pytest
import torch

from fewer.patterns import Pattern, select_mask, to_matrix, to_weight


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 1, 1), (5, 3, 4), (5, 3, 2, 4), (4, 1, 3, 3), (2, 3, 2, 1, 4)])
def test_the_way_back_is_exact(shape):
    weight = torch.randn(shape)
    assert torch.equal(to_weight(to_matrix(weight), shape), weight)
    assert to_matrix(weight).shape == (shape[0], weight[0].numel())


def test_a_tile_of_a_convolution_lies_along_the_channels_of_one_tap():
    score = torch.rand(16, 3 * 3 * 8)
    mask = to_weight(select_mask(score, Pattern.parse("block:16x8"), 0.5), (16, 8, 3, 3))
    assert torch.equal(mask, mask[:1, :1].expand_as(mask))  # a tap stays or goes with all its channels
    assert set(mask[0, 0].flatten().tolist()) == {True, False}
