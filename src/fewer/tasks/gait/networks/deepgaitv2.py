"""DeepGaitV2 with pseudo-3-D blocks (Fan et al., Exploring Deep Models for Practical Gait Recognition, 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from fewer.tasks.gait.networks.network import GaitNetwork
from fewer.tasks.gait.networks.parts import EachFrame, HorizontalPooling, SeparateFCs, SeparateNecks
from fewer.tasks.gait.networks.residual import FrameBlock, PseudoBlock, stack_blocks
from fewer.tasks.gait.tpa import TPAConfig

__all__ = ["DeepGaitV2"]

_PARTS = 16


class DeepGaitV2(GaitNetwork):
    """A residual network whose later stages look over time as well.

    Parameters
    ----------
    channels, layers
        Of the four stages; layers are ``1 1 1 1`` for CASIA-B and ``1 4 4 1`` for GREW and Gait3D.
    classes
        Identities of the training.
    tpa
        Put Temporal Periodic Alignment before temporal pooling.
    stem
        Stride of the first layer, as in :class:`~fewer.tasks.gait.networks.gaitbase.GaitBase`.
    """

    def __init__(
        self,
        channels: Sequence[int] = (64, 128, 256, 512),
        layers: Sequence[int] = (1, 1, 1, 1),
        classes: int = 74,
        tpa: TPAConfig | None = None,
        stem: Literal[1, 2] = 1,
    ) -> None:
        super().__init__()
        a, b, c, d = channels
        first = [nn.Conv2d(1, a, 3, stem, 1, bias=False), nn.BatchNorm2d(a), nn.ReLU()]
        self.layer0 = EachFrame(nn.Sequential(*first))
        self.layer1 = EachFrame(stack_blocks(FrameBlock, a, a, layers[0], 1))
        self.layer2 = stack_blocks(PseudoBlock, a, b, layers[1], 2)
        self.layer3 = stack_blocks(PseudoBlock, b, c, layers[2], 2 // stem)
        self.layer4 = stack_blocks(PseudoBlock, c, d, layers[3], 1)
        self.FCs = SeparateFCs(_PARTS, d, c)
        self.BNNecks = SeparateNecks(_PARTS, c, classes)
        self.HPP = HorizontalPooling((_PARTS,))
        self.place_tpa(d, _PARTS, tpa)

    def trunk(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Convolutions over time see zeros past the end of a sequence, as if the batch ended there."""
        x = self.layer1(self.layer0(x))
        for stage in (self.layer2, self.layer3, self.layer4):
            for block in stage:
                x = block(x, lengths)
        return x, lengths

    def strips(self, x: Tensor) -> Tensor:
        """Sixteen strips."""
        return self.HPP(x)

    def head(self, parts: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """The embedding before the neck is compared."""
        found = self.FCs(parts)
        return found, found, self.BNNecks(found)[1]
