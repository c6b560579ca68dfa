"""The product over a rulebook: gather the rows of an offset, multiply, add to the outputs; and its gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fewer.models.sparse.rulebook import Rulebook

__all__ = ["gathered_rows", "offset_product", "sparse_product"]


class _Product(torch.autograd.Function):
    """Gathered rows are not kept for the gradient but gathered again, which saves ``taps`` times the features."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, taps: Tensor, rules: Rulebook) -> Tensor:
        ctx.save_for_backward(features, taps)
        ctx.rules = rules
        middle = rules.middle
        out = features.new_zeros(rules.outputs, taps.shape[2]) if middle is None else features @ taps[middle]
        for at, (read, write) in enumerate(rules.pairs):
            if len(read) and at != middle:
                # half the time of features[read]
                out.index_add_(0, write, features.index_select(0, read) @ taps[at])
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        with torch.autocast(grads[0].device.type, enabled=False):
            return _gradients(ctx, grads[0].contiguous())


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    (features, taps), rules = ctx.saved_tensors, ctx.rules
    middle, back = rules.middle, taps.transpose(1, 2).contiguous()
    to_features, to_taps = None, torch.zeros_like(taps) if ctx.needs_input_grad[1] else None
    if ctx.needs_input_grad[0]:
        to_features = torch.zeros_like(features) if middle is None else grad @ back[middle]
    for at, (read, write) in enumerate(rules.pairs):
        if not len(read) or (at == middle and to_taps is None):
            continue
        part = grad if at == middle else grad.index_select(0, write)
        if to_features is not None and at != middle:
            to_features.index_add_(0, read, part @ back[at])
        if to_taps is not None:
            to_taps[at] = (features if at == middle else features.index_select(0, read)).T @ part
    return to_features, to_taps, None


def sparse_product(features: Tensor, weight: Tensor, rules: Rulebook) -> Tensor:
    """Convolve sites: ``out[o] = sum over offsets k and pairs (i, o) of k of weight[:, :, k] @ features[i]``.

    Parameters
    ----------
    features
        Shape (input sites, in).
    weight
        Shape (out, in, z, y, x), as of ``nn.Conv3d``.
    rules
        Which sites meet.

    Returns
    -------
    Tensor
        Shape (output sites, out); differentiable once in features and weight.

    Examples
    --------
    >>> from fewer.models.sparse.rulebook import submanifold_rules
    >>> from fewer.models.sparse.sites import Sites
    >>> sites = Sites(torch.ones(1, 2), torch.zeros(1, 4, dtype=torch.int64), (3, 3, 3), 1)
    >>> sparse_product(sites.features, torch.ones(4, 2, 3, 3, 3), submanifold_rules(sites, (3, 3, 3)))
    tensor([[2., 2., 2., 2.]])
    """
    taps = weight.flatten(2).permute(2, 1, 0)
    # in mixed precision as well the sums over offsets are those of the wider type
    kind = torch.promote_types(features.dtype, taps.dtype)
    with torch.autocast(features.device.type, enabled=False):
        return _Product.apply(features.to(kind), taps.to(kind), rules)  # type: ignore[no-any-return]


def offset_product(
    features: Tensor, products: Iterable[Callable[[Tensor], Tensor] | None], outputs: int, rules: Rulebook
) -> Tensor:
    """As :func:`sparse_product`, with a product of its own for each offset of the kernel.

    Parameters
    ----------
    features
        Shape (input sites, in).
    products
        In the order of the rulebook's offsets: gathered rows, shape (pairs, in), to shape (pairs, out). None where all
        weights are zero: nothing is gathered there.
    outputs
        Channels of the output.
    rules
        Which sites meet.

    Returns
    -------
    Tensor
        Shape (output sites, outputs). For inference.
    """
    out = features.new_zeros(rules.outputs, outputs)
    for at, (product, (read, write)) in enumerate(zip(products, rules.pairs, strict=True)):
        if product is not None and len(read):
            rows = features if at == rules.middle else features.index_select(0, read)
            out.index_add_(0, write, product(rows))
    return out


def gathered_rows(features: Tensor, rules: Rulebook, outputs: Tensor | None = None) -> Tensor:
    """What the weight of a sparse convolution multiplies at some outputs; zero where an offset meets no site.

    Parameters
    ----------
    features
        Shape (input sites, in).
    rules
        Of the layer.
    outputs
        Rows of the output that are wanted; all by default.

    Returns
    -------
    Tensor
        Shape (outputs, taps times in), in the order of :func:`fewer.patterns.to_matrix`.
    """
    place = torch.arange(rules.outputs, device=features.device)
    count = rules.outputs
    if outputs is not None:
        place = place.new_full((rules.outputs,), -1)
        place[outputs] = torch.arange(len(outputs), device=features.device)
        count = len(outputs)
    rows = features.new_zeros(count, len(rules.pairs), features.shape[1])
    for at, (read, write) in enumerate(rules.pairs):
        slot = place[write]
        kept = slot >= 0
        rows[slot[kept], at] = features.index_select(0, read[kept])
    return rows.flatten(1)
