"""Layers that hold the weight of a sparse convolution, and a sequence that hands sites through.

A layer is called with features alone and finds the rulebook that the sequence has put down for them. So it looks like
any other layer to what watches a model: one tensor in, one tensor out. Passes over several batches may stand in the
same layer at once, in threads of their own, so that a rulebook is found by the memory that the features lie in.
"""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.models.sparse.product import offset_product, sparse_product
from fewer.models.sparse.rulebook import Rulebook, Triple, inverse_rules, strided_rules, submanifold_rules
from fewer.models.sparse.sites import Sites

__all__ = ["SparseConv3d", "SparseConvolution", "SparseInverseConv3d", "SparseSequential", "SubMConv3d"]

_BOOKS: Any = weakref.WeakValueDictionary()
"""Rulebooks that are in use, by the geometry of a layer and the memory of the features that they belong to."""


def _triple(value: int | Sequence[int]) -> Triple:
    return (value, value, value) if isinstance(value, int) else tuple(value)  # type: ignore[return-value]


class SparseConvolution(nn.Module):
    """Weight, bias and rulebook of one layer.

    The state dict of a layer of spconv loads as it is: weights of version 2 have the shape (out, z, y, x, in), those
    of version 1 (z, y, x, in, out); both are turned into (out, in, z, y, x).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sequence[int],
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        *,
        bias: bool = False,
        key: str = "",
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.key = in_channels, out_channels, key
        self.kernel_size, self.stride = _triple(kernel_size), _triple(stride)
        self.padding, self.dilation = _triple(padding), _triple(dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *self.kernel_size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.rules: Rulebook | None = None
        self.products: nn.ModuleList | None = None

    def by_offset(self, products: Sequence[nn.Module | None] | None = None) -> SparseConvolution:
        """A copy for inference that shares this layer's weights, multiplies in another way, and keeps its rulebook.

        Parameters
        ----------
        products
            For each offset of the kernel a module from (pairs, in) to (pairs, out), and None where nothing is to be
            added, as where all weights were pruned. By default the copy multiplies as this layer does.

        Examples
        --------
        >>> sites = Sites(torch.ones(1, 4), torch.tensor([[0, 1, 1, 1]]), (3, 3, 3), 1)
        >>> layer = SubMConv3d(4, 8, 3)
        >>> made = layer.by_offset(layer.linears())
        >>> torch.allclose(convolve(made, sites).features, convolve(layer, sites).features, atol=1e-6)
        True
        """
        made = copy.copy(self)
        made._modules, made.rules = dict(self._modules), self.rules
        made.products = None if products is None else nn.ModuleList(products)  # type: ignore[arg-type]
        return made

    def linears(self) -> list[nn.Linear]:
        """The weight at each offset of the kernel, as a linear layer without a bias."""
        found = []
        for tap in self.weight.detach().flatten(2).unbind(2):
            one = nn.Linear(self.in_channels, self.out_channels, bias=False, device="meta")
            one.weight = nn.Parameter(tap.contiguous(), requires_grad=False)
            found.append(one)
        return found

    def _place(self, features: Tensor) -> tuple[Any, ...]:
        geometry = (type(self), self.kernel_size, self.stride, self.padding, self.dilation)
        return (*geometry, features.data_ptr(), len(features))

    def put_down(self, features: Tensor, rules: Rulebook) -> None:
        """Keep the rulebook of some features for as long as their sites live; the latest one in any case."""
        self.rules = rules
        _BOOKS[self._place(features)] = rules

    def rules_of(self, features: Tensor) -> Rulebook:
        """The rulebook of features that were put down, by this layer or by its like in a copy of the model.

        Others of the same number, such as a changed version of them, get the latest rulebook.

        Raises
        ------
        FewerError
            When there is none of this size.
        """
        rules = _BOOKS.get(self._place(features)) or self.rules
        if rules is None or rules.inputs != len(features):
            raise FewerError("a sparse convolution needs the rulebook of its sites; call it inside a SparseSequential")
        return rules

    @property
    def positions(self) -> float:
        """Pairs of the latest rulebook for each weight: the multiply-accumulates of the layer are this times them."""
        return 0.0 if self.rules is None else self.rules.count / math.prod(self.kernel_size)

    def book(self, sites: Sites) -> Rulebook:
        """The rules of this layer on some sites."""
        raise NotImplementedError

    def rules_for(self, sites: Sites) -> Rulebook:
        """As :meth:`book`, made once for all layers of one key."""
        if not self.key:
            return self.book(sites)
        if self.key not in sites.rules:
            # rules that are kept for later passes must do for passes with gradients, too
            with torch.inference_mode(False), torch.no_grad():
                sites.rules[self.key] = self.book(sites)
        return sites.rules[self.key]

    def forward(self, features: Tensor) -> Tensor:
        """Shape (input sites, in) to (output sites, out)."""
        rules = self.rules_of(features)
        if self.products is None:
            out = sparse_product(features, self.weight, rules)
        else:
            out = offset_product(features, self.products, self.out_channels, rules)
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "rules": None}  # a copy is run on its own sites

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        given = state_dict.get(f"{prefix}weight")
        if isinstance(given, Tensor) and given.ndim == 5 and given.shape != self.weight.shape:
            for order in ((0, 4, 1, 2, 3), (4, 3, 0, 1, 2)):
                if given.permute(order).shape == self.weight.shape:
                    state_dict[f"{prefix}weight"] = given.permute(order).contiguous()
                    break
        super()._load_from_state_dict(state_dict, prefix, *rest)


class SubMConv3d(SparseConvolution):
    """Submanifold convolution: outputs where inputs are (Graham et al., CVPR 2018).

    Parameters
    ----------
    in_channels, out_channels, kernel_size, padding, dilation, bias
        As for ``nn.Conv3d``; the padding follows from the odd kernel and is ignored.
    key
        Layers of one key share a rulebook.

    Examples
    --------
    >>> sites = Sites(torch.ones(2, 4), torch.tensor([[0, 0, 0, 0], [0, 2, 2, 2]]), (3, 3, 3), 1)
    >>> SparseSequential(SubMConv3d(4, 8, 3))(sites).features.shape
    torch.Size([2, 8])
    """

    def book(self, sites: Sites) -> Rulebook:
        """See :func:`submanifold_rules`."""
        return submanifold_rules(sites, self.kernel_size, self.dilation)


class SparseConv3d(SparseConvolution):
    """Strided convolution: outputs wherever an input reaches.

    Examples
    --------
    >>> sites = Sites(torch.ones(1, 4), torch.tensor([[0, 1, 1, 1]]), (4, 4, 4), 1)
    >>> SparseSequential(SparseConv3d(4, 8, 3, stride=2, padding=1))(sites).shape
    (2, 2, 2)
    """

    def book(self, sites: Sites) -> Rulebook:
        """See :func:`strided_rules`."""
        return strided_rules(sites, self.kernel_size, self.stride, self.padding, self.dilation)


class SparseInverseConv3d(SparseConvolution):
    """From the outputs of the strided layer with the same ``key`` back to its input sites.

    Examples
    --------
    >>> sites = Sites(torch.ones(1, 4), torch.tensor([[0, 1, 1, 1]]), (4, 4, 4), 1)
    >>> net = SparseSequential(SparseConv3d(4, 8, 2, 2, key="down"), SparseInverseConv3d(8, 4, 2, key="down"))
    >>> net(sites).where.tolist()
    [[0, 1, 1, 1]]
    """

    def rules_for(self, sites: Sites) -> Rulebook:
        """The rules of the strided layer, turned round."""
        if self.key not in sites.rules:
            raise FewerError(f"no strided sparse convolution with the key {self.key!r} ran before its inverse")
        return inverse_rules(sites.rules[self.key])


class SparseSequential(nn.Sequential):
    """Layers on sites: sparse convolutions change them, all other modules see the features alone.

    Examples
    --------
    >>> sites = Sites(torch.randn(3, 4), torch.tensor([[0, 0, 0, i] for i in range(3)]), (1, 1, 3), 1)
    >>> SparseSequential(SubMConv3d(4, 8, 3), nn.BatchNorm1d(8), nn.ReLU())(sites).features.shape
    torch.Size([3, 8])
    """

    def forward(self, sites: Sites) -> Sites:  # type: ignore[override]
        """Sites in, sites out."""
        for module in self:
            if isinstance(module, SparseConvolution):
                sites = convolve(module, sites)
            elif isinstance(module, SparseSequential) or getattr(module, "on_sites", False):
                sites = module(sites)
            else:
                sites = sites.with_features(module(sites.features))
        return sites


def convolve(layer: SparseConvolution, sites: Sites) -> Sites:
    """Run one layer on sites."""
    rules = layer.rules_for(sites)
    layer.put_down(sites.features, rules)
    return Sites(layer(sites.features), rules.where, rules.shape, sites.samples, sites.rules)
