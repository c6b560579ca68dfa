"""Points to cells: which cell each point falls into, features of pillars and of voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fewer.tasks.detect3d.networks.config import DetectorConfig

__all__ = ["Cells", "MeanVFE", "PillarVFE", "cells_of"]


@dataclass(frozen=True, eq=False)
class Cells:
    """Points of a batch sorted into cells.

    Attributes
    ----------
    points
        Those that count, shape (points, features).
    cell
        Row of each point's cell.
    where
        Occupied cells, int64 (cells, 4): sample, z, y, x.
    counts
        Points of each cell that count, shape (cells,).
    samples
        Scans in the batch.
    """

    points: Tensor
    cell: Tensor
    where: Tensor
    counts: Tensor
    samples: int


def cells_of(scans: tuple[Tensor, ...], config: DetectorConfig) -> Cells:
    """Sort points into the cells of a grid; points outside it are left out, and those beyond the limit of a cell.

    Parameters
    ----------
    scans
        Each of shape (points, features or more).

    Examples
    --------
    >>> from fewer.tasks.detect3d.networks.config import small_config
    >>> scan = torch.tensor([[1.0, 0, -1, 0.5], [1.01, 0, -1, 0.5], [500, 0, 0, 0]])
    >>> cells_of((scan,), small_config("pointpillars")).counts
    tensor([2])
    """
    device = scans[0].device
    points = torch.cat([scan[:, : config.features] for scan in scans])
    sample = torch.repeat_interleave(
        torch.arange(len(scans), device=device), torch.tensor([len(scan) for scan in scans], device=device)
    )
    low = torch.tensor(config.reach[:3], device=device)
    size = torch.tensor(config.voxel, device=device)
    x, y, z = config.grid
    at = torch.floor((points[:, :3] - low) / size).long()
    inside = ((at >= 0) & (at < torch.tensor([x, y, z], device=device))).all(1)
    points, at, sample = points[inside], at[inside], sample[inside]
    keys = ((sample * z + at[:, 2]) * y + at[:, 1]) * x + at[:, 0]
    # sorted by cell, the place of a point within its cell is its distance from the cell's first point
    keys, order = torch.sort(keys, stable=True)
    found, cell, counts = torch.unique_consecutive(keys, return_inverse=True, return_counts=True)
    rank = torch.arange(len(keys), device=device) - (counts.cumsum(0) - counts)[cell]
    kept = rank < config.most_points
    where = torch.stack([found // (z * y * x), found // (y * x) % z, found // x % y, found % x], 1)
    return Cells(points[order][kept], cell[kept], where, counts.clamp(max=config.most_points), len(scans))


class _PFNLayer(nn.Module):
    """Linear map, norm and ReLU of every point, and the largest value of each cell."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs, eps=1e-3, momentum=0.01)

    def forward(self, points: Tensor) -> Tensor:
        return torch.relu(self.norm(self.linear(points)))


class PillarVFE(nn.Module):
    """Features of pillars (PointPillars, section 2.1).

    A point is described by its own values, its distance from the mean of its pillar and from the pillar's centre. The
    published code fills pillars with zero points up to a fixed number, and their value after the norm counts in the
    maximum; here it enters once for each pillar that is not full, which gives the same output at a fraction of the
    work. The statistics of the norm are those of real points. Dynamic pillars have no such points, and layers before
    the last one, which put the largest values of a pillar beside those of each of its points.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        layers, inputs = [], config.features + 6
        for width in config.wide:
            layers.append(_PFNLayer(inputs, width // 2))
            inputs = 2 * (width // 2)
        self.pfn_layers = nn.ModuleList([*layers, _PFNLayer(inputs, config.pillar)])

    def forward(self, cells: Cells) -> Tensor:
        """Shape (cells, pillar features)."""
        config, count = self.config, len(cells.where)
        points = cells.points
        mean = points.new_zeros(count, 3).index_add_(0, cells.cell, points[:, :3])
        mean = mean / cells.counts.clamp(min=1)[:, None]
        low, size = points.new_tensor(config.reach[:3]), points.new_tensor(config.voxel)
        centre = (cells.where[:, [3, 2, 1]] + 0.5) * size + low
        rows = torch.cat([points, points[:, :3] - mean[cells.cell], points[:, :3] - centre[cells.cell]], 1)
        *before, last = cast(Any, self.pfn_layers)
        for layer in before:
            values = self._values(layer, rows)
            rows = torch.cat([values, self._largest(values, cells)[cells.cell]], 1)
        out = self._largest(self._values(last, rows), cells)
        if not config.padded:
            return out
        norm = last.norm
        # what the norm makes of a zero point
        empty = torch.relu(norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
        return torch.where((cells.counts < config.most_points)[:, None], torch.maximum(out, empty), out)

    def _values(self, layer: Any, rows: Tensor) -> Tensor:
        return layer(rows) if len(rows) > 1 or not self.training else torch.relu(layer.linear(rows))

    @staticmethod
    def _largest(values: Tensor, cells: Cells) -> Tensor:
        # points are sorted by cell; the gradient of scatter_reduce takes six times as long
        return torch.segment_reduce(values, "max", lengths=cells.counts, axis=0, unsafe=True)


class MeanVFE(nn.Module):
    """Features of voxels: the mean of their points."""

    def forward(self, cells: Cells) -> Tensor:
        """Shape (cells, features)."""
        total = cells.points.new_zeros(len(cells.where), cells.points.shape[1]).index_add_(0, cells.cell, cells.points)
        return total / cells.counts.clamp(min=1)[:, None]
