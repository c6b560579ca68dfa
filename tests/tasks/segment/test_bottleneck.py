"""Where the deepest features of a network are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.tasks.segment.bottleneck import Embedder, find_bottleneck
from fewer.tasks.segment.networks import build_network
from fewer.tasks.segment.settings import TrainSettings

pytest.importorskip("monai", reason="needs the [medical] extra")


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
