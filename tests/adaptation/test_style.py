"""Changes of intensity: what stays, what changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fewer.adaptation.choice import pooled_dice
from fewer.adaptation.learn import known
from fewer.adaptation.pseudo import label, largest, plausible, usual_of
from fewer.adaptation.style import (
    UNKNOWN,
    change_structures,
    degrade,
    inside,
    match_histogram,
    random_contrast,
    random_curve,
    regions,
    swap_amplitude,
    synthesise,
)
from tests.adaptation.domains import problem


def brain() -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.full((1, 16, 16), -3.0)
    torch.manual_seed(0)
    image[0, 4:12, 4:12] = torch.randn(8, 8)
    mask = torch.zeros(16, 16, dtype=torch.uint8)
    mask[5:8, 5:8] = 1
    return image, mask


@pytest.mark.parametrize("style", [random_curve, synthesise, random_contrast, degrade])
def test_air_stays_the_darkest_and_the_scale_is_that_of_the_input(style) -> None:
    image, mask = brain()
    out = style(image, mask, np.random.default_rng(1))
    where = inside(image[0])
    assert (out[0][~where] == out.min()).all()
    assert abs(float(out[0][where].mean())) < 1e-4 and abs(float(out[0][where].std(correction=0)) - 1) < 1e-3
    assert torch.equal(out, style(image, mask, np.random.default_rng(1)))


@pytest.mark.parametrize("style", [random_curve, synthesise, random_contrast])
def test_a_structure_can_become_as_dark_as_air(style) -> None:
    image, mask = brain()
    gaps = []
    for seed in range(40):
        out = style(image, mask, np.random.default_rng(seed))[0]
        gaps.append(float(out[mask == 1].median() - out.min()))
    assert min(gaps) < 0.8 and max(gaps) > 2


def test_a_curve_is_a_function_of_intensity() -> None:
    levels = torch.tensor([0.0, 1.0, 2.0, 1.0, 0.0, 2.0, 3.0, 3.0])  # each three wide: nothing of it is noise
    image = levels.repeat_interleave(3)[None, None]
    out = random_curve(image, None, np.random.default_rng(0))[0, 0, 1::3]
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
    cleaned, good = plausible(guess, usual_of([truth], 2))
    assert good and cleaned[9, 9] == UNKNOWN and cleaned[3, 3] == 1
    assert not plausible(np.ones((12, 12), np.uint8), usual_of([truth], 2))[1]
    assert largest(guess == 1, 1).sum() == 16


def test_pooled_dice_equals_the_formula() -> None:
    a, b = torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2])
    assert abs(pooled_dice([(a, b)], 3) - (2 * 1 / 3 + 2 * 1 / 3) / 2) < 1e-9


def test_a_curve_does_not_turn_noise_into_contrast() -> None:
    rng = np.random.default_rng(0)
    flat = torch.zeros(1, 40, 40)
    flat[:, 10:30, 10:30] = 4
    noisy = flat + 0.1 * torch.from_numpy(rng.standard_normal((1, 40, 40))).float()
    for seed in range(20):
        new = random_curve(noisy, None, np.random.default_rng(seed))[0]
        within = 0.5 * (new[12:28, 12:28].std() + new[:8].std())
        assert within < 0.9 * new.std() or abs(new[12:28, 12:28].mean() - new[:8].mean()) < 0.5


def test_random_contrast_moves_a_structure_by_itself() -> None:
    image, mask = torch.randn(1, 32, 32) * 0.1, torch.zeros(32, 32, dtype=torch.uint8)
    mask[8:24, 8:24] = 1
    gaps = []
    for seed in range(12):
        new = random_contrast(image, mask, np.random.default_rng(seed))[0]
        gaps.append(abs(float(new[10:22, 10:22].mean() - new[mask == 0].mean())))
    assert max(gaps) > 0.8  # the image itself shows nothing of it, so no curve could


def test_regions_are_complete_and_unknown_voxels_are_background() -> None:
    channel = torch.zeros(8, 8)
    channel[:, 4:] = 3
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[0, 0], mask[7, 7] = 1, UNKNOWN
    where = torch.ones(8, 8, dtype=torch.bool)
    where[3, 3] = False
    found = regions(channel, mask, where, 2)
    assert found[3, 3] == 0 and found[0, 0] == 1 and found[7, 7] == found[1, 6] == 3 and found[1, 1] == 2


def test_voxels_of_unknown_class_teach_nothing() -> None:
    scores = torch.randn(2, 3, 4, 4, requires_grad=True)
    masks = torch.randint(0, 3, (2, 1, 4, 4)).to(torch.uint8)
    masks[:, :, :2] = UNKNOWN
    outputs, told = known([scores, scores[..., ::2, ::2]], masks)
    sum(out.log_softmax(1)[:, 0].sum() for out in outputs).backward()
    assert (scores.grad[:, :, :2] == 0).all() and (scores.grad[:, :, 2:] != 0).any() and int(told.max()) < 3


def test_pseudo_labels_leave_out_what_is_unsure_and_a_class_of_the_wrong_size() -> None:
    truth = torch.zeros(12, 12, dtype=torch.uint8)
    truth[2:6, 2:6] = 1
    huge = np.zeros((12, 12), np.uint8)
    huge[:, :9] = 1
    assert (plausible(huge, usual_of([truth], 2))[0][:, :9] == UNKNOWN).all()
    posed = problem()

    def logits(model, image):
        out = torch.zeros(2, 24, 24)
        out[1, 4:12, 4:12] = 6.0
        out[0, 12:] = 6.0
        return out

    found = label(replace(posed, logits=logits), posed.network, posed.target[:1])
    assert found[0][1][8, 8] == 1 and found[0][1][20, 20] == 0 and found[0][1][0, 0] == UNKNOWN


def test_curves_that_only_rise_and_that_only_fall_are_common() -> None:
    image = torch.linspace(-1, 1, 400).view(1, 20, 20)
    turned = []
    for seed in range(80):
        found = random_curve(image, None, np.random.default_rng(seed))
        turned.append(float(torch.corrcoef(torch.stack([image.flatten(), found.flatten()]))[0, 1]))
    assert sum(value < -0.85 for value in turned) > 12 and sum(value > 0.85 for value in turned) > 12
    assert sum(abs(value) < 0.5 for value in turned) > 8  # and others are neither


def test_pseudo_labels_are_told_one_by_one_and_source_masks_are_measured_once(monkeypatch) -> None:
    posed, told, measured = problem(), [], []
    monkeypatch.setattr("fewer.adaptation.pseudo.usual_of", lambda *given: measured.append(1) or usual_of(*given))
    label(posed, posed.network, posed.target, advance=lambda: told.append(1))
    assert len(told) == len(posed.target) and measured == [1]


def test_a_structure_is_as_large_in_voxels_however_large_the_image_around_it() -> None:
    truth, wide = torch.zeros(12, 12, dtype=torch.uint8), np.zeros((48, 48), np.uint8)
    truth[2:6, 2:6] = 1
    wide[20:24, 20:24] = 1  # the same structure in sixteen times the field of view
    assert not plausible(wide, usual_of([truth], 2))[1]
    cleaned, good = plausible(wide, usual_of([truth], 2, True))
    assert good and np.array_equal(cleaned, wide)
    wide[10:40, 10:40] = 1
    assert not plausible(wide, usual_of([truth], 2, True))[1]
