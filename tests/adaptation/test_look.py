"""Source images in the grey levels of the target: measured from pseudo-labels, with the source's own masks."""

from __future__ import annotations

import numpy as np
import torch

from fewer.adaptation.look import look_of, paint_like
from fewer.adaptation.style import UNKNOWN, inside


def head(levels: tuple[float, float, float], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Air, tissue and two structures on the scale of a network's input."""
    rng = np.random.default_rng(seed)
    image = torch.full((1, 24, 24), -4.0)
    mask = torch.zeros(24, 24, dtype=torch.uint8)
    mask[6:11, 6:18], mask[13:18, 6:18] = 1, 2
    tissue = torch.zeros(24, 24, dtype=torch.bool)
    tissue[3:21, 3:21] = True
    for value, level in enumerate(levels):
        own = tissue & (mask == value)
        image[0][own] = level + 0.05 * torch.from_numpy(rng.standard_normal(int(own.sum()))).float()
    where = inside(image[0])
    return (image - image[0][where].mean()) / image[0][where].std(correction=0), mask


def test_levels_are_those_of_the_labels_even_where_a_fifth_of_them_is_wrong() -> None:
    image, mask = head((0.0, 2.0, -1.0))
    wrong = mask.clone()
    wrong[6:7, 6:18] = 2
    one, two = look_of([(image, mask)], 3), look_of([(image, wrong)], 3)
    assert np.allclose(one.mean[0, 0, 1:], [np.median(image[0][mask == value]) for value in (1, 2)])
    assert np.allclose(one.mean[0, 0, 1:], two.mean[0, 0, 1:], atol=0.1)


def test_a_source_image_gets_the_levels_of_the_target_and_keeps_its_anatomy() -> None:
    source, mask = head((0.0, 1.0, -1.0), 1)
    target, truth = head((0.5, -1.5, 1.0), 2)
    style = paint_like(look_of([(target, truth)], 3), jitter=0.0)
    out = style(source, mask, np.random.default_rng(0))
    for value in (1, 2):
        inner = mask == value
        assert abs(float(out[0][inner].median() - target[0][truth == value].median())) < 0.35
    assert (out[0][~inside(source[0])] == out.min()).all()
    assert abs(float(out[0][inside(source[0])].mean())) < 1e-4


def test_a_class_that_no_target_image_shows_gets_a_random_level_and_unknown_voxels_count_for_nothing() -> None:
    target, truth = head((0.5, -1.5, 1.0), 2)
    look = look_of([(target, torch.where(truth == 2, UNKNOWN, truth).to(torch.uint8))], 3)
    assert np.isnan(look.mean[0, 0, 2]) and not np.isnan(look.mean[0, 0, 1])
    source, mask = head((0.0, 1.0, -1.0), 1)
    style = paint_like(look)
    levels = [float(style(source, mask, np.random.default_rng(i))[0][mask == 2].median()) for i in range(12)]
    assert all(np.isfinite(levels)) and max(levels) - min(levels) > 0.8


def test_images_without_air_or_without_anything_are_painted_too() -> None:
    target = torch.randn(1, 16, 16)
    empty = torch.zeros(16, 16, dtype=torch.uint8)
    style = paint_like(look_of([(target, empty)], 2))
    for image in (torch.randn(1, 16, 16), torch.zeros(1, 16, 16)):
        out = style(image, empty, np.random.default_rng(0))
        assert bool(torch.isfinite(out).all())
