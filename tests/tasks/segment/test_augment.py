"""Random changes of a patch: image and mask move together, and one seed gives one change."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewer.tasks.segment.augment import augmentation

LEVELS = ("none", "upright", "light", "full")


def patch(dims: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright corner on a dark ground, and its mask: no flip or turn leaves it in its place."""
    mask = torch.zeros(1, *(16,) * dims, dtype=torch.uint8)
    mask[(0, *(slice(2, 7),) * (dims - 1), slice(2, 5))] = 1
    return 8 * mask.float() - 4, mask


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("level", LEVELS)
def test_the_mask_goes_where_the_image_goes_and_the_seed_decides(level, dims):
    if level == "full":
        pytest.importorskip("monai", reason="needs the [medical] extra")
    change = augmentation(level, dims)
    for seed in range(12):
        image, mask = change(*patch(dims), np.random.default_rng(seed))
        again, same = change(*patch(dims), np.random.default_rng(seed))
        assert torch.equal(image, again) and torch.equal(mask, same)
        assert mask.dtype == torch.uint8 and set(mask.unique().tolist()) <= {0, 1}
        if mask.any():
            assert image[mask > 0].mean() > image[mask == 0].mean() + 1


@pytest.mark.parametrize("mirror", [0, 2, None])
def test_upright_images_are_mirrored_from_left_to_right_alone(mirror):
    image = torch.arange(60.0).view(1, 3, 4, 5)
    flipped = set()
    for seed in range(20):
        _, mask = augmentation("upright", 3, mirror)(image, image.to(torch.uint8), np.random.default_rng(seed))
        (found,) = (axis for axis in (None, 0, 1, 2) if torch.equal(image.flip([] if axis is None else 1 + axis), mask))
        flipped.add(found)
    assert flipped == {None, mirror}


def test_planes_that_are_not_square_keep_their_shape():
    image = torch.zeros(1, 8, 12)
    for seed in range(8):
        assert (
            augmentation("light", 2)(image, image.to(torch.uint8), np.random.default_rng(seed))[0].shape == image.shape
        )
