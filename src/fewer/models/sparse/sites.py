"""Occupied sites of a batch of grids with a feature vector each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

__all__ = ["Sites", "site_keys"]


@dataclass(frozen=True, eq=False)
class Sites:
    """Features on some cells of a grid; all others are empty.

    Attributes
    ----------
    features
        Shape (sites, channels).
    where
        int64, shape (sites, 4): sample, z, y, x; no row twice.
    shape
        Cells along z, y, x.
    samples
        Grids in the batch.
    rules
        Rulebooks by the key of the layers that share them; a strided layer leaves its own for the inverse one.

    Examples
    --------
    >>> import torch
    >>> sites = Sites(torch.ones(1, 2), torch.tensor([[0, 0, 1, 2]]), (1, 3, 4), 1)
    >>> sites.dense().shape, float(sites.dense().sum())
    (torch.Size([1, 2, 1, 3, 4]), 2.0)
    """

    features: Tensor
    where: Tensor
    shape: tuple[int, int, int]
    samples: int
    rules: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.where)

    def with_features(self, features: Tensor) -> Sites:
        """The same sites with other features."""
        return replace(self, features=features)

    def dense(self) -> Tensor:
        """The whole grids, zero where nothing is: shape (samples, channels, z, y, x); differentiable."""
        keys = site_keys(self.where, self.shape)
        cells = self.samples * self.shape[0] * self.shape[1] * self.shape[2]
        grid = self.features.new_zeros(cells, self.features.shape[1]).index_put((keys,), self.features)
        return grid.view(self.samples, *self.shape, -1).permute(0, 4, 1, 2, 3).contiguous()


def site_keys(where: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """One number per site: its place in the batch of grids written out one after another.

    Examples
    --------
    >>> import torch
    >>> site_keys(torch.tensor([[1, 0, 1, 2]]), (1, 3, 4)).tolist()
    [18]
    """
    z, y, x = shape
    return ((where[:, 0] * z + where[:, 1]) * y + where[:, 2]) * x + where[:, 3]
