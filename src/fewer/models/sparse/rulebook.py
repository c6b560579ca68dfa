"""Rulebooks: which input site meets which output site at each offset of a kernel.

The idea of submanifold sparse convolution (Graham, Engelcke and van der Maaten, CVPR 2018) and of the strided kind in
SECOND (Yan, Mao and Li, Sensors 2018). Sites are looked up in a table of all cells of the grid, or, where that would be
large, by bisection in their sorted numbers. Both give the same rules, on CPU and GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from fewer.models.sparse.sites import Sites, site_keys

__all__ = ["Rulebook", "Triple", "inverse_rules", "output_shape", "strided_rules", "submanifold_rules"]

Triple = tuple[int, int, int]

_MOST_CELLS = 2**24
"""Of a grid that is written out as a table (64 MiB); a third of the time of a bisection."""


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
    middle
        Offset at which every site meets itself, in their order; None where there is none. Nothing is gathered there.
    """

    pairs: tuple[tuple[Tensor, Tensor], ...]
    inputs: int
    where: Tensor
    shape: Triple
    came: tuple[Tensor, Triple]
    middle: int | None = None

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
    keys = site_keys(where, shape)
    row_of = _rows_by_number(keys, sites.samples * shape[0] * shape[1] * shape[2])
    offsets = list(_offsets(kernel))
    # where A meets B at an offset, B meets A at the opposite one: half of them tell all, if there is an opposite one
    symmetric = all(k % 2 for k in kernel)
    pairs = []
    for offset in offsets[: len(offsets) // 2] if symmetric else offsets:
        step = [(o - (k - 1) // 2) * d for o, k, d in zip(offset, kernel, dilation, strict=True)]
        # outside the grid the number of a neighbour is that of another site
        inside = _all([_within(where[:, a + 1] + s, shape[a]) for a, s in enumerate(step) if s], where)
        wanted = keys[inside] + (step[0] * shape[1] + step[1]) * shape[2] + step[2]
        row = row_of(wanted)
        met = (row >= 0).nonzero()[:, 0]
        pairs.append((row[met].long(), inside[met]))
    if symmetric:
        every = torch.arange(len(where), device=where.device)
        pairs = [*pairs, (every, every), *((write, read) for read, write in reversed(pairs))]
    middle = len(offsets) // 2 if symmetric else None
    return Rulebook(tuple(pairs), len(where), where, shape, (where, shape), middle)


def _rows_by_number(keys: Tensor, cells: int) -> Callable[[Tensor], Tensor]:
    """A function from numbers of cells to the rows of the sites there, -1 where no site is."""
    if cells <= _MOST_CELLS:
        table = torch.full((cells,), -1, dtype=torch.int32, device=keys.device)
        table[keys] = torch.arange(len(keys), dtype=torch.int32, device=keys.device)
        return lambda wanted: table.index_select(0, wanted)
    ordered, order = keys.sort()

    def search(wanted: Tensor) -> Tensor:
        at = torch.searchsorted(ordered, wanted).clamp_(max=max(0, len(ordered) - 1))
        return torch.where(ordered[at] == wanted, order[at], -1) if len(ordered) else wanted.new_full(wanted.shape, -1)

    return search


def _numbered(keys: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """The numbers of cells that occur, in their order, and the place of each among them."""
    if cells > _MOST_CELLS:
        return torch.unique(keys, return_inverse=True)
    table = torch.zeros(cells, dtype=torch.int32, device=keys.device)
    table[keys] = 1
    found = table.nonzero()[:, 0]
    table[found] = torch.arange(len(found), dtype=torch.int32, device=keys.device)
    return found, table.index_select(0, keys).long()


def _within(place: Tensor, limit: int) -> Tensor:
    return (place >= 0) & (place < limit)


def _all(conditions: Sequence[Tensor], like: Tensor) -> Tensor:
    """The rows for which all conditions hold; every row where there is none."""
    if not conditions:
        return torch.arange(len(like), device=like.device)
    good = conditions[0]
    for one in conditions[1:]:
        good = good & one
    return good.nonzero()[:, 0]


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
    where = sites.where
    shape = output_shape(sites.shape, kernel, stride, padding, dilation)
    z, y, x = shape
    cells: list[list[Tensor]] = []
    good: list[list[Tensor]] = []
    for a in range(3):  # an offset is three of these, one for each axis
        scaled = [where[:, a + 1] + padding[a] - o * dilation[a] for o in range(kernel[a])]
        cells.append([torch.div(one, stride[a], rounding_mode="floor") for one in scaled])
        good.append([(c * stride[a] == one) & _within(c, shape[a]) for c, one in zip(cells[a], scaled, strict=True)])
    reads, keys = [], []
    for offset in _offsets(kernel):
        read = _all([good[a][o] for a, o in enumerate(offset)], where)
        cz, cy, cx = (cells[a][o][read] for a, o in enumerate(offset))
        reads.append(read)
        keys.append(((where[read, 0] * z + cz) * y + cy) * x + cx)
    found, back = _numbered(torch.cat(keys), sites.samples * z * y * x)
    writes = back.split([len(read) for read in reads])
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
