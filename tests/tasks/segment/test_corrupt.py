"""The corruptions of the warm-up: each does what it is called after, and nothing to what it must leave."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewer.tasks.segment import corrupt
from fewer.tasks.segment.corrupt import bezier_map, corruption


@pytest.mark.parametrize("seed", range(6))
def test_a_monotone_curve_keeps_order_and_range(seed: int) -> None:
    x = torch.randn(400, generator=torch.Generator().manual_seed(seed))
    y = bezier_map(x, np.random.default_rng(seed), monotone=True)
    order = x.argsort()
    assert bool((y[order].diff() >= -1e-6).all())
    assert float(y.min()) == pytest.approx(float(x.min()), abs=1e-5)
    assert float(y.max()) == pytest.approx(float(x.max()), abs=1e-5)


def test_a_free_curve_stays_in_the_range_and_may_turn_it_around() -> None:
    x = torch.linspace(-2, 5, 200)
    curves = [bezier_map(x, np.random.default_rng(seed), monotone=False) for seed in range(12)]
    assert all(y.min() >= -2 - 1e-5 and y.max() <= 5 + 1e-5 for y in curves)
    ends = {bool(y[0] > y[-1]) for y in curves}
    assert ends == {True, False}


def test_a_constant_picture_has_no_curve() -> None:
    x = torch.full((1, 4, 4), 3.0)
    assert torch.equal(bezier_map(x, np.random.default_rng(0), monotone=True), x)


def _only(monkeypatch: pytest.MonkeyPatch, **chances: float) -> None:
    for name in ("SHUFFLE", "CURVE", "PAINT"):
        monkeypatch.setattr(corrupt, name, chances.get(name, 0.0))
    monkeypatch.setattr(corrupt, "OUTWARD", chances.get("OUTWARD", 0.0))


@pytest.mark.parametrize("patch", [(40, 40), (20, 20, 20), (16, 16)])
def test_each_damage_by_itself(monkeypatch: pytest.MonkeyPatch, patch: tuple[int, ...]) -> None:
    pytest.importorskip("monai", reason="needs the [medical] extra")
    image = torch.rand(1, *patch, generator=torch.Generator().manual_seed(0))
    rng = np.random.default_rng(0)
    _only(monkeypatch)
    assert torch.equal(corruption(patch)(image, rng), image)
    _only(monkeypatch, SHUFFLE=1.0)
    shuffled = corruption(patch)(image, rng)
    assert not torch.equal(shuffled, image)
    assert torch.equal(shuffled.flatten().sort().values, image.flatten().sort().values)  # only places change
    _only(monkeypatch, PAINT=1.0)
    inside = (corruption(patch)(image, rng) != image).float().mean()
    _only(monkeypatch, PAINT=1.0, OUTWARD=1.0)
    outside = (corruption(patch)(image, rng) != image).float().mean()
    assert 0 < inside < 0.5 < outside < 1


def test_the_same_generator_gives_the_same_damage_and_the_original_stays() -> None:
    pytest.importorskip("monai", reason="needs the [medical] extra")
    image = torch.rand(3, 24, 24)
    before = image.clone()
    damage = corruption((24, 24))
    first, second = (damage(image, np.random.default_rng(5)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(image, before)
    assert not torch.equal(damage(image, np.random.default_rng(6)), first)
