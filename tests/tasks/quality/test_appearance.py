"""Statistics by which images to show to raters are chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fewer
from fewer.core.errors import FewerError
from fewer.data.distortions.truth import Applied, distort
from fewer.study.tables import read_names
from fewer.tasks.quality.appearance import describe_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of smooth shapes; every fourth one is noisy."""
    place = tmp_path / "photos"
    place.mkdir()
    for i in range(16):
        rng = np.random.default_rng(i)
        small = Image.fromarray(rng.integers(40, 215, (6, 8, 3), np.uint8))
        pixels = np.asarray(small.resize((160 + i, 120), Image.Resampling.BICUBIC))
        pixels = distort(pixels, [Applied("white-noise", 5)], i) if i % 4 == 0 else pixels
        Image.fromarray(pixels).save(place / f"{i:02d}.png")
    return place


def test_noisy_photos_lie_together_whatever_they_show(photos: Path) -> None:
    found, bad = describe_photos(sorted(photos.iterdir()))
    assert not bad and np.isfinite(found).all() and np.abs(found).max() <= 5
    noisy, clean = found[::4], found[[i for i in range(16) if i % 4]]
    within = np.linalg.norm(noisy[:, None] - noisy[None], axis=2).max()
    assert within < np.linalg.norm(noisy[:, None] - clean[None], axis=2).min()


def test_photos_that_cannot_be_measured_are_named(photos: Path) -> None:
    (photos / "a-broken.png").write_bytes(b"nothing")
    Image.new("RGB", (400, 20)).save(photos / "b-thin.png")
    Image.new("L", (64, 64), 90).save(photos / "c-grey.png")
    found, bad = describe_photos(sorted(photos.iterdir()))
    names = [path.name for path in sorted(photos.iterdir())]
    assert {names[row] for row in bad} == {"a-broken.png", "b-thin.png"}
    assert "fewer than 32 pixels" in bad[names.index("b-thin.png")] and np.isfinite(found).all()


def test_select_takes_them_and_a_study_takes_its_queue(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")
    (photos / "a-broken.png").write_bytes(b"nothing")
    done = fewer.select(photos, "labels=4", out=tmp_path / "queue", features="quality", method="kcenter", to=[])
    chosen = [asked.name for asked in done.chosen]
    assert [one.name for one in done.plan.skipped] == ["a-broken.png"]
    assert any(int(name[:2]) % 4 == 0 for name in chosen) and any(int(name[:2]) % 4 for name in chosen)
    assert read_names(tmp_path / "queue" / "queue.csv") == chosen
    more = fewer.select(None, "labels=3", out=tmp_path / "queue", proceed=True, method="kcenter", to=[])
    assert not {asked.name for asked in more.chosen} & set(chosen)
    with pytest.raises(FewerError, match="own pixels; leave --layer"):
        fewer.select(photos, "labels=4", out=tmp_path / "q2", features="quality", input_size=64)
