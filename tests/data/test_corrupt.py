"""Corruptions of self-supervised restoration."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fewer.data.corrupt import _shuffle, bezier_curve, corrupted


@pytest.mark.parametrize("mode", ["L", "RGB", "F"])
def test_size_and_range_stay_and_the_seed_decides(mode):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 30, 3)).astype(np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    before = np.asarray(image).copy()
    made = [np.asarray(corrupted(image, np.random.default_rng(s))) for s in range(6)]
    assert all(m.shape[:2] == (40, 30) and m.dtype == np.uint8 for m in made)
    assert (np.asarray(corrupted(image, np.random.default_rng(2))) == made[2]).all()
    assert len({m.tobytes() for m in made}) == 6 and (np.asarray(image) == before).all()


def test_shuffling_keeps_every_pixel():
    pixels = np.random.default_rng(0).random((30, 20, 3)).astype(np.float32)
    shuffled = pixels.copy()
    _shuffle(shuffled, np.random.default_rng(1))
    assert (shuffled != pixels).any()
    assert (np.sort(shuffled.reshape(-1, 3), axis=0) == np.sort(pixels.reshape(-1, 3), axis=0)).all()


@pytest.mark.parametrize("seed", range(10))
def test_curves_map_the_range_into_itself(seed):
    at, value = bezier_curve(np.random.default_rng(seed), monotone=seed % 2 == 0)
    assert at[0] == 0 and at[-1] == 1 and value.min() >= 0 and value.max() <= 1
    if seed % 2 == 0:
        assert (np.diff(value) >= 0).all() and value[0] == 0 and value[-1] == 1
