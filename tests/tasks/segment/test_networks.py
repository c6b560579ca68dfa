"""Every network by name, its outputs as a list of scales, losses over them, and what a step needs of memory."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.models.build import build_architecture
from fewer.tasks.segment.bottleneck import Embedder, find_bottleneck
from fewer.tasks.segment.losses import ScaledLoss, named_loss
from fewer.tasks.segment.memory import Memory, check_memory, estimate_memory, saved_bytes
from fewer.tasks.segment.networks import NETWORKS, build_network, check_network, scales
from fewer.tasks.segment.settings import TrainSettings

pytest.importorskip("monai", reason="needs the [medical] extra")


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


def test_scales_weigh_as_told_and_compare_at_their_own_resolution() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    full, half = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 2, 2)
    loss = named_loss("ce")
    small = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    wanted = 0.75 * loss(full, target) + 0.25 * loss(half, small)
    assert torch.allclose(ScaledLoss(loss, (0.75, 0.25))([full, half], target), wanted)
    assert torch.allclose(ScaledLoss(loss, (1.0, 0.0))([full, half], target), loss(full, target))
    with pytest.raises(FewerError, match="1 outputs"):
        ScaledLoss(loss, (0.5, 0.5))([full], target)


@pytest.mark.parametrize("name", ["dice-ce", "dice-focal", "dice", "tversky", "ce"])
def test_losses_fall_towards_the_truth(name: str) -> None:
    target = torch.zeros(2, 1, 6, 6)
    target[:, :, 2:4, 2:4] = 1
    right = torch.cat([1 - target, target], 1) * 20 - 10
    loss = named_loss(name)
    assert float(loss(right, target)) < 0.05 < float(loss(-right, target))


def test_memory_is_counted_on_meta_tensors_as_it_is_for_real() -> None:
    net = build_network(TrainSettings(width=4, levels=3), 2, 1, 2).model.train()
    x = torch.zeros(3, 1, 16, 16)
    import copy

    ghost = saved_bytes(copy.deepcopy(net).to("meta"), x.to("meta"))
    real = saved_bytes(net, x)
    assert ghost == pytest.approx(real, rel=0.02)
    found = estimate_memory(net, (6, 1, 16, 16), 2)
    twice = estimate_memory(net, (12, 1, 16, 16), 2)
    assert twice.activations == pytest.approx(2 * found.activations, rel=0.05)
    assert found.weights == sum(p.numel() for p in net.parameters()) * 16


def test_too_little_memory_is_told_before_training() -> None:
    with pytest.raises(FewerError, match=r"only 1.00 GB is free; give a smaller --batch"):
        check_memory(Memory(10**9, 10**9, 0), free=10**9)


def test_the_bottleneck_of_a_unet_is_its_deepest_level() -> None:
    settings = TrainSettings(width=4, levels=3)
    net = build_network(settings, 2, 1, 2).model
    place = find_bottleneck(net, torch.zeros(1, 1, 32, 32))
    assert place.width == 16
    seen = []
    handle = net.get_submodule(place.module).register_forward_hook(lambda m, i, o: seen.append(o.shape))
    net(torch.zeros(1, 1, 32, 32))
    handle.remove()
    assert seen[0][2:] == (8, 8)
    sizes = dict(net.named_parameters())
    used = [name for name in sizes if name.rpartition(".")[0] in place.encoder]
    assert 0 < len(used) < len(sizes)
    vectors = Embedder(net, torch.zeros(1, 1, 32, 32))(torch.randn(5, 1, 48, 32))
    assert vectors.shape == (5, 32)
    mean = Embedder(net, torch.zeros(1, 1, 32, 32), "mean")
    assert mean.width == 16
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        net(x)
    assert torch.allclose(mean(x), Embedder(net, x[:1])(x)[:, :16])
    with pytest.raises(FewerError, match="mean or mean"):
        Embedder(net, x, "max")


def test_a_squeeze_layer_is_no_bottleneck() -> None:
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down, self.gate = nn.Conv2d(1, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.down(x)
            return nn.functional.interpolate(x * self.gate(x), scale_factor=2)

    assert find_bottleneck(Squeezed(), torch.zeros(1, 1, 8, 8)).module == "down"
