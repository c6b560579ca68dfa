"""Translators: shapes, air, determinism, and the checks that refuse those that delete or invent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fewer.adaptation import ms_mt
from fewer.adaptation.problem import Work
from fewer.adaptation.translate.cut import train_cut
from fewer.adaptation.translate.cyclegan import train_cyclegan
from fewer.adaptation.translate.safety import Checks, check_translation, edge_agreement
from fewer.adaptation.translate.slices import SliceDraws, Translator, slices_of
from tests.adaptation.domains import problem, settings


def test_translations_lie_on_the_same_grid_and_air_stays_air() -> None:
    volume = torch.randn(1, 9, 8, 5)
    volume[:, :3] = -9.0
    for around in (1, 3):
        net = nn.Conv2d(around, 1, 3, padding=1)
        out = Translator(net, around).image(volume)
        assert out.shape == volume.shape and torch.equal(out[:, :3], volume[:, :3])
        want = net(slices_of(volume, 2, around)[2:3])[0]
        where = volume[0, :, :, 2] > -9
        got = out[0, :, :, 2][where]
        assert float(np.corrcoef(got.numpy(), want[0][where].detach().numpy())[0, 1]) > 0.999


def test_the_middle_slice_is_in_the_middle() -> None:
    volume = torch.arange(5.0).expand(1, 4, 4, 5)
    x, _ = SliceDraws([(volume, None)], 16, 3).batch((0,), 4)
    assert x.shape == (4, 3, 16, 16)
    assert bool((x[:, 1, 0, 0] >= x[:, 0, 0, 0]).all()) and bool((x[:, 2, 0, 0] >= x[:, 1, 0, 0]).all())


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 20, 24), 24), ((1, 9, 9), 16), ((1, 90, 30), 64), ((1, 30, 4, 22), 30), ((1, 5, 6, 200), 64)],
)
def test_crops_are_no_larger_than_what_there_is(shape: tuple[int, ...], size: int) -> None:
    x, y = SliceDraws([(torch.randn(shape), None)], 64, 1).batch((0,), 2)
    assert x.shape == (2, 1, size, size) and y.shape == (2, size, size)


@pytest.mark.parametrize("without", [(), ("segmentation-heads",), ("edges",)])
def test_cut_is_deterministic(without: tuple[str, ...]) -> None:
    chosen = settings(without=without)
    one, two = (train_cut(problem(), chosen, Work())[0].image(problem().source[0][0]) for _ in range(2))
    assert torch.equal(one, two) and bool(torch.isfinite(one).all())


@pytest.mark.parametrize(("without", "more"), [((), "; random curves take its place"), (("curves",), "")])
def test_ms_mt_says_what_takes_the_place_of_an_unsafe_translator(
    without: tuple[str, ...], more: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ms_mt, "check_translation", lambda *_: Checks((), 0.1, 0.9, (0.0, 0.0), (1.0, 1.0)))
    work = Work()
    ms_mt.translated_source(problem(), settings(without=without), work)
    told = "the translator is not used: it invents structures (edges agree 0.10, new edges 90%)"
    assert work.notes == [told + more]


def test_cyclegan_goes_both_ways() -> None:
    given = problem()
    forth, back, stage = train_cyclegan(given, settings(), Work(), list(given.source))
    assert stage.step == 2 and back.image(forth.image(given.source[0][0])).shape == given.source[0][0].shape


def test_a_translator_that_keeps_the_anatomy_is_safe() -> None:
    given = problem()
    checks = check_translation(given, [-image for image, _ in given.source])
    assert checks.safe and checks.edges > 0.99 and not checks.lost


def test_edges_are_compared_in_volumes_of_one_slice_along_any_axis() -> None:
    image = torch.rand(1, 16, 1, 16, generator=torch.Generator().manual_seed(0))
    assert edge_agreement(image, -image) == (1.0, 0.0) == edge_agreement(image[:, :, 0], -image[:, :, 0])


def test_one_that_deletes_a_structure_is_named() -> None:
    given = problem()
    flat = []
    for image, mask in given.source:
        assert mask is not None
        flat.append(torch.where(mask == 1, image[0][mask == 0].mean(), image))
    checks = check_translation(given, flat)
    assert not checks.safe and checks.lost == ["disc"] and "deletes disc" in checks.sentence


def test_one_that_invents_is_refused() -> None:
    given = problem()
    rng = np.random.default_rng(0)
    clean = [
        (mask[None].float() + 0.001 * torch.rand(mask.shape), mask) for _, mask in given.source if mask is not None
    ]
    painted = []
    for image, _ in clean:
        new = image.clone()
        new[0, :6, :6] += 5 * torch.from_numpy(rng.random((6, 6))).float()
        new[0, -6:, -6:] += 5 * torch.from_numpy(rng.random((6, 6))).float()
        painted.append(new)
    checks = check_translation(replace(given, source=clean), painted)
    assert not checks.safe
