"""GaitSet: a walk as a set of frames (Chao et al., AAAI 2019)."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fewer.tasks.gait.networks.network import GaitNetwork
from fewer.tasks.gait.networks.parts import ConvOnly, EachFrame, HorizontalPooling, SeparateFCs, max_over_time
from fewer.tasks.gait.tpa import TPAConfig

__all__ = ["GaitSet"]

_BINS = (16, 8, 4, 2, 1)


def _pair(ins: int, outs: int, first: int, pooled: bool) -> nn.Sequential:
    layers = [ConvOnly(ins, outs, first, first // 2), nn.LeakyReLU(), ConvOnly(outs, outs, 3, 1), nn.LeakyReLU()]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pooled else []))


class GaitSet(GaitNetwork):
    """Frames one by one, beside them a global branch over their maxima; pyramids of strips of both.

    Parameters
    ----------
    channels
        Of the three blocks.
    outs
        Channels of the embedding.
    tpa
        Put Temporal Periodic Alignment over the frames' branch.
    """

    def __init__(self, channels: Sequence[int] = (32, 64, 128), outs: int = 256, tpa: TPAConfig | None = None) -> None:
        super().__init__()
        a, b, c = channels
        second, third = _pair(a, b, 3, True), _pair(b, c, 3, False)
        self.set_block1 = EachFrame(_pair(1, a, 5, True))
        self.set_block2, self.set_block3 = EachFrame(second), EachFrame(third)
        self.gl_block2, self.gl_block3 = copy.deepcopy(second), copy.deepcopy(third)
        self.HPP = HorizontalPooling(_BINS)
        self.Head = SeparateFCs(2 * sum(_BINS), c, outs)
        self.place_tpa(c, sum(_BINS), tpa)

    def strips(self, x: Tensor) -> Tensor:
        """A pyramid of strips."""
        return self.HPP(x)

    def branches(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features of frames, and those of their maxima."""
        one = self.set_block1(x)
        whole = self.gl_block2(max_over_time(one, lengths))
        two = self.set_block2(one)
        whole = self.gl_block3(whole + max_over_time(two, lengths))
        three = self.set_block3(two)
        return three, whole + max_over_time(three, lengths)

    def features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Both branches."""
        frames, whole = self.branches(x, lengths)
        return torch.cat([self.pool(frames, lengths), self.HPP(whole)], 2)

    def head(self, parts: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """One linear map a part; no classes."""
        found = self.Head(parts)
        return found, found, None
