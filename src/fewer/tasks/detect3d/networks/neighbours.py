"""Neighbours of points in plain torch: farthest point sampling, balls, and the layer that looks into them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["StackSAModuleMSG", "ball_queries", "ball_query", "farthest_points"]

_CHUNK = 2**22
"""Pairs whose distance is looked at in one go."""


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
    points = points.detach()
    at = torch.zeros(min(count, len(points)), dtype=torch.long, device=points.device)
    apart = points.new_full((len(points),), float("inf"))
    # a column for each axis, and no new memory in a step: six times as fast as rows
    columns, away, total = points.T.contiguous(), torch.empty_like(apart), torch.empty_like(apart)
    for i in range(1, len(at)):
        last = columns[:, at[i - 1]].unbind()
        torch.sub(columns[0], last[0], out=total).square_()
        for column, place in zip(columns[1:], last[1:], strict=True):
            torch.sub(column, place, out=away)
            total.addcmul_(away, away)
        torch.minimum(apart, total, out=apart)
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
    return ball_queries(centres, points, (radius,), (count,))[0]


@torch.no_grad()
def ball_queries(
    centres: Tensor, points: Tensor, radii: Sequence[float], counts: Sequence[int]
) -> list[tuple[Tensor, Tensor]]:
    """As :func:`ball_query`, at several radii in one pass over the points.

    Points are sorted into columns as wide as the largest radius, so that a centre is compared with those of nine
    columns alone. The result is the same as that of all pairs.
    """
    centre, point, apart = _pairs_within(centres, points, max(radii))
    order = (centre * max(1, len(points)) + point).sort().indices
    centre, point, apart = centre[order], point[order], apart[order]
    found = []
    for radius, count in zip(radii, counts, strict=True):
        near = apart < radius * radius
        own, which = centre[near], point[near]
        many = torch.bincount(own, minlength=len(centres))
        start = many.cumsum(0) - many
        rank = torch.arange(len(own), device=own.device) - start[own]
        kept = rank < count
        empty = many == 0
        first = torch.zeros_like(start)
        first[~empty] = which[start[~empty]]
        rows = first[:, None].repeat(1, count)
        rows[own[kept], rank[kept]] = which[kept]
        found.append((rows, empty))
    return found


def _pairs_within(centres: Tensor, points: Tensor, radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """Centres and points that are closer than a radius, in any order, and their squared distances."""
    none = torch.zeros(0, dtype=torch.long, device=points.device)
    if not len(points) or not len(centres):
        return none, none, points.new_zeros(0)
    low = points[:, :2].amin(0)
    cell = torch.floor((points[:, :2] - low) / radius).long()
    wide, tall = (int(n) + 1 for n in cell.amax(0))
    keys, order = (cell[:, 1] * wide + cell[:, 0]).sort()
    # a box that a broken network proposes may lie anywhere
    at = torch.floor((centres[:, :2] - low) / radius).nan_to_num(-9.0).clamp(-9.0, max(wide, tall) + 9.0).long()
    left, right = (at[:, 0] - 1).clamp(min=0), (at[:, 0] + 1).clamp(max=wide - 1)
    starts, lengths = [], []
    for step in (-1, 0, 1):  # three columns side by side are one stretch of the sorted points
        row = at[:, 1] + step
        start = torch.searchsorted(keys, row * wide + left)
        stop = torch.searchsorted(keys, row * wide + right, right=True)
        good = (row >= 0) & (row < tall) & (left <= right)
        starts.append(start)
        lengths.append(torch.where(good, stop - start, 0))
    start, length = torch.stack(starts, 1).flatten(), torch.stack(lengths, 1).flatten()
    owner = torch.arange(len(centres), device=points.device).repeat_interleave(3)
    ends = length.cumsum(0)
    chunk = torch.div(ends, _CHUNK, rounding_mode="floor")
    sizes = torch.unique_consecutive(chunk, return_counts=True)[1].tolist()
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    for begin, many, who in zip(start.split(sizes), length.split(sizes), owner.split(sizes), strict=True):
        own = torch.repeat_interleave(who, many)
        before = torch.repeat_interleave(many.cumsum(0) - many - begin, many)
        which = order[torch.arange(len(own), device=own.device) - before]
        apart = (centres[own] - points[which]).square().sum(1)
        near = apart < radius * radius
        found.append((own[near], which[near], apart[near]))
    return tuple(torch.cat(part) for part in zip(*found, strict=True))  # type: ignore[return-value]


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

    def near(self, centres: Sequence[Tensor], points: Sequence[Tensor]) -> list[list[tuple[Tensor, Tensor]]]:
        """The points in each ball, of each sample at each radius; see :func:`ball_query`."""
        return [ball_queries(c, p, self.radii, self.counts) for c, p in zip(centres, points, strict=True)]

    def forward(
        self,
        centres: Sequence[Tensor],
        points: Sequence[Tensor],
        features: Sequence[Tensor],
        near: list[list[tuple[Tensor, Tensor]]] | None = None,
    ) -> Tensor:
        """Features of the centres of all samples, one after another, shape (centres, channels).

        Parameters
        ----------
        centres, points
            Of each sample, shape (n, 3) and (m, 3).
        features
            Of the points, shape (m, inputs).
        near
            What :meth:`near` gives for these centres and points, if that is known.
        """
        found = self.near(centres, points) if near is None else near
        groups: list[list[Tensor]] = [[] for _ in self.mlps]
        for centre, place, feature, balls in zip(centres, points, features, found, strict=True):
            values = torch.cat([place, feature], 1)
            for group, count, (rows, empty) in zip(groups, self.counts, balls, strict=True):
                if not len(place):
                    group.append(values.new_zeros(len(centre), count, values.shape[1]))
                    continue
                # the gradient of values[near] takes ten times as long
                row = values.index_select(0, rows.flatten()).view(len(centre), count, -1)
                row = torch.cat([row[..., :3] - centre[:, None], row[..., 3:]], -1)
                group.append(row * (~empty).to(row)[:, None, None])
        # a ball is an image of one line: as one image of all balls, torch takes four times as long
        lines = [torch.cat(group).transpose(1, 2)[:, :, None] for group in groups]
        return torch.cat([mlp(line).amax((2, 3)) for mlp, line in zip(self.mlps, lines, strict=True)], 1)
