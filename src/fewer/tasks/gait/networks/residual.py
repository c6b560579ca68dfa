"""Residual blocks of gait networks, for frames and for frames and time apart (P3D)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from fewer.tasks.gait.networks.parts import EachFrame, keep_real

__all__ = ["FrameBlock", "PseudoBlock", "stack_blocks"]


def _conv(ins: int, outs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(ins, outs, 3, stride, 1, bias=False)


class FrameBlock(nn.Module):
    """The basic block of ResNets (He et al., CVPR 2016)."""

    def __init__(self, ins: int, outs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = _conv(ins, outs, stride), nn.BatchNorm2d(outs)
        self.relu = nn.ReLU()
        self.conv2, self.bn2 = _conv(outs, outs), nn.BatchNorm2d(outs)
        self.downsample = None
        if stride != 1 or ins != outs:
            self.downsample = nn.Sequential(nn.Conv2d(ins, outs, 1, stride, bias=False), nn.BatchNorm2d(outs))

    def forward(self, x: Tensor) -> Tensor:
        """Frames (n, channels, height, width)."""
        found = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(found + (x if self.downsample is None else self.downsample(x)))


class PseudoBlock(nn.Module):
    """A residual block with a convolution over time between its two over space (Fan et al., arXiv:2303.03301)."""

    def __init__(self, ins: int, outs: int, stride: int = 1) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1 = EachFrame(nn.Sequential(_conv(ins, outs, stride), nn.BatchNorm2d(outs), nn.ReLU()))
        self.conv2 = EachFrame(nn.Sequential(_conv(outs, outs), nn.BatchNorm2d(outs)))
        self.shortcut3d = nn.Conv3d(outs, outs, (3, 1, 1), 1, (1, 0, 0), bias=False)
        self.sbn = nn.BatchNorm3d(outs)
        self.downsample = None
        if stride != 1 or ins != outs:
            self.downsample = nn.Sequential(
                nn.Conv3d(ins, outs, 1, (1, stride, stride), bias=False), nn.BatchNorm3d(outs)
            )

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Sequences (n, channels, frames, height, width)."""
        space = keep_real(self.conv1(x), lengths)
        found = self.conv2(self.relu(space + self.sbn(self.shortcut3d(space))))
        return self.relu(found + (x if self.downsample is None else self.downsample(x)))


def stack_blocks(block: Callable[..., nn.Module], ins: int, outs: int, count: int, stride: int) -> nn.Sequential:
    """A stage of blocks, the first of which changes width and size."""
    return nn.Sequential(block(ins, outs, stride), *[block(outs, outs) for _ in range(count - 1)])
