"""Every row of the table of distortions keeps the same promises."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.data.distortions.families import FAMILIES, STAGES
from fewer.data.distortions.filters import gaussian, spread
from fewer.data.distortions.truth import PLACES, Applied, Truth, distort, draw_recipe, family, overall_level


def photo(side: int = 96) -> np.ndarray:
    rng = np.random.default_rng(3)
    coarse = np.kron(rng.random((6, 6, 3)), np.ones((side // 6, side // 6, 1)))
    fine = 0.12 * rng.standard_normal((side, side, 1))
    ramp = np.linspace(-0.2, 0.2, side)[:, None, None]
    return (np.clip(0.15 + 0.6 * coarse + fine + ramp, 0, 1) * 255).astype(np.uint8)


@pytest.mark.parametrize("name", FAMILIES)
def test_harm_grows_with_severity_and_a_seed_repeats(name):
    image = photo()
    errors = []
    for severity in range(1, 6):
        made = distort(image, [Applied(name, severity)], seed=1)
        assert made.shape == image.shape and made.dtype == np.uint8
        assert (made == distort(image, [Applied(name, severity)], seed=1)).all()
        errors.append(float(((made.astype(float) - image) ** 2).mean()))
    assert errors[0] > 0.1
    # neighbours may tie or swap a little (random places), the ends never do
    assert errors[4] > 1.5 * errors[0] and np.corrcoef(errors, range(5))[0, 1] > 0.8


@pytest.mark.parametrize("name", FAMILIES)
def test_a_local_distortion_leaves_the_rest_alone(name):
    image = photo()
    made = distort(image, [Applied(name, 5, "upper left")], seed=2)
    assert (made[64:, 64:] == image[64:, 64:]).all()
    assert (made[:40, :40] != image[:40, :40]).any()


def test_rows_name_a_stage_an_aspect_and_a_word_that_means_it():
    from fewer.study.vocabulary import ASPECTS, statements

    for name in FAMILIES:
        row = family(name)
        assert row.stage in STAGES and row.aspect in ASPECTS and row.note
        said = statements(f"The cat is {row.word}.")
        assert [(s.aspect, s.polarity) for s in said] == [(row.aspect, "bad")], row.word
    assert [STAGES.index(family(n).stage) for n in FAMILIES] == sorted(STAGES.index(family(n).stage) for n in FAMILIES)


def test_camera_order_does_not_depend_on_the_list():
    image = photo()
    one, two = Applied("jpeg", 3), Applied("darken", 2)
    assert (distort(image, [one, two]) == distort(image, [two, one])).all()


def test_gaussian_equals_a_dense_convolution():
    x = np.random.default_rng(0).random((9, 8, 1)).astype(np.float32)
    reach = 3
    at = np.arange(-reach, reach + 1)
    w = np.exp(-0.5 * (at / 0.9) ** 2)
    w /= w.sum()
    padded = np.pad(x[..., 0], reach, "symmetric")
    brute = np.array([[(padded[i : i + 7, j : j + 7] * np.outer(w, w)).sum() for j in range(8)] for i in range(9)])
    assert np.allclose(gaussian(x, 0.9)[..., 0], brute, atol=1e-6)
    assert np.allclose(spread(x, [(0, 0)], np.ones(1)), x)


def test_recipes_mix_families_of_different_aspects():
    rng = np.random.default_rng(0)
    drawn = [draw_recipe(rng) for _ in range(300)]
    assert {len(r) for r in drawn} == {0, 1, 2, 3}
    assert all(len({family(a.family).aspect for a in r}) == len(r) for r in drawn)
    local = np.mean([bool(a.place) for r in drawn for a in r])
    assert 0.3 < local < 0.45
    only = [draw_recipe(rng, ["jpeg", "darken"], clean=0.0) for _ in range(20)]
    assert {a.family for r in only for a in r} == {"jpeg", "darken"}


def test_truth_is_read_back_and_bad_ones_are_refused():
    truth = Truth("b.png", "a.png", (Applied("jpeg", 2, PLACES[0]), Applied("darken", 5)), "cat")
    assert Truth.of(truth.to_dict()) == truth
    assert overall_level(truth) == 1.0 or overall_level(truth) < 2
    with pytest.raises(FewerError, match="did you mean 'jpeg'"):
        Applied("jpge", 2)
    with pytest.raises(FewerError, match="severity 6"):
        Applied("jpeg", 6)
    with pytest.raises(FewerError, match="no record"):
        Truth.of({"image": "x"})
    with pytest.raises(FewerError, match="three channels"):
        distort(np.zeros((4, 4), np.uint8), [])
