"""A warm-up learns from images alone, and hands its weights over to a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewer
from fewer.core.errors import FewerError
from fewer.tasks.segment.dataset import image_pool, open_data
from fewer.tasks.segment.preparation import fit_preparation
from fewer.tasks.segment.settings import TrainSettings
from fewer.tasks.segment.training import train
from fewer.tasks.segment.warmup import WarmNetwork, transfer, warm_network, warm_up
from fewer.training.loop import make_accelerator
from tests.tasks.segment.simulated import write_folder

pytest.importorskip("monai", reason="needs the [medical] extra")

TINY = {"width": 4, "levels": 3, "patch_voxels": 1024, "batch": 4, "steps": 6, "every": 2, "learning_rate": 4e-3}


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("discs") / "data", 8, (32, 36))


@pytest.mark.parametrize("kind", ["restoration", "contrastive"])
def test_warm_up_learns_without_masks_and_gives_vectors(tmp_path: Path, kind: str) -> None:
    x = np.arange(36)
    for index in range(8):  # stripes of another width in each image, so that images can be told apart
        stripes = np.sin(x / (0.8 + 0.5 * index)) + 0.3 * np.random.default_rng(index).standard_normal((32, 36))
        Image.fromarray(np.uint8(np.clip(128 + 60 * stripes, 0, 255))).save(tmp_path / f"{index}.png")
    pool = image_pool(sorted(tmp_path.glob("*.png")))
    settings = TrainSettings(**TINY | {"every": 15}, warm_up=kind, warm_up_steps=60)
    warm = warm_network(pool, settings)
    losses = [entry["loss"] for entry in warm.history]
    assert losses[-1] < (0.9 if kind == "restoration" else 0.95) * losses[0]
    embed = warm.embedder()
    vectors = embed(torch.randn(3, 1, *warm.preparation.patch))
    assert vectors.shape == (3, embed.width)
    assert not vectors.requires_grad


def test_what_a_warm_up_hands_over(discs: Path) -> None:
    data = open_data(discs)
    settings = TrainSettings(**TINY, warm_up="restoration", warm_up_steps=2)
    preparation = fit_preparation(data, data.cases, settings)
    from fewer.tasks.segment.networks import build_network

    source = build_network(settings.model_copy(update={"seed": 5}), 2, 1, 1).model
    whole, part = (build_network(settings, 2, 1, 2).model for _ in range(2))
    before = {name: tensor.clone() for name, tensor in part.state_dict().items()}
    everything, encoder = transfer(source, whole, preparation), transfer(source, part, preparation, "encoder")
    assert 0 < len(encoder) < len(everything) < len(before)
    state = part.state_dict()
    for name, tensor in source.state_dict().items():
        same = before[name].shape == tensor.shape
        assert torch.equal(state[name], tensor if name in encoder else before[name]) if same else name not in everything
    history = warm_up(whole, data, data.cases, preparation, settings, make_accelerator(settings))
    assert [entry["step"] for entry in history] == [2.0]


def test_training_may_start_from_a_warm_up(discs: Path, tmp_path: Path) -> None:
    settings = TrainSettings(**TINY | {"every": 15}, warm_up="restoration", warm_up_steps=3)
    warm = warm_network(image_pool(sorted((discs / "images").iterdir())), settings)
    warm.save(tmp_path / "warm")
    again = WarmNetwork.load(tmp_path / "warm")
    assert again.preparation == warm.preparation and again.history == warm.history
    start = TrainSettings(**TINY | {"steps": 1, "learning_rate": 1e-9}, init=str(tmp_path / "warm"))
    state, source = train(discs, settings=start).model.state_dict(), warm.model.state_dict()
    same = [name for name in state if state[name].shape == source[name].shape]
    assert len(same) > len(state) // 2
    for name in same:
        assert torch.allclose(state[name], source[name], atol=1e-5)
    with pytest.raises(FewerError, match="another network"):
        train(discs, settings=TrainSettings(**TINY | {"width": 8}, init=str(tmp_path / "warm")))
    with pytest.raises(FewerError, match="was not trained for segmentation"):
        fewer.evaluate(tmp_path / "warm", discs)
