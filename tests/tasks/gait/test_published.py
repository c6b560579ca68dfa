"""Checkpoints as OpenGait writes them, opened without running anything in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import fewer
from fewer.core.errors import FewerError
from fewer.tasks.gait.embed import embed
from fewer.tasks.gait.networks import NetworkConfig, build_network
from fewer.tasks.gait.networks import build as building
from fewer.tasks.gait.published import open_published, published_run
from fewer.tasks.gait.simulator import Walkers


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Published networks of the widths of the tiny ones: what is tested is how they are found."""
    sizes = {name: {**some, "published": {**some["tiny"]}} for name, some in building.SIZES.items()}
    monkeypatch.setattr(building, "SIZES", sizes)


def checkpoint(place: Path, network: str, classes: int = 7, layers=None, prefix: str = "") -> Path:
    torch.manual_seed(1)
    config = NetworkConfig(network=network, size="published", classes=classes, layers=layers)  # type: ignore[arg-type]
    state = {prefix + name: value for name, value in build_network(config).state_dict().items()}
    optimiser = {"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    torch.save({"model": state, "optimizer": optimiser, "scheduler": {"last_epoch": 3}, "iteration": 60000}, place)
    return place


@pytest.mark.parametrize("network", ["gaitset", "gaitpart", "gaitgl", "gaitbase", "deepgaitv2"])
def test_which_network_it_is_follows_from_the_weights(tmp_path: Path, network: str) -> None:
    found = open_published(checkpoint(tmp_path / "a.pt", network))
    assert found.config.network == network
    expected = torch.load(tmp_path / "a.pt", weights_only=True)["model"]
    assert all(torch.equal(value, expected[name]) for name, value in found.state_dict().items())


def test_deeper_ones_and_wrapped_ones(tmp_path: Path) -> None:
    found = open_published(checkpoint(tmp_path / "a.pt", "deepgaitv2", 5, (1, 4, 4, 1), prefix="module."))
    assert found.config.layers == (1, 4, 4, 1) and found.config.classes == 5


def test_a_run_folder_for_every_verb(tmp_path: Path) -> None:
    run = published_run(checkpoint(tmp_path / "a.pt", "gaitbase"), tmp_path / "run")
    Walkers(seed=0).write(tmp_path / "walks", 3, train=1, kinds=("nm-01", "nm-05"), views=("054", "090"), frames=9)
    assert 0 <= fewer.evaluate(run, tmp_path / "walks").numbers["NM"] <= 100
    masks = np.repeat(np.eye(64, dtype=np.uint8)[None] * 255, 4, 0)
    assert np.array_equal(embed(run, masks), embed(open_published(tmp_path / "a.pt"), masks))
    assert (
        fewer.evaluate(tmp_path / "a.pt", tmp_path / "walks").numbers == fewer.evaluate(run, tmp_path / "walks").numbers
    )
    with pytest.raises(FewerError, match="already holds a run"):
        published_run(tmp_path / "a.pt", run)


@pytest.mark.parametrize("network", ["gaitset", "gaitgl", "gaitbase", "deepgaitv2"])
def test_other_widths_are_read_off_the_weights(tmp_path: Path, network: str) -> None:
    """GaitSet for OU-MVLP and GREW is twice as wide as for CASIA-B."""
    channels = (6, 10, 12, 14) if network in ("gaitbase", "deepgaitv2") else (6, 10, 12)
    outs = 20 if network in ("gaitset", "gaitbase") else None
    config = NetworkConfig(network=network, size="published", classes=4, channels=channels, outs=outs)  # type: ignore[arg-type]
    torch.save(build_network(config).state_dict(), tmp_path / "a.pt")
    run = published_run(tmp_path / "a.pt", tmp_path / "run")
    masks = np.repeat(np.eye(64, dtype=np.uint8)[None] * 255, 5, 0)
    assert np.array_equal(embed(run, masks), embed(open_published(tmp_path / "a.pt"), masks))
    assert open_published(tmp_path / "a.pt").config.channels == channels


def test_what_is_no_checkpoint_is_told(tmp_path: Path) -> None:
    torch.save({"model": {"fc.weight": torch.zeros(2, 2)}}, tmp_path / "other.pt")
    state = build_network(NetworkConfig(size="small")).state_dict()
    torch.save(state, tmp_path / "wide.pt")
    del state["FCs.fc_bin"]
    torch.save(state, tmp_path / "half.pt")
    torch.save({"model": print}, tmp_path / "code.pt")
    told = {
        "other.pt": "no network that is known",
        "wide.pt": "our own size small",
        "half.pt": "it lacks",
        "code.pt": "more than",
    }
    for name, words in told.items():
        with pytest.raises(FewerError, match=words) as error:
            open_published(tmp_path / name)
        assert "\n" not in str(error.value)
