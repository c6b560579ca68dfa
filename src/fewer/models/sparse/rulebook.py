"""Rulebooks: which input site meets which output site at each offset of a kernel.

The idea of submanifold sparse convolution (Graham, Engelcke and van der Maaten, CVPR 2018) and of the strided kind in
SECOND (Yan, Mao and Li, Sensors 2018). Sites are sorted by a number and looked up by bisection, so that building takes
``taps * sites * log(sites)`` steps and works the same on CPU and GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from fewer.models.sparse.sites import Sites, site_keys

__all__ = ["Rulebook", "Triple", "inverse_rules", "output_shape", "strided_rules", "submanifold_rules"]

Triple = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Rulebook:
    """Pairs of sites per kernel offset.

    Attributes
    ----------
    pairs
        For each offset (z slowest, x fastest) the rows of the input and of the output that meet: two int64 tensors.
    inputs
        Number of input sites.
    where, shape
        Output sites, as in :class:`~fewer.models.sparse.sites.Sites`.
    came
        Input sites and their grid, for the inverse.
    """

    pairs: tuple[tuple[Tensor, Tensor], ...]
    inputs: int
    where: Tensor
    shape: Triple
    came: tuple[Tensor, Triple]

    @property
    def count(self) -> int:
        """Pairs over all offsets; a layer costs this times its input and output channels multiply-accumulates."""
        return sum(len(read) for read, _ in self.pairs)

    @property
    def outputs(self) -> int:
        """Number of output sites."""
        return len(self.where)


def _offsets(kernel: Triple) -> Iterator[Triple]:
    yield from product(*(range(k) for k in kernel))  # type: ignore[misc]


def submanifold_rules(sites: Sites, kernel: Triple, dilation: Triple = (1, 1, 1)) -> Rulebook:
    """Rules of a convolution whose output sites are its input sites.

    Parameters
    ----------
    sites
        Input sites.
    kernel
        Odd sizes along z, y, x.
    dilation
        Step between the taps.

    Examples
    --------
    >>> sites = Sites(torch.ones(2, 1), torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]]), (1, 1, 4), 1)
    >>> submanifold_rules(sites, (1, 1, 3)).count  # each sees itself and its neighbour
    4
    """
    where, shape = sites.where, sites.shape
    ordered, order = site_keys(where, shape).sort()
    centre = [(k - 1) // 2 * d for k, d in zip(kernel, dilation, strict=True)]
    limit = torch.tensor(shape, device=where.device)
    pairs = []
    for offset in _offsets(kernel):
        step = [o * d - c for o, d, c in zip(offset, dilation, centre, strict=True)]
        if not any(step):
            every = torch.arange(len(where), device=where.device)
            pairs.append((every, every))
            continue
        near = where[:, 1:] + torch.tensor(step, device=where.device)
        inside = ((near >= 0) & (near < limit)).all(1)
        keys = site_keys(torch.cat([where[:, :1], near], 1), shape)
        at = torch.searchsorted(ordered, keys).clamp_(max=max(0, len(ordered) - 1))
        # outside the grid the number of a neighbour is that of another site
        met = (inside & (ordered[at] == keys)).nonzero()[:, 0] if len(ordered) else at
        pairs.append((order[at[met]], met))
    return Rulebook(tuple(pairs), len(where), where, shape, (where, shape))


def output_shape(
    shape: Triple, kernel: Triple, stride: Triple, padding: Triple, dilation: Triple = (1, 1, 1)
) -> Triple:
    """Cells along each axis after a strided convolution.

    Examples
    --------
    >>> output_shape((41, 1600, 1408), (3, 3, 3), (2, 2, 2), (1, 1, 1))
    (21, 800, 704)
    """
    return tuple(  # type: ignore[return-value]
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(shape, kernel, stride, padding, dilation, strict=True)
    )


def strided_rules(
    sites: Sites, kernel: Triple, stride: Triple, padding: Triple, dilation: Triple = (1, 1, 1)
) -> Rulebook:
    """Rules of a convolution whose output sites are all those that any input site reaches.

    Examples
    --------
    >>> sites = Sites(torch.ones(1, 1), torch.tensor([[0, 0, 0, 2]]), (1, 1, 4), 1)
    >>> strided_rules(sites, (1, 1, 2), (1, 1, 2), (0, 0, 0)).where.tolist()
    [[0, 0, 0, 1]]
    """
    where, device = sites.where, sites.where.device
    shape = output_shape(sites.shape, kernel, stride, padding, dilation)
    steps, limit = torch.tensor(stride, device=device), torch.tensor(shape, device=device)
    reads, keys = [], []
    for offset in _offsets(kernel):
        shift = [p - o * d for p, o, d in zip(padding, offset, dilation, strict=True)]
        scaled = where[:, 1:] + torch.tensor(shift, device=device)
        cell = torch.div(scaled, steps, rounding_mode="floor")
        good = ((cell * steps == scaled) & (cell >= 0) & (cell < limit)).all(1)
        read = good.nonzero()[:, 0]
        reads.append(read)
        keys.append(site_keys(torch.cat([where[read, :1], cell[read]], 1), shape))
    found, back = torch.unique(torch.cat(keys), return_inverse=True)
    writes = back.split([len(read) for read in reads])
    z, y, x = shape
    out = torch.stack([found // (z * y * x), found // (y * x) % z, found // x % y, found % x], 1)
    return Rulebook(tuple(zip(reads, writes, strict=True)), len(where), out, shape, (where, sites.shape))


def inverse_rules(rules: Rulebook) -> Rulebook:
    """Rules from the outputs of a strided convolution back to its inputs.

    Examples
    --------
    >>> sites = Sites(torch.ones(2, 1), torch.tensor([[0, 0, 0, 2], [0, 0, 0, 3]]), (1, 1, 4), 1)
    >>> there = strided_rules(sites, (1, 1, 2), (1, 1, 2), (0, 0, 0))
    >>> inverse_rules(there).where.tolist()
    [[0, 0, 0, 2], [0, 0, 0, 3]]
    """
    where, shape = rules.came
    back = tuple((write, read) for read, write in rules.pairs)
    return Rulebook(back, rules.outputs, where, shape, (rules.where, rules.shape))
