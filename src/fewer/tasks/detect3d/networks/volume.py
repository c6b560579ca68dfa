"""The sparse 3-D part: stages of submanifold and strided convolutions, eight times coarser at the end."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.models.remembered import Facts
from fewer.models.sparse import Sites, SparseConv3d, SparseSequential, SubMConv3d
from fewer.models.sparse.layers import convolve
from fewer.tasks.detect3d.networks.config import DetectorConfig

__all__ = ["HeightCompression", "VoxelBackBone8x"]


class _Norm(nn.BatchNorm1d):
    """A norm that goes by its running statistics where a scan has too few sites to have any of its own."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or len(input) > 1:
            return super().forward(input)
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def _norm(channels: int) -> nn.BatchNorm1d:
    return _Norm(channels, eps=1e-3, momentum=0.01)


def _block(inputs: int, outputs: int, key: str, kernel: Any = 3, stride: Any = 1, padding: Any = 1) -> SparseSequential:
    """Convolution, norm and ReLU; strided ones open new sites."""
    if stride == 1:
        conv: nn.Module = SubMConv3d(inputs, outputs, kernel, key=key)
    else:
        conv = SparseConv3d(inputs, outputs, kernel, stride, padding, key=key)
    return SparseSequential(conv, _norm(outputs), nn.ReLU())


class _ResidualBlock(nn.Module):
    """Two submanifold convolutions, added to what came in."""

    on_sites = True

    def __init__(self, channels: int, key: str) -> None:
        super().__init__()
        self.conv1, self.bn1 = SubMConv3d(channels, channels, 3, bias=True, key=key), _norm(channels)
        self.conv2, self.bn2 = SubMConv3d(channels, channels, 3, bias=True, key=key), _norm(channels)

    def forward(self, sites: Sites) -> Sites:
        out = convolve(self.conv1, sites)
        out = out.with_features(torch.relu(self.bn1(out.features)))
        out = convolve(self.conv2, out)
        return out.with_features(torch.relu(self.bn2(out.features) + sites.features))


class VoxelBackBone8x(nn.Module):
    """The middle part of SECOND, with plain or residual stages.

    The grid has one more cell in height than the configuration, as in the published networks.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        one, two, three, four, out = config.channels
        x, y, z = config.grid
        self.shape = (z + 1, y, x)

        def stage(inputs: int, outputs: int, number: int, padding: Any, first: bool = False) -> SparseSequential:
            if config.residual:
                blocks = [_ResidualBlock(outputs, f"res{number}") for _ in range(2)]
                opening = [] if first else [_block(inputs, outputs, f"spconv{number}", 3, 2, padding)]
                return SparseSequential(*opening, *blocks)
            if first:
                return SparseSequential(_block(inputs, outputs, "subm1"))
            rest = [_block(outputs, outputs, f"subm{number}") for _ in range(2)]
            return SparseSequential(_block(inputs, outputs, f"spconv{number}", 3, 2, padding), *rest)

        first = SubMConv3d(config.features, one, 3, key="res1" if config.residual else "subm1")
        self.conv_input = SparseSequential(first, _norm(one), nn.ReLU())
        self.conv1 = stage(one, one, 1, 1, first=True)
        self.conv2 = stage(one, two, 2, 1)
        self.conv3 = stage(two, three, 3, 1)
        self.conv4 = stage(three, four, 4, (0, 1, 1))
        last = SparseConv3d(four, out, (3, 1, 1), (2, 1, 1), 0, key="down")
        self.conv_out = SparseSequential(last, _norm(out), nn.ReLU())
        self.channels = {"x_conv1": one, "x_conv2": two, "x_conv3": three, "x_conv4": four}

    @property
    def levels(self) -> int:
        """Cells in height at the end."""
        z = self.shape[0]
        for padding in (1, 1, 0):
            z = (z + 2 * padding - 3) // 2 + 1
        return (z - 3) // 2 + 1

    def forward(
        self, features: Tensor, where: Tensor, samples: int, facts: Facts | None = None
    ) -> tuple[Sites, dict[str, Sites]]:
        """Occupied cells to the coarsest sites, and the sites of every stage.

        ``facts`` holds the rulebooks that an earlier pass over the same cells has made, and keeps those of this one.
        """
        facts = facts or Facts()
        rules: dict[str, Any] = facts.once("rules", dict)
        known = len(rules)
        sites = self.conv_input(Sites(features, where, self.shape, samples, rules))
        stages = {}
        for name in ("conv1", "conv2", "conv3", "conv4"):
            sites = getattr(self, name)(sites)
            stages[f"x_{name}"] = sites
        last = self.conv_out(sites)
        if len(rules) > known:
            facts.weigh()
        return last, stages


class HeightCompression(nn.Module):
    """Sites to an image from above: channels and heights together."""

    def forward(self, sites: Sites) -> Tensor:
        """Shape (samples, channels times heights, y, x)."""
        grid = sites.dense()
        return grid.flatten(1, 2)
