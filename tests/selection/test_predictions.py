"""Predictions from files: of a classifier, of an ensemble, and maps of a segmentation."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.selection.predictions import read_predictions

NAMES = ["a/1.png", "a/2.png", "b/1.png"]


def entropy(p: np.ndarray) -> np.ndarray:
    return -(p * np.log(p)).sum(-1)


@pytest.mark.parametrize("members", [(), (4,)])
def test_a_classifier_fills_its_rows_and_leaves_the_others_unknown(tmp_path, members):
    values = np.random.default_rng(0).dirichlet(np.ones(3), (*members, 2)).astype(np.float32)
    np.savez(tmp_path / "p.npz", names=["b/1.png", "a/1.png"], probabilities=values)
    found = read_predictions(tmp_path / "p.npz", NAMES)
    assert found.probabilities is not None and found.uncertainty is None
    assert found.probabilities.shape == (*members, 3, 3)
    np.testing.assert_array_equal(found.probabilities[..., [2, 0], :], values)
    assert np.isnan(found.probabilities[..., 1, :]).all() and np.isnan(found.foreground[1])
    mean = values.mean(0) if members else values
    np.testing.assert_allclose(found.foreground[[2, 0]], 1 - mean[:, 0], rtol=1e-6)


def test_maps_are_the_mean_entropy_and_disagreement_of_their_pixels(tmp_path):
    rng, folder = np.random.default_rng(1), tmp_path / "maps" / "a"
    folder.mkdir(parents=True)
    one = rng.dirichlet(np.ones(2), (5, 7)).transpose(2, 0, 1)
    several = rng.dirichlet(np.ones(2), (3, 5, 7)).transpose(0, 3, 1, 2)
    np.save(folder / "1.npy", one)
    np.save(folder / "2.npy", several)
    found = read_predictions(tmp_path / "maps", NAMES)
    assert found.probabilities is None and found.uncertainty is not None and found.disagreement is not None
    pixels, members = one.reshape(2, -1).T, several.reshape(3, 2, -1).transpose(0, 2, 1)
    np.testing.assert_allclose(found.uncertainty[0], entropy(pixels).mean())
    np.testing.assert_allclose(found.uncertainty[1], entropy(members.mean(0)).mean())
    bald = entropy(members.mean(0)) - entropy(members).mean(0)
    np.testing.assert_allclose(found.disagreement[1], bald.mean(), atol=1e-12)
    np.testing.assert_allclose(found.foreground[:2], [one[1].mean(), several[:, 1].mean()])
    assert np.isnan(found.disagreement[0]) and np.isnan(found.uncertainty[2])


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"names": ["a/1.png"], "probabilities": np.ones((2, 3))}, "has 1 names, but probabilities of shape"),
        ({"names": ["z.png"], "probabilities": np.ones((1, 3))}, "none of the 1 predictions .* is for an image"),
        ({"names": ["a/1.png", "./a/1.png"], "probabilities": np.ones((2, 3))}, "has two predictions for a/1.png"),
        ({"probabilities": np.ones((2, 3))}, "give an .npz file with names and probabilities"),
    ],
)
def test_files_that_cannot_be_meant(tmp_path, values, says):
    np.savez(tmp_path / "p.npz", **values)
    with pytest.raises(FewerError, match=says):
        read_predictions(tmp_path / "p.npz", NAMES)


def test_folders_that_cannot_be_meant(tmp_path):
    with pytest.raises(FewerError, match=r"holds no \.npy map"):
        read_predictions(tmp_path, NAMES)
    np.save(tmp_path / "2.npy", np.ones((4, 4)))
    with pytest.raises(FewerError, match=r"it should be \[C, H, W\]"):
        read_predictions(tmp_path, NAMES)
