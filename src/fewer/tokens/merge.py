"""Bipartite soft matching: which tokens are most alike, their weighted means, and where each one went."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Matching", "TokenState", "match_tokens", "merge_tokens", "most_merges"]


@dataclass(frozen=True)
class TokenState:
    """What travels with the tokens of a sample once some of them have been merged.

    Attributes
    ----------
    sizes : Tensor [batch, tokens]
        How many tokens of the image each one stands for.
    origin : Tensor [batch, tokens of the image], int64
        Which of the present tokens holds each token of the image.
    """

    sizes: Tensor
    origin: Tensor

    @classmethod
    def fresh(cls, x: Tensor) -> TokenState:
        """The state of tokens [batch, tokens, width] of which none has been merged."""
        batch, tokens = x.shape[:2]
        origin = torch.arange(tokens, device=x.device).expand(batch, -1)
        return cls(torch.ones(batch, tokens, dtype=x.dtype, device=x.device), origin)

    def restore(self, x: Tensor) -> Tensor:
        """As many tokens as the image had: those that were merged are all the same."""
        return x.gather(1, self.origin[..., None].expand(-1, -1, x.shape[-1]))


@dataclass(frozen=True)
class Matching:
    """Pairs of tokens to merge, as indices [batch, .] into two sets that the tokens are dealt to in turns.

    Attributes
    ----------
    kept, gone : Tensor int64
        Of the first set: those that stay on their own, in their order, and those that are merged.
    into : Tensor int64
        Of the second set: what each of ``gone`` is merged into.
    """

    kept: Tensor
    gone: Tensor
    into: Tensor


def most_merges(tokens: int, protected: int) -> int:
    """How many tokens can be merged at once.

    Examples
    --------
    >>> most_merges(257, 1), most_merges(2, 1)
    (128, 0)
    """
    return max(0, tokens - protected) // 2


def match_tokens(x: Tensor, count: int, protected: int = 1) -> Matching:
    """Pair the tokens that are most alike.

    Tokens are dealt to two sets in turns. Each of the first set looks for its nearest one in the second by the cosine;
    the ``count`` pairs that are nearest of all are merged, so no token is merged twice as a source.

    Parameters
    ----------
    x : Tensor [batch, tokens, width]
    count : int
        Pairs wanted, from 1 to :func:`most_merges`.
    protected : int
        Tokens in front (class token, registers) that stay as they are.

    Notes
    -----
    Bolya et al., Token merging: your ViT but faster (arXiv 2210.09461), compare the keys of the attention before. The
    tokens themselves are compared here: they are at hand between any two blocks.

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.1, 1.0], [1.0, 0.2]]])
    >>> found = match_tokens(x, 1, protected=0)
    >>> found.gone.tolist(), found.into.tolist()  # tokens 2 and 1
    ([[1]], [[0]])
    """
    unit = torch.nn.functional.normalize(x[:, protected:].float(), dim=-1)
    likeness, nearest = (unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)).max(-1)
    # top-k, not a stable sort: ONNX has no such thing
    order = likeness.topk(likeness.shape[1]).indices
    gone, kept = order[:, :count], order[:, count:]
    if kept.shape[1]:
        kept = kept.topk(kept.shape[1], largest=False).values
    return Matching(kept, gone, nearest.gather(1, gone))


def merge_tokens(x: Tensor, state: TokenState, count: int, protected: int = 1) -> tuple[Tensor, TokenState]:
    """Merge the ``count`` most alike tokens into means weighted by how many tokens each stands for.

    Parameters
    ----------
    x : Tensor [batch, tokens, width]
    state : TokenState
        Of these tokens.
    count
        Tokens to lose; at most :func:`most_merges` of them go.
    protected
        As for :func:`match_tokens`.

    Returns
    -------
    Tensor [batch, tokens - count, width]
        The protected ones, those of the first set that are left, and the second set.
    TokenState

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]]])
    >>> merged, state = merge_tokens(x, TokenState.fresh(x), 1)
    >>> merged.tolist(), state.sizes.tolist(), state.origin.tolist()
    ([[[1.0, 0.0], [0.0, 2.0]]], [[1.0, 2.0]], [[0, 1, 1]])
    """
    count = min(count, most_merges(x.shape[1], protected))
    if not count:
        return x, state
    found = match_tokens(x, count, protected)
    sizes = state.sizes[..., None]
    weighted = torch.cat([x * sizes, sizes], -1)  # values and sizes are moved together
    front, rest = weighted[:, :protected], weighted[:, protected:]
    first, second = rest[:, ::2], rest[:, 1::2]
    width = weighted.shape[-1]

    def take(index: Tensor) -> Tensor:
        return first.gather(1, index[..., None].expand(-1, -1, width))

    second = second.scatter_add(1, found.into[..., None].expand(-1, -1, width), take(found.gone))
    # nothing of no length is left in the graph of an exporter: OpenVINO cannot read that
    joined = torch.cat([front, take(found.kept), second] if found.kept.shape[1] else [front, second], 1)
    total = joined[..., -1].detach()  # sizes do not depend on values, which a backward pass cannot see
    return joined[..., :-1] / total[..., None], TokenState(total, _follow(state.origin, found, x.shape[1], protected))


def _follow(origin: Tensor, found: Matching, tokens: int, protected: int) -> Tensor:
    """Where each token of the image is after one more merge."""
    kept, second = found.kept.shape[1], (tokens - protected) // 2
    at = torch.empty(origin.shape[0], tokens, dtype=torch.int64, device=origin.device)
    at[:, :protected] = torch.arange(protected, device=origin.device)
    first = at[:, protected::2]
    if kept:
        places = torch.arange(protected, protected + kept, device=origin.device)
        first.scatter_(1, found.kept, places.expand_as(found.kept))
    first.scatter_(1, found.gone, protected + kept + found.into)
    at[:, protected + 1 :: 2] = torch.arange(second, device=origin.device) + protected + kept
    return at.gather(1, origin)
