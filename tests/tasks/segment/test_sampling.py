"""Which patches a step sees: they follow from seed and step, and show structures as often as was asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fewer.tasks.segment.dataset import open_data
from fewer.tasks.segment.preparation import Preparation, fit_preparation
from fewer.tasks.segment.sampling import CaseStore, HeldStore, PatchSampler, crop
from fewer.tasks.segment.settings import TrainSettings
from tests.tasks.segment.simulated import write_folder

SMALL = {"levels": 3, "batch": 4, "patch": (16, 16), "augment": "none"}


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", 4, (32, 36))


def held(count: int = 2) -> HeldStore:
    """Images of 40 x 40 with one bright pixel of class 1 and one of class 2 each."""
    pairs = []
    for index in range(count):
        image, mask = torch.zeros(1, 40, 40), torch.zeros(40, 40, dtype=torch.uint8)
        mask[3, 5 + index], mask[35, 30] = 1, 2
        image[0][mask > 0] = 1.0
        pairs.append((image, mask))
    fixed = Preparation(("b", "x", "y"), (0, 1, 2), 1, "none", (), (), (), (), None, (16, 16))
    return HeldStore(pairs, fixed)


def test_patches_depend_on_seed_and_step_alone_and_not_on_what_stays_in_memory(discs: Path) -> None:
    data, settings = open_data(discs), TrainSettings(**SMALL)
    preparation = fit_preparation(data, data.cases, settings)
    none, all_ = (PatchSampler(CaseStore(data, data.cases, preparation, limit), settings) for limit in (0, 1e9))
    none.batch(0)
    a, b = none.batch(7), all_.batch(7)
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])
    assert not torch.equal(a[0], all_.batch(8)[0])
    other = PatchSampler(all_.store, settings.model_copy(update={"seed": 1})).batch(7)
    assert not torch.equal(a[0], other[0])
    assert none.store.bytes == 0 and all_.store.bytes > 0


def test_processes_draw_parts_of_one_batch() -> None:
    store, settings = held(), TrainSettings(**SMALL)
    whole = PatchSampler(store, settings.model_copy(update={"batch": 4})).batch(3)[0]
    parts = [PatchSampler(store, settings.model_copy(update={"batch": 2}), rank, 2).batch(3)[0] for rank in range(2)]
    assert torch.equal(torch.stack([parts[0][0], parts[1][0], parts[0][1], parts[1][1]]), whole)


def test_the_share_of_patches_with_a_structure_is_what_was_asked_for_and_classes_are_drawn_alike() -> None:
    settings = TrainSettings(**SMALL | {"batch": 1})

    def masks(foreground: float) -> list[torch.Tensor]:
        sampler = PatchSampler(held(), settings.model_copy(update={"foreground": foreground}))
        return [sampler.batch(step)[1] for step in range(300)]

    always = masks(1.0)
    assert all(bool(mask.any()) for mask in always)
    ones = np.mean([bool((mask == 1).any()) for mask in always])
    assert 0.4 < ones < 0.6  # each class as often as the other, however large it is
    half, by_chance = (np.mean([bool(mask.any()) for mask in masks(share)]) for share in (0.5, 0.0))
    assert abs(half - (0.5 + 0.5 * by_chance)) < 0.1


def test_image_and_mask_are_cut_alike() -> None:
    sampler = PatchSampler(held(), TrainSettings(**SMALL, foreground=1.0))
    for step in range(20):
        images, masks = sampler.batch(step)
        assert torch.equal(images[:, 0] > 0, masks[:, 0] > 0)


def test_images_smaller_than_a_patch_are_padded_in_the_middle() -> None:
    image = torch.ones(2, 3, 5)
    found = crop(image, (-1, 2), (6, 2))
    assert found.shape == (2, 6, 2) and found[:, 1:4].eq(1).all() and found.sum() == 2 * 3 * 2
    store = HeldStore([(torch.ones(1, 6, 40), None)], held().preparation)
    patch, mask = PatchSampler(store, TrainSettings(**SMALL)).draw(0, np.random.default_rng(0))
    assert patch[0, 5:11].eq(1).all() and patch.sum() == 6 * 16 and not mask.any()
