"""Features of a warmed-up network: one vector per image, the same after they were kept, from broken files none."""

from __future__ import annotations

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.tasks.segment import features

pytest.importorskip("monai", reason="needs the [medical] extra")


def test_vectors_of_a_pool_and_of_the_kept_network(disc_data, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(features, "STEPS", 2)
    files = sorted((disc_data / "images").iterdir())
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"x")
    made = features.warm_features([*files, broken], tmp_path / "warm", side=16)
    x = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        vectors, kept = made(x), features.warm_features([], tmp_path / "warm")(x)
    assert vectors.ndim == 2 and len(vectors) == 3 and torch.equal(vectors, kept)
    assert not torch.allclose(vectors[0], vectors[1])
    assert made.preprocess.input_size == (1, 16, 16) and not (tmp_path / "warm" / "scratch").exists()


def test_a_side_that_does_not_fit_is_told(tmp_path) -> None:
    with pytest.raises(FewerError, match="multiple of 8"):
        features.warm_features([], tmp_path, side=20)
