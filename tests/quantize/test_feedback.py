"""Rounding with feedback, against brute force, the textbook loop, and rounding to nearest."""

from itertools import product

import pytest
import torch
from torch import Tensor

from fewer.quantize.feedback import Feedback


def moments(columns: int, rows: int = 200, rank: int | None = None) -> Tensor:
    mix = torch.randn(rank or columns, columns)
    x = torch.randn(rows, rank or columns) @ mix + 0.3 * torch.randn(rows, columns) + 0.5
    return x.T @ x / rows


def distortion(found: Tensor, wanted: Tensor, hessian: Tensor) -> Tensor:
    change = (found - wanted).double()
    return ((change @ hessian.double()) * change).sum(1)


def inputs(rows: int, columns: int, top: int) -> tuple[Tensor, Tensor]:
    weight = torch.randn(rows, columns)
    return weight, weight.abs().amax(1) / top


def textbook(wanted: Tensor, hessian: Tensor, top: int) -> Tensor:
    """OBQ in a fixed order: round the first column, move all others by the closed form, drop the column."""
    h = hessian.double() + 0.01 * float(hessian.diagonal().mean()) * torch.eye(len(hessian), dtype=torch.float64)
    free = (wanted.abs() < top - 0.5).double()
    left, found = wanted.double().clone(), torch.zeros_like(wanted, dtype=torch.float64)
    todo = hessian.diagonal().argsort(descending=True).tolist()
    while todo:
        inverse = torch.linalg.inv(h[todo][:, todo])
        i, rest = todo[0], todo[1:]
        found[:, i] = left[:, i].round().clamp(-top, top)
        error = (left[:, i] - found[:, i]) / inverse[0, 0]
        left[:, rest] -= error[:, None] * inverse[0, 1:] * free[:, rest]
        todo = rest
    return found.float()


@pytest.mark.parametrize("columns", [5, 64, 100])
def test_it_is_the_textbook_loop(columns):
    torch.manual_seed(columns)
    (weight, scale), hessian = inputs(8, columns, 64), moments(columns)
    found = Feedback(hessian).round(weight, scale, 64)
    wanted = weight / scale[:, None]
    expected = textbook(wanted, hessian, 64)
    # a value next to a half may fall to either side, and all that follows then differs; the distortion does not
    assert float((found == expected).float().mean()) > 0.9
    torch.testing.assert_close(
        distortion(found, wanted, hessian).sum(), distortion(expected, wanted, hessian).sum(), rtol=0.05, atol=0
    )


def test_it_is_between_brute_force_and_nearest():
    torch.manual_seed(0)
    (weight, scale), hessian = inputs(100, 4, 3), moments(4, rank=2)
    found, wanted = Feedback(hessian).round(weight, scale, 3), weight / scale[:, None]
    grid = torch.tensor(list(product(range(-3, 4), repeat=4)), dtype=torch.float32)
    least = torch.stack([distortion(grid, row[None], hessian).min() for row in wanted])
    nearest = distortion(wanted.round(), wanted, hessian)
    got = distortion(found, wanted, hessian)
    assert bool((got >= least - 1e-9).all())
    assert float(least.sum()) < float(got.sum()) < 0.8 * float(nearest.sum())


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_what_a_mask_cuts_stays_zero_and_the_passes_only_help(keep):
    torch.manual_seed(1)
    (weight, _), hessian = inputs(32, 96, 64), moments(96, rank=24)
    mask = torch.rand(2, 24).lt(keep).repeat_interleave(16, 0).repeat_interleave(4, 1)
    weight = weight * mask
    peak = weight.abs().amax(1)
    scale = torch.where(peak > 0, peak / 64, torch.ones(()))
    feedback, wanted = Feedback(hessian), weight / scale[:, None]
    distortions = [
        distortion(feedback.round(weight, scale, 64, mask, passes), wanted, feedback.hessian).sum()
        for passes in range(4)
    ]
    assert distortions == sorted(distortions, reverse=True)
    found = feedback.round(weight, scale, 64, mask)
    assert not found[~mask].any() and torch.equal(found, found.round()) and float(found.abs().max()) <= 64
    assert float(distortions[2]) < 0.7 * float(distortion(wanted.round(), wanted, feedback.hessian).sum())


def test_the_largest_weight_of_a_row_still_tells_its_scale():
    torch.manual_seed(2)
    (weight, scale), hessian = inputs(64, 48, 64), moments(48, rank=4)
    found = Feedback(hessian).round(weight, scale, 64)
    assert bool((found.abs().amax(1) == 64).all())
    clipped = Feedback(hessian).round(weight, scale * 0.7, 64)
    assert torch.equal(clipped.abs() == 64, (clipped.abs() == 64) | (weight.abs() >= 64 * 0.7 * scale[:, None]))


@pytest.mark.parametrize("hessian", [torch.zeros(6, 6), torch.full((6, 6), torch.nan)], ids=["zero", "NaN"])
def test_without_moments_it_is_rounding_to_nearest(hessian):
    weight, scale = inputs(4, 6, 64)
    assert torch.equal(Feedback(hessian).round(weight, scale, 64), (weight / scale[:, None]).round())
