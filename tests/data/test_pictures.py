"""Pillow images as inputs: like the files of a folder, with labels or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

import fewer
from fewer.data.images import open_images
from fewer.data.pictures import are_pictures, read_pictures
from fewer.data.preprocess import Preprocess
from fewer.engine.settings import Settings

PICTURES = [Image.fromarray(np.random.default_rng(n).integers(0, 255, (20, 24, 3), dtype=np.uint8)) for n in range(12)]


class Labelled(torch.utils.data.Dataset):
    """As an image folder without a transform."""

    def __len__(self) -> int:
        return len(PICTURES)

    def __getitem__(self, place: int) -> tuple[Image.Image, int]:
        return PICTURES[place], place % 3


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 9, 9), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 4),
    )  # fmt: skip


def test_they_are_told_from_other_inputs() -> None:
    assert are_pictures(PICTURES) and are_pictures(Labelled()) and are_pictures((PICTURES[0],))
    tensors = torch.zeros(3, 3, 8, 8)
    for other in (
        tensors,
        tensors.numpy(),
        list(tensors),
        {"x": tensors},
        DataLoader(tensors),
        iter(PICTURES),
        [],
        "a",
    ):
        assert not are_pictures(other)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "L"])
def test_arrays_of_bytes_are_the_pictures_that_they_are_of(kind: str) -> None:
    """As Pillow, imageio and scikit-image give them: height, width, channels."""
    pictures = [picture.convert(kind) for picture in PICTURES]
    arrays = [np.atleast_3d(np.asarray(picture)) for picture in pictures]
    preprocess = Preprocess(input_size=(3, 16, 16))
    assert are_pictures(arrays) and are_pictures([(arrays[0], 3)])
    found = read_pictures(arrays, 9, preprocess).tensor
    assert torch.equal(found, read_pictures(pictures, 9, preprocess).tensor)
    square = np.stack([np.resize(array, (20, 24, array.shape[2])) for array in arrays])
    assert are_pictures(square) and not are_pictures(square.transpose(0, 3, 1, 2))


def test_a_data_set_of_tensors_says_no_more_of_itself() -> None:
    """torch's data sets have a length and items, and cannot be iterated over as such."""

    class Tensors:
        def __len__(self) -> int:
            return 24

        def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:
            return torch.randn(3, 30, 30, generator=torch.Generator().manual_seed(place)), place % 3

    settings = Settings(calibration=8, sensing=4, heldout=4, sparsities=(0.5,), search=0, additivity=0, baselines=())
    found = [
        fewer.compress(net(), given, "weights=60%", settings=settings).report.verdict.distortion
        for given in (Tensors(), [Tensors()[place] for place in range(24)])
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["RGB", "L", "RGBA", "P", "1", "I;16"])
def test_they_are_read_as_files_are(kind: str, tmp_path: Path) -> None:
    one = Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 130)
    one = one if kind == "I;16" else PICTURES[0].convert(kind)
    one.save(tmp_path / "a.png")
    preprocess = Preprocess(input_size=(3, 16, 16))
    file = open_images([tmp_path / "a.png"], 1, preprocess=preprocess)
    assert torch.equal(read_pictures([one], 5, preprocess).tensor, file.batch())


@pytest.mark.parametrize("given", [PICTURES[:6], Labelled()], ids=["list", "data set"])
def test_a_network_is_compressed_with_them(given) -> None:
    settings = fewer.Settings(
        calibration=4, sensing=2, heldout=1, sparsities=(0.5,), additivity=0, baselines=(), search=0
    )
    with pytest.warns(UserWarning, match="does not say how files become its input"):
        run = fewer.compress(net(), given, "weights=60%", settings=settings)
    assert run.prepared.heldout.batch().shape[1:] == (3, 224, 224)
    assert any("224" in note for note in run.prepared.inputs.notes)
