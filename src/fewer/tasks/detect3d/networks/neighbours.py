"""Neighbours of points in plain torch: farthest point sampling, balls, and the layer that looks into them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["StackSAModuleMSG", "ball_query", "farthest_points"]

_CHUNK = 2**23


def farthest_points(points: Tensor, count: int) -> Tensor:
    """Indices of points, each the farthest from those before it, the first one first (Eldar et al., 1997).

    Where there are fewer points than wanted they are repeated.

    Examples
    --------
    >>> farthest_points(torch.tensor([[0.0, 0, 0], [1, 0, 0], [9, 0, 0]]), 2).tolist()
    [0, 2]
    """
    if not len(points):
        return torch.zeros(0, dtype=torch.long, device=points.device)
    at = torch.zeros(min(count, len(points)), dtype=torch.long, device=points.device)
    apart = points.new_full((len(points),), float("inf"))
    for i in range(1, len(at)):
        apart = torch.minimum(apart, (points - points[at[i - 1]]).square().sum(1))
        at[i] = apart.argmax()
    return at.repeat(-(-count // len(at)))[:count]


def ball_query(centres: Tensor, points: Tensor, radius: float, count: int) -> tuple[Tensor, Tensor]:
    """The first ``count`` points within a radius of each centre, repeated where there are fewer.

    Returns
    -------
    Tensor
        Indices, shape (centres, count).
    Tensor
        Centres with no point near, bool (centres,).

    Examples
    --------
    >>> near, empty = ball_query(torch.zeros(1, 3), torch.tensor([[5.0, 0, 0], [1, 0, 0]]), 2.0, 2)
    >>> near.tolist(), empty.tolist()
    ([[1, 1]], [False])
    """
    total = len(points)
    if not total or not len(centres):
        shape = (len(centres), count)
        return torch.zeros(shape, dtype=torch.long), torch.ones(len(centres), dtype=torch.bool)
    found, empties = [], []
    numbers = torch.arange(total, device=points.device)
    for part in centres.split(max(1, _CHUNK // total)):
        near = torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist") < radius
        first = torch.where(near, numbers, total).topk(min(count, total), dim=1, largest=False).values
        empty = first[:, 0] == total
        first = torch.where(first == total, torch.where(empty, 0, first[:, 0])[:, None], first)
        found.append(first[:, torch.arange(count).clamp(max=first.shape[1] - 1)])
        empties.append(empty)
    return torch.cat(found), torch.cat(empties)


class StackSAModuleMSG(nn.Module):
    """Set abstraction at two radii: the largest value of a small network over the points of a ball (PointNet++).

    Parameters
    ----------
    inputs
        Features of a point beside its place.
    widths
        Of the small network.
    radii, counts
        Metres, and points that are looked at, for each ball.
    """

    def __init__(self, inputs: int, widths: tuple[int, ...], radii: tuple[float, ...], counts: tuple[int, ...]) -> None:
        super().__init__()
        self.radii, self.counts = radii, counts
        mlps = []
        for _ in radii:
            parts: list[nn.Module] = []
            for a, b in zip((inputs + 3, *widths), widths, strict=False):
                parts += [nn.Conv2d(a, b, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
            mlps.append(nn.Sequential(*parts))
        self.mlps = nn.ModuleList(mlps)
        self.channels = len(radii) * widths[-1]

    def forward(self, centres: list[Tensor], points: list[Tensor], features: list[Tensor]) -> Tensor:
        """Features of the centres of all samples, one after another, shape (centres, channels).

        Parameters
        ----------
        centres, points
            Of each sample, shape (n, 3) and (m, 3).
        features
            Of the points, shape (m, inputs).
        """
        out = []
        for mlp, radius, count in zip(self.mlps, self.radii, self.counts, strict=True):
            rows = []
            for centre, place, feature in zip(centres, points, features, strict=True):
                near, empty = ball_query(centre, place, radius, count)
                if not len(place):
                    rows.append(feature.new_zeros(len(centre), count, 3 + feature.shape[1]))
                    continue
                row = torch.cat([place[near] - centre[:, None], feature[near]], -1)
                rows.append(row * (~empty).to(row)[:, None, None])
            group = torch.cat(rows).permute(2, 0, 1)[None]
            out.append(mlp(group).amax(3)[0].T)
        return torch.cat(out, 1)
