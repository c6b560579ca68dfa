"""Anything a user has for images becomes one checked tensor."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from fewer.core.errors import FewerError
from fewer.data.calibration import as_calibration
from fewer.data.images import ImageSet
from fewer.data.preprocess import Preprocess

X = torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "make",
    [
        lambda: X,
        lambda: X.numpy(),
        lambda: X.double(),
        lambda: list(X),
        lambda: [X[:4], X[4:8], X[8:]],
        lambda: list(zip(X, range(10), strict=True)),
        lambda: DataLoader(TensorDataset(X, torch.arange(10)), batch_size=4),
        lambda: DataLoader(X.unbind(), batch_size=3),
        lambda: [{"pixel_values": X[:5], "labels": 1}, {"pixel_values": X[5:]}],
        lambda: [x.numpy() for x in X],
        lambda: (x for x in X),
        lambda: ImageSet(X),
    ],
    ids=range(12),
)
@pytest.mark.parametrize("wanted", [7, 64, None])
def test_every_kind_gives_the_same_rows(make, wanted):
    tensor = as_calibration(make(), wanted).tensor
    assert tensor.dtype == torch.float32
    assert torch.equal(tensor, X[:wanted])


def test_an_endless_iterable_is_read_no_further_than_needed():
    drawn = []
    endless = (drawn.append(i) or X[:4] for i in count())
    assert len(as_calibration(endless, 10).tensor) == 10
    assert len(drawn) == 3


def test_a_folder_and_a_list_of_files(tmp_path):
    for index in range(3):
        Image.new("RGB", (9, 9), (index, 0, 0)).save(tmp_path / f"{index}.png")
    (tmp_path / "bad.jpg").write_text("x")
    raw = Preprocess((3, 4, 4), mean=0.0, std=1.0)
    for images in (tmp_path, str(tmp_path), sorted(tmp_path.iterdir())):
        found = as_calibration(images, preprocess=raw)
        assert found.tensor.shape == (3, 3, 4, 4)
        assert [path.name for path, _ in found.skipped] == ["bad.jpg"]
    assert len(as_calibration(tmp_path, 8, preprocess=raw, crops=5)) == 8


def test_the_callers_tensor_is_not_shared():
    mine = X.clone()
    tensor = as_calibration(mine).tensor
    mine.zero_()
    assert torch.equal(tensor, X)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["tensor", "list", "batches"])
def test_bad_values_are_named(bad, kind):
    broken = X.clone()
    broken[7, 0, 0, 0] = bad
    images = {"tensor": broken, "list": list(broken), "batches": [broken[:5], broken[5:]]}[kind]
    with pytest.raises(FewerError, match="image 7 holds NaN"):
        as_calibration(images)
    assert len(as_calibration(images, 7)) == 7  # the bad one is not used


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "empty"),
        (torch.zeros(0, 3, 4, 4), "needs"),
        (torch.zeros(4), "needs"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "torch.uint8"),
        (3, "got int"),
        (["a", 3], "argument|image|int"),
        ([torch.zeros(3, 4, 4), torch.zeros(3, 5, 5)], r"image 1 has shape \(3, 5, 5\)"),
        ([torch.zeros(4)], "a sample has 3 dimensions"),
        ([{"foo": 1}], "item 0 of the images is no tensor"),
        (["nowhere.png"], "nowhere.png"),
    ],
)
def test_what_is_no_image(images, message):
    with pytest.raises((FewerError, TypeError), match=message) as caught:
        as_calibration(images)
    assert isinstance(caught.value, FewerError) or images == ["a", 3]


def test_signals_and_volumes():
    assert as_calibration([torch.zeros(2, 50)] * 3, sample_ndim=2).tensor.shape == (3, 2, 50)
    assert as_calibration([torch.zeros(6, 1, 4, 4, 4)], 5, sample_ndim=4).tensor.shape == (5, 1, 4, 4, 4)
    assert as_calibration(np.zeros((5, 2, 50), np.float32), 3).tensor.shape == (3, 2, 50)


def test_count_must_be_positive():
    with pytest.raises(FewerError, match="at least 1"):
        as_calibration(X, 0)
