"""Changes of intensity: what stays, what changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewer.adaptation.choice import pooled_dice
from fewer.adaptation.pseudo import largest, plausible
from fewer.adaptation.style import change_structures, inside, match_histogram, random_curve, swap_amplitude, synthesise


def brain() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.full((1, 16, 16), -3.0)
    torch.manual_seed(0)
    image[0, 4:12, 4:12] = torch.randn(8, 8)
    mask = torch.zeros(16, 16, dtype=torch.uint8)
    mask[5:8, 5:8] = 1
    return image, mask


@pytest.mark.parametrize("style", [random_curve, synthesise])
def test_air_stays_and_the_scale_is_that_of_the_input(style) -> None:
    image, mask = brain()
    out = style(image, mask, np.random.default_rng(1))
    where = inside(image[0])
    assert torch.equal(out[0][~where], image[0][~where])
    assert abs(float(out[0][where].mean())) < 1e-4 and abs(float(out[0][where].std(correction=0)) - 1) < 1e-3
    assert torch.equal(out, style(image, mask, np.random.default_rng(1)))


def test_a_curve_is_a_function_of_intensity() -> None:
    image = torch.tensor([[[0.0, 1.0, 2.0, 1.0, 0.0, 2.0, 3.0, 3.0]]])
    out = random_curve(image, None, np.random.default_rng(0))[0, 0]
    assert out[1] == out[3] and out[2] == out[5] and out[6] == out[7]


def test_matching_gives_the_histogram_of_the_reference() -> None:
    torch.manual_seed(0)
    image, other = torch.randn(1, 40, 40), 5 + 2 * torch.rand(1, 40, 40)
    out = match_histogram(image, other)
    levels = torch.linspace(0.05, 0.95, 7)
    assert torch.allclose(torch.quantile(out, levels), torch.quantile(other, levels), atol=0.02)
    assert torch.equal(out[0].flatten().argsort()[:5], image[0].flatten().argsort()[:5])


def test_low_frequencies_are_swapped_and_phases_kept() -> None:
    torch.manual_seed(0)
    image, other = torch.randn(1, 16, 16), torch.randn(1, 16, 16)
    out = swap_amplitude(image, other, 0.1)
    before, after = torch.fft.fftn(image[0]), torch.fft.fftn(out[0])
    assert torch.allclose(before[5, 5].angle(), after[5, 5].angle(), atol=1e-3)
    assert abs(float(after[5, 5].abs() / after[6, 6].abs() - before[5, 5].abs() / before[6, 6].abs())) < 1e-3


def test_structures_alone_change() -> None:
    image, mask = brain()
    out = change_structures(image, mask, np.random.default_rng(0), (2.0, 2.0), 1.0)
    assert torch.equal(out[0][mask == 0], image[0][mask == 0])
    assert torch.allclose(out[0][mask == 1] + 3, 2 * (image[0][mask == 1] + 3))


def test_pseudo_labels_keep_as_many_parts_as_the_source_has() -> None:
    truth = torch.zeros(12, 12, dtype=torch.uint8)
    truth[2:6, 2:6] = 1
    guess = truth.numpy().copy()
    guess[9, 9] = 1
    cleaned, good = plausible(guess, [truth], 2)
    assert good and cleaned[9, 9] == 0 and cleaned[3, 3] == 1
    assert not plausible(np.ones((12, 12), np.uint8), [truth], 2)[1]
    assert largest(guess == 1, 1).sum() == 16


def test_pooled_dice_equals_the_formula() -> None:
    a, b = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2])
    assert abs(pooled_dice([(a, b)], 3) - (2 * 1 / 3 + 2 * 1 / 3) / 2) < 1e-9
