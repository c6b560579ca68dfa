"""First and second moments of a layer's input, streamed over the calibration set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.models.inputs import layer_input, sampled_rows

# Inputs beyond this share one block-diagonal Hessian, so that memory stays bounded (4,096^2 floats are 67 MB).
MAX_COLUMNS = 4096
# A Hessian of d columns is well estimated by some multiple of d rows; more rows only cost time.
MAX_ROWS, ROWS_PER_COLUMN = 8192, 4


def column_blocks(columns: int, limit: int = MAX_COLUMNS) -> list[slice]:
    """Split columns into nearly equal blocks of at most ``limit``.

    Examples
    --------
    >>> column_blocks(10, 4)
    [slice(0, 4, None), slice(4, 7, None), slice(7, 10, None)]
    """
    count = -(-columns // limit)
    size, extra = divmod(columns, count)
    edges = [0]
    for i in range(count):
        edges.append(edges[-1] + size + (i < extra))
    return [slice(a, b) for a, b in pairwise(edges)]


_TILE = 512  # columns; below this a product is too small to be split


def _add_products(product: Tensor, rows: Tensor) -> None:
    """Add ``rows^T rows`` of each group; of a large one only the half on and above the diagonal is computed."""
    tiles = min(8, rows.shape[2] // _TILE)
    if len(product) > 1 or tiles < 2 or rows.shape[1] < _TILE:
        product.baddbmm_(rows.transpose(1, 2), rows)
        return
    whole, x = product[0], rows[0]
    edges = [round(i * rows.shape[2] / tiles) for i in range(tiles + 1)]
    for a, b in pairwise(edges):
        whole[a:b, a:].addmm_(x[:, a:b].T, x[:, a:])
        whole[b:, a:b] = whole[a:b, b:].T


@dataclass
class Moments:
    """Running moments of the input rows of one unit.

    Parameters
    ----------
    groups, columns
        Groups of the layer, and inputs per group times kernel.

    Attributes
    ----------
    count
        Rows seen.
    total
        Sum of rows, shape (groups, columns).
    blocks
        Column slices; one unless ``columns`` passes :data:`MAX_COLUMNS`.
    products
        For each block the sum of outer products, shape (groups, block, block).

    Examples
    --------
    >>> moments = Moments(1, 2)
    >>> moments.add(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]))
    >>> moments.mean()
    tensor([[2., 3.]])
    >>> moments.covariance(0)[0]
    tensor([[1., 1.],
            [1., 1.]])
    """

    groups: int
    columns: int
    count: int = 0
    total: Tensor = field(init=False)
    blocks: list[slice] = field(init=False)
    products: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.total = torch.zeros(self.groups, self.columns)
        self.blocks = column_blocks(self.columns)
        self.products = [torch.zeros(self.groups, b.stop - b.start, b.stop - b.start) for b in self.blocks]

    def to(self, device: torch.device) -> Moments:
        """Move the sums to a device; returns the same object."""
        if self.total.device != device:
            self.total, self.products = self.total.to(device), [p.to(device) for p in self.products]
        return self

    def add(self, rows: Tensor) -> None:
        """Add input rows, shape (n, groups, columns)."""
        self.to(rows.device)  # sums stay where the model works
        by_group = rows.transpose(0, 1)
        self.count += rows.shape[0]
        self.total += by_group.sum(1)
        for block, product in zip(self.blocks, self.products, strict=True):
            _add_products(product, by_group[..., block])

    def mean(self) -> Tensor:
        """Mean input, shape (groups, columns)."""
        return self.total / max(1, self.count)

    def second(self, block: int) -> Tensor:
        """Mean outer product of one column block, shape (groups, d, d)."""
        return self.products[block] / max(1, self.count)

    def covariance(self, block: int) -> Tensor:
        """Mean outer product about the mean, of one column block, shape (groups, d, d)."""
        mean = self.mean()[:, self.blocks[block]]
        return self.second(block) - mean[:, :, None] * mean[:, None, :]

    def diagonal(self) -> Tensor:
        """Mean square of each input, shape (groups, columns)."""
        return torch.cat([p.diagonal(dim1=1, dim2=2) for p in self.products], 1) / max(1, self.count)

    def blended(self, other: Moments, share: float, *, centred: bool) -> Moments:
        """These moments with a share of another input's second moments (about its own mean if ``centred``).

        Examples
        --------
        >>> a, b = Moments(1, 1), Moments(1, 1)
        >>> a.add(torch.tensor([[[1.0]], [[3.0]]])); b.add(torch.tensor([[[5.0]], [[11.0]]]))
        >>> mixed = a.blended(b, 0.5, centred=True)
        >>> float(mixed.mean()), float(mixed.covariance(0))
        (2.0, 5.0)
        """
        mixed = Moments(self.groups, self.columns, self.count)
        mixed.total = self.total
        for i, block in enumerate(self.blocks):
            if centred:
                mean = self.mean()[:, block]
                second = (1 - share) * self.covariance(i) + share * other.covariance(i)
                second = second + mean[:, :, None] * mean[:, None, :]
            else:
                second = (1 - share) * self.second(i) + share * other.second(i)
            mixed.products[i] = second * self.count
        return mixed

    @classmethod
    def joined(cls, parts: Sequence[Moments]) -> Moments:
        """Moments over the rows of several.

        Examples
        --------
        >>> a, b = Moments(1, 1), Moments(1, 1)
        >>> a.add(torch.tensor([[[1.0]]])); b.add(torch.tensor([[[3.0]], [[5.0]]]))
        >>> float(Moments.joined([a, b]).mean())
        3.0
        """
        whole = cls(parts[0].groups, parts[0].columns, sum(p.count for p in parts))
        whole.total = torch.stack([p.total for p in parts]).sum(0)
        whole.products = [torch.stack(list(b)).sum(0) for b in zip(*(p.products for p in parts), strict=True)]
        return whole

    def check(self, name: str) -> None:
        """Raise a :class:`FewerError` that names the unit if an activation was NaN or infinite."""
        if not bool(torch.isfinite(self.total).all() and all(torch.isfinite(p).all() for p in self.products)):
            raise FewerError(
                f"the input of layer '{name}' holds NaN or infinity on the calibration images: "
                "check the images and the model's preprocessing."
            )


def rows_wanted(columns: int, share: float = 1.0) -> float:
    """Rows that a Hessian of so many columns needs; ``share`` is a call's part of the calibration set.

    Examples
    --------
    >>> rows_wanted(384), rows_wanted(4096)
    (8192.0, 16384.0)
    """
    return share * max(MAX_ROWS, ROWS_PER_COLUMN * columns)


def add_input(
    moments: Moments, module: nn.Module, x: Tensor, *, share: float = 1.0, weights: Tensor | None = None
) -> None:
    """Add one call's input to the moments.

    Where there are more rows than a good estimate needs, they are taken at a regular stride, so that every sample
    still counts; or as often as their ``weights`` say. ``share`` is this call's part of the calibration set.
    """
    for (rows,) in sampled_rows(module, (x,), rows_wanted(moments.columns, share), weights):
        moments.add(rows)


def collect_moments(
    model: nn.Module,
    modules: Mapping[str, Sequence[nn.Module]],
    batches: Sequence[Any],
    forward: Callable[[nn.Module, Any], Any],
    places: Mapping[str, Sequence[Tensor]] | None = None,
) -> dict[str, Moments]:
    """Run the calibration batches once and gather the moments of every unit's input.

    Parameters
    ----------
    model
        Dense model, in evaluation mode.
    modules
        Unit name -> the modules that use its weight (several when the weight is tied).
    batches
        Calibration inputs.
    forward
        ``forward(model, batch)``.
    places
        How often the rows of each batch count, by unit name, one tensor a batch; all alike where a unit has none.

    Returns
    -------
    dict of str to Moments
        Moments of calls of all of a unit's modules together.

    Raises
    ------
    FewerError
        When an activation is NaN or infinite.
    """
    moments: dict[str, Moments] = {}
    handles = []
    at = 0
    try:
        for name, users in modules.items():
            weight: Tensor = users[0].weight  # type: ignore[assignment]
            groups = getattr(users[0], "groups", 1)
            moments[name] = Moments(groups, weight[0].numel())
            for user in users:

                def gather(
                    module: nn.Module, inputs: tuple[Tensor, ...], keywords: dict[str, Any], name: str = name
                ) -> None:
                    x = layer_input(inputs, keywords).detach()
                    weights = places[name][at] if places and name in places else None
                    add_input(moments[name], module, x, share=1 / len(batches), weights=weights)

                handles.append(user.register_forward_pre_hook(gather, with_kwargs=True))
        with torch.no_grad():
            for at, batch in enumerate(batches):  # noqa: B007 (the hooks read it)
                forward(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    for name, found in moments.items():
        found.check(name)
    return moments
