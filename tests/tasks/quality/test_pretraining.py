"""The encoder of statistics: what it measures, what it keeps, and that it learns from simulated distortions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fewer.core.errors import FewerError
from fewer.data.distortions.truth import PLACES, Applied, coverage, distort
from fewer.tasks.quality.encoders import StatisticsEncoder
from fewer.tasks.quality.pretraining import draw_examples, learn, pretrain
from fewer.tasks.quality.scene import scene_statistics


def scene(seed: int, side: int = 96) -> np.ndarray:
    """A picture whose spectrum falls like that of photos."""
    rng = np.random.default_rng(seed)
    rough = np.stack([np.fft.rfft2(rng.standard_normal((side, side))) for _ in range(3)])
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    smooth = np.fft.irfft2(rough / (np.hypot(rows, columns) + 1 / side), (side, side))
    smooth = smooth / smooth.std((1, 2), keepdims=True) * 0.18 + 0.5
    return np.rint(np.clip(smooth, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)


def tensor(*pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy()).float() / 255


@pytest.mark.parametrize("size", [(32, 32), (96, 64), (97, 131)])
def test_as_many_statistics_as_the_encoder_expects_and_all_are_numbers(size):
    for pixels in (torch.zeros(2, 3, *size), torch.ones(2, 3, *size), torch.rand(2, 3, *size)):
        whole, cells = scene_statistics(pixels, 3)
        assert whole.shape == (2, StatisticsEncoder.WHOLE) and cells.shape == (2, 9, StatisticsEncoder.CELL)
        assert whole.isfinite().all() and cells.isfinite().all()


def test_an_image_is_measured_alike_alone_and_in_a_batch():
    both = tensor(scene(0), scene(1))
    whole, cells = scene_statistics(both)
    alone = scene_statistics(both[1:])
    assert torch.allclose(whole[1:], alone[0], atol=1e-4) and torch.allclose(cells[1:], alone[1], atol=1e-4)


def test_only_the_distorted_cells_change():
    clean = scene(2)
    worse = distort(clean, [Applied("white-noise", 5, "left half")])
    before, after = (scene_statistics(tensor(p), 2)[1][0] for p in (clean, worse))
    change = (after - before).abs().mean(1)
    assert change[[0, 2]].min() > 5 * change[[1, 3]].max()


@pytest.mark.parametrize("place", [*PLACES, ""])
def test_coverage_is_the_mean_of_the_mask_in_each_cell(place):
    grey = np.full((48, 48, 3), 100, np.uint8)
    shift = distort(grey, [Applied("mean-shift", 5)]).astype(float)[0, 0, 0] - 100
    change = (distort(grey, [Applied("mean-shift", 5, place)]).astype(float)[:, :, 0] - 100) / shift
    cells = change.reshape(4, 12, 4, 12).mean((1, 3))
    assert coverage(place, 4, 48) == pytest.approx(cells, abs=0.03)


def test_a_view_that_came_before_is_not_measured_again(monkeypatch):
    from fewer.tasks.quality import encoders as module

    seen: list[int] = []
    real = module.scene_statistics
    monkeypatch.setattr(module, "scene_statistics", lambda p, grid: seen.append(len(p)) or real(p, grid))
    encoder = StatisticsEncoder(8, 2).eval()
    pictures = tensor(scene(0, 32), scene(1, 32), scene(0, 32))
    first = encoder(pictures)
    assert torch.allclose(first[0], first[2], atol=1e-5)
    assert torch.allclose(encoder(pictures.flip(0)), first.flip(0), atol=1e-5)
    assert sum(seen) == 3 and torch.allclose(StatisticsEncoder.tell(encoder, *real(pictures, 2)), first, atol=1e-4)


def test_what_it_learns_holds_on_photos_that_it_never_saw(tmp_path):
    paths = []
    for i in range(8):
        Image.fromarray(scene(i, 128)).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")
    families = ("white-noise", "gaussian-blur", "darken")
    torch.manual_seed(0)
    encoder = StatisticsEncoder(16, 2)
    reader = pretrain(encoder, paths[:6], 160, side=48, families=families)
    held = draw_examples(paths[6:], 64, grid=2, side=48, families=families, seed=5)
    with torch.no_grad():
        _, aspects, _, level, _ = reader(held.whole, held.cells)
    from fewer.tasks.quality.correlation import correlations

    assert correlations(level.numpy(), held.levels.numpy())["srcc"] > 0.7
    whole = held.aspects.amax(1)
    harmed = whole.amax(1) > 0.3
    assert (aspects.argmax(1) == whole.argmax(1))[harmed].float().mean() > 0.7


def test_examples_follow_from_the_seed_and_need_photos(tmp_path):
    Image.fromarray(scene(0)).save(tmp_path / "a.png")
    one, two = (draw_examples([tmp_path / "a.png"], 5, grid=2, side=32, seed=3) for _ in range(2))
    assert torch.equal(one.whole, two.whole) and torch.equal(one.aspects, two.aspects)
    with pytest.raises(FewerError, match="no clean photo"):
        draw_examples([], 5)
    encoders = [StatisticsEncoder(8, 2) for _ in range(2)]
    for encoder in encoders:
        torch.manual_seed(1)
        encoder.load_state_dict(StatisticsEncoder(8, 2).state_dict())
        learn(encoder, one, epochs=20, seed=2)
    assert torch.equal(encoders[0].read[1].weight, encoders[1].read[1].weight)
