"""Every network by name, its outputs as a list of scales, losses over them, and what a step needs of memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.models.build import build_architecture
from fewer.tasks.segment.losses import ScaledLoss, named_loss
from fewer.tasks.segment.networks import NETWORKS, build_network, check_network, scales
from fewer.tasks.segment.settings import TrainSettings
from fewer.tasks.segment.task import Segment

pytest.importorskip("monai", reason="needs the [medical] extra")


def test_a_dynunet_of_two_levels_is_refused_in_words() -> None:
    with pytest.raises(FewerError, match="dynunet has 3 levels or more; give --levels 3, not 2"):
        build_network(TrainSettings(network="dynunet", width=4, levels=2), 2, 1, 2)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", NETWORKS)
def test_each_network_fits_and_is_built_again_from_its_source(name: str, dims: int) -> None:
    levels = 5 if name == "basic-unet" else 3
    settings = TrainSettings(network=name, width=4, levels=levels, seed=3)
    loaded = build_network(settings, dims, 2, 3)
    patch = (32,) * dims if dims == 3 and levels == 5 else (16, 24, 16)[:dims] if levels == 3 else (32, 48)
    check_network(loaded.model, name, 2, 3, patch)
    again = build_architecture(loaded.source)
    again.load_state_dict(loaded.model.state_dict())
    x = torch.randn(1, 2, *patch)
    with torch.no_grad():
        assert torch.equal(scales(again(x), dims)[0], scales(loaded.model.eval()(x), dims)[0])


@pytest.mark.parametrize(("name", "count"), [("dynunet", 2), ("segresnet", 2), ("mednext", 3)])
def test_deep_supervision_is_a_list_from_full_to_coarse(name: str, count: int) -> None:
    settings = TrainSettings(network=name, width=4, levels=3, deep_supervision=count)
    net = build_network(settings, 2, 1, 2).model.train()
    outputs = scales(net(torch.zeros(2, 1, 16, 16)), 2)
    assert len(outputs) >= count
    assert outputs[0].shape == (2, 2, 16, 16)
    assert all(a.shape[2] >= b.shape[2] for a, b in itertools.pairwise(outputs))
    ScaledLoss(named_loss("dice-ce"), settings.scale_weights)(outputs, torch.zeros(2, 1, 16, 16)).backward()
    net.eval()
    assert scales(net(torch.zeros(1, 1, 16, 16)), 2)[0].shape == (1, 2, 16, 16)


def test_one_output_cannot_be_supervised_deeply() -> None:
    with pytest.raises(FewerError, match="dynunet"):
        build_network(TrainSettings(deep_supervision=2), 2, 1, 2)
    with pytest.raises(FewerError, match="did you mean 'unet'"):
        build_network(TrainSettings(network="unett"), 2, 1, 2)


def test_a_network_of_ones_own_is_checked_before_training(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text("from torch import nn\ndef net():\n    return nn.Conv2d(1, 5, 1)\n")
    loaded = build_network(TrainSettings(network=f"{file}:net"), 2, 1, 2)
    with pytest.raises(FewerError, match=r"makes \(1, 5, 8, 8\).*need \(1, 2, 8, 8\)"):
        check_network(loaded.model, "net.py:net", 1, 2, (8, 8))


def test_the_list_of_networks_is_what_can_be_built() -> None:
    pytest.importorskip("monai", reason="needs the [medical] extra")
    from fewer.tasks.segment.networks import build_network

    assert Segment().networks().keys() == NETWORKS.keys()
    for name in NETWORKS:
        settings = TrainSettings(network=name, width=4, levels=5)
        net = build_network(settings, 2, 1, 2).model.eval()
        with torch.no_grad():
            found = net(torch.zeros(1, 1, 64, 64))
        assert (found[0] if isinstance(found, (list, tuple)) else found).shape[1] == 2, name
