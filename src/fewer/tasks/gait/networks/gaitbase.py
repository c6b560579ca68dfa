"""GaitBase: a small ResNet for frames, and a strong head (Fan et al., OpenGait, CVPR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from fewer.tasks.gait.networks.network import GaitNetwork
from fewer.tasks.gait.networks.parts import ConvOnly, EachFrame, HorizontalPooling, SeparateFCs, SeparateNecks
from fewer.tasks.gait.networks.residual import FrameBlock, stack_blocks
from fewer.tasks.gait.tpa import TPAConfig

__all__ = ["GaitBase"]

_PARTS = 16


class _ResNet9(nn.Module):
    def __init__(self, channels: Sequence[int], layers: Sequence[int], stem: int) -> None:
        super().__init__()
        self.conv1 = ConvOnly(1, channels[0], 3, 1, stride=stem)
        self.bn1, self.relu = nn.BatchNorm2d(channels[0]), nn.ReLU()
        ins = channels[0]
        for stage, (width, count, stride) in enumerate(zip(channels, layers, (1, 2, 2 // stem, 1), strict=True), 1):
            self.add_module(f"layer{stage}", stack_blocks(FrameBlock, ins, width, count, stride))
            ins = width

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 5):
            x = self.get_submodule(f"layer{stage}")(x)
        return x


class GaitBase(GaitNetwork):
    """A ResNet-9 for frames, the maximum over time, strips, a linear map a part, and BNNecks.

    Parameters
    ----------
    channels, layers
        Of the four stages.
    outs
        Channels of the embedding.
    classes
        Identities of the training.
    tpa
        Put Temporal Periodic Alignment before temporal pooling.
    stem
        Stride of the first layer. 2 halves the pictures there and not in the third stage: the strips are as fine, and
        the network takes less than half the time.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 512),
        layers: Sequence[int] = (1, 1, 1, 1),
        outs: int = 256,
        classes: int = 74,
        tpa: TPAConfig | None = None,
        stem: Literal[1, 2] = 1,
    ) -> None:
        super().__init__()
        self.Backbone = EachFrame(_ResNet9(channels, layers, stem))
        self.FCs = SeparateFCs(_PARTS, channels[-1], outs)
        self.BNNecks = SeparateNecks(_PARTS, outs, classes)
        self.HPP = HorizontalPooling((_PARTS,))
        self.place_tpa(channels[-1], _PARTS, tpa)

    def trunk(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Frames one by one."""
        return self.Backbone(x), lengths

    def strips(self, x: Tensor) -> Tensor:
        """Sixteen strips."""
        return self.HPP(x)

    def head(self, parts: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The embedding before the neck is compared."""
        found = self.FCs(parts)
        return found, found, self.BNNecks(found)[1]
