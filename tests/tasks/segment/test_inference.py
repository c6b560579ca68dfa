"""A sliding window gives what the network gives at once, and masks come back on the voxels of their own file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fewer.tasks.segment.files import Picture
from fewer.tasks.segment.inference import predict_logits, predict_mask
from fewer.tasks.segment.preparation import Preparation
from fewer.tasks.segment.reading import Sample

pytest.importorskip("monai", reason="needs the [medical] extra")


@pytest.mark.parametrize("space", [(37, 20), (8, 8), (5, 30), (9, 12, 7)])
def test_windows_of_a_pointwise_network_agree_with_the_whole(space) -> None:
    torch.manual_seed(0)
    dims = len(space)
    net = (nn.Conv2d if dims == 2 else nn.Conv3d)(2, 3, 1)
    image = torch.randn(2, *space)
    found = predict_logits(net, image, (8,) * dims, 3)
    with torch.no_grad():
        torch.testing.assert_close(found, net(image[None])[0], rtol=1e-4, atol=1e-5)


def test_a_model_keeps_its_mode_and_dropout_is_off() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Dropout(0.9)).train()
    image = torch.randn(1, 16, 16)
    assert torch.equal(predict_logits(net, image, (8, 8), 2), predict_logits(net, image, (8, 8), 2))
    assert net.training and net[1].training


class Bright(nn.Module):
    """Class 1 where the image is bright; several outputs, full resolution first, as in deep supervision."""

    def forward(self, x):
        full = torch.cat([0.5 - x, x - 0.5], 1)
        return torch.stack([full, torch.zeros_like(full)], 1) if self.training else full


def test_a_mask_lies_on_the_voxels_of_its_file_whatever_the_network_saw() -> None:
    array = np.zeros((1, 24, 10), np.float32)
    array[0, 6:18, 3:7] = 1
    picture = Picture(array, (0.5, 1.0), spaced=True)
    preparation = Preparation(("b", "a"), (0, 1), 1, "none", (), (), (), (), (1.0, 1.0), (8, 8))
    assert preparation.shape_of(picture) == (12, 10)
    mask = predict_mask(Bright(), Sample("x", array, None, picture), preparation)
    assert mask.shape == (24, 10) and mask.dtype == np.uint8
    assert (mask == (array[0] > 0.5)).mean() > 0.97  # a border may move by a voxel on the coarser grid
