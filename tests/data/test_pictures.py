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
