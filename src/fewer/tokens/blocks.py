"""Transformer blocks that merge tokens, in place of the blocks of a model, and the search for blocks that can be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.kernels import native, ops, rows
from fewer.kernels.transformer import disagreement, heads_of, why_not_a_block
from fewer.tokens.merge import TokenState, merge_tokens, most_merges

__all__ = [
    "MergingBlock",
    "cut_off",
    "merge_after",
    "merge_quickly",
    "mergeable_blocks",
    "merges_of",
    "pass_on",
    "restored",
    "state_of",
    "unmerged",
    "with_merging",
]

Merge = Callable[[Tensor, TokenState, int, int], tuple[Tensor, TokenState]]

_STATE = "_fewer_tokens"  # of a tensor: the blocks of a model hand on nothing else
_SAME = 1e-3
_PREFIX = ("cls_token", "dist_token", "reg_token")


def state_of(x: Tensor) -> TokenState | None:
    """What came with the tokens; None before the first merge."""
    return getattr(x, _STATE, None)


def restored(x: Tensor) -> Tensor:
    """As many tokens as the image had, so that they can be compared with those of a model that merges nothing.

    Examples
    --------
    >>> restored(torch.zeros(1, 3, 2)).shape
    torch.Size([1, 3, 2])
    """
    state = state_of(x)
    return x if state is None else state.restore(x)


def cut_off(x: Tensor) -> Tensor:
    """The same tokens with their state, and no gradient into what made them.

    Examples
    --------
    >>> cut_off(torch.zeros(1, requires_grad=True)).requires_grad
    False
    """
    y, state = x.detach(), state_of(x)
    if state is not None:
        setattr(y, _STATE, state)
    return y


def merge_quickly(x: Tensor, state: TokenState, count: int, protected: int = 1) -> tuple[Tensor, TokenState]:
    """:func:`~fewer.tokens.merge.merge_tokens` by the native library where that is possible; for inference.

    Examples
    --------
    >>> x = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 3.0]]])
    >>> merge_quickly(x, TokenState.fresh(x), 1)[0].tolist()
    [[[1.0, 0.0], [0.0, 2.0]]]
    """
    count = min(count, most_merges(x.shape[1], protected))
    plain = x.dtype == torch.float32 and x.device.type == "cpu" and not x.requires_grad and not ops.tracing(x)
    if not (count and plain and native.available()):
        return merge_tokens(x, state, count, protected)
    merged, sizes, origin = rows.merge_direct(x, state.sizes, state.origin, count, protected)
    return merged, TokenState(sizes, origin)


def pass_on(
    y: Tensor, state: TokenState | None, amount: int, protected: int, restore: bool, merge: Merge = merge_tokens
) -> Tensor:
    """What a merging block does with its output: merge, and hand on the state or restore the image's tokens.

    Parameters
    ----------
    y : Tensor [batch, tokens, width]
        Made by the block; a state may be attached to it.
    state
        Of these tokens.
    amount, protected
        How many tokens are merged here, and how many in front are left alone.
    restore
        Whether this is the last block.
    merge
        :func:`~fewer.tokens.merge.merge_tokens`, or something that does the same.
    """
    if amount:
        y, state = merge(y, state or TokenState.fresh(y), amount, protected)
    if state is None:
        return y
    if restore:
        return state.restore(y)
    setattr(y, _STATE, state)
    return y


class MergingBlock(nn.Module):
    """A pre-norm transformer block with the layers of another one, under the same names, that merges tokens after it.

    Attention counts a merged token as often as it has tokens in it: the logarithm of its size is added to its scores
    (proportional attention). A token that stands for none but itself is attended to as ever, so with nothing merged
    this is the block that it was made from.

    Parameters
    ----------
    block
        Of the structure that :func:`fewer.kernels.transformer.why_not_a_block` accepts.
    amount
        Tokens to merge after it.
    protected
        Tokens in front that are no patches.
    restore
        Whether to give the image's number of tokens back at the end: for the last block, so that what comes after it
        in the model need not know of any of this.

    Raises
    ------
    FewerError
        For another structure, or the same one with other mathematics.

    Examples
    --------
    >>> from fewer.models.vit import Block
    >>> block = Block(8, 2, 4.0, None, 1e-6)
    >>> tuple(MergingBlock(block, 3)(torch.randn(1, 10, 8)).shape)
    (1, 7, 8)
    """

    def __init__(self, block: nn.Module, amount: int, protected: int = 1, restore: bool = False) -> None:
        super().__init__()
        if reason := why_not_a_block(block):
            raise FewerError(f"tokens cannot be merged after {type(block).__name__}: {reason}")
        for name, child in block.named_children():
            self.add_module(name, child)
        self.amount, self.protected, self.restore = amount, protected, restore
        attention: Any = block.get_submodule("attn")
        scale = getattr(attention, "scale", None)
        self.scale = scale if isinstance(scale, float) else (attention.proj.in_features // self.heads) ** -0.5
        self.train(block.training)

    @property
    def heads(self) -> int:
        """Attention heads, of which some may be removed later."""
        return heads_of(self) or 1

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, tokens, width]."""
        state = state_of(x)
        return pass_on(self.block(x, state), state, self.amount, self.protected, self.restore)

    def block(self, x: Tensor, state: TokenState | None) -> Tensor:
        """The block without the merge."""
        parts: Any = self
        x = x + self._scaled("ls1", self._attention(parts.norm1(x), state))
        return x + self._scaled("ls2", parts.mlp(parts.norm2(x)))

    def around(self, fused: nn.Module) -> MergedKernel:
        """The same merges after a fused form of this block."""
        return MergedKernel(fused, self.amount, self.protected, self.restore)

    def without_merging(self) -> MergingBlock:
        """A block with the same layers that merges nothing."""
        return MergingBlock(self, 0, self.protected)

    def _scaled(self, name: str, branch: Tensor) -> Tensor:
        scale = getattr(self, name, None)
        return branch if scale is None else scale(branch)

    def _attention(self, x: Tensor, state: TokenState | None) -> Tensor:
        attention: Any = self.attn
        batch, tokens, _ = x.shape
        heads = self.heads  # asked each time: some may have been removed
        q, k, v = attention.qkv(x).reshape(batch, tokens, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        bias = None if state is None else state.sizes.log()[:, None, None, :].to(q.dtype)
        if bias is not None and torch.compiler.is_exporting():
            # the exporter to ONNX gets the memory layout of the fused product with a mask wrong (torch 2.13)
            mixed = ((q * self.scale) @ k.transpose(-2, -1) + bias).softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        return attention.proj(mixed.transpose(1, 2).reshape(batch, tokens, -1))

    def extra_repr(self) -> str:
        return f"amount={self.amount}, protected={self.protected}, restore={self.restore}"


class MergedKernel(nn.Module):
    """A block as one native call (:class:`fewer.kernels.transformer.NativeBlock`) that merges tokens after it."""

    def __init__(self, fused: nn.Module, amount: int, protected: int, restore: bool) -> None:
        super().__init__()
        self.fused, self.amount, self.protected, self.restore = fused, amount, protected, restore

    def forward(self, x: Tensor) -> Tensor:
        """x float32 [batch, tokens, width]."""
        state = state_of(x)
        y = self.fused(x, None if state is None else state.sizes.log())
        return pass_on(y, state, self.amount, self.protected, self.restore, merge_quickly)

    def extra_repr(self) -> str:
        return f"amount={self.amount}, protected={self.protected}, restore={self.restore}"


def mergeable_blocks(model: nn.Module, example: Any) -> tuple[list[str], int, int]:
    """The transformer blocks of a model after which tokens can be merged.

    Parameters
    ----------
    model
        Dense, in evaluation mode; left as it is.
    example
        One input of it.

    Returns
    -------
    names : list of str
        Of the blocks, in the order of execution.
    tokens : int
        That the first of them gets from one image.
    protected : int
        How many of these, in front, are no patches.

    Raises
    ------
    FewerError
        When there are none, with what is in the way.

    Examples
    --------
    >>> from fewer.models.vit import VisionTransformer
    >>> net = VisionTransformer(32, 8, width=16, depth=2, heads=2)
    >>> mergeable_blocks(net, torch.zeros(1, 3, 32, 32))
    (['blocks.0', 'blocks.1'], 17, 1)
    """
    wanted = [n for n, m in model.named_modules() if hasattr(m, "attn") and hasattr(m, "mlp")]
    if not wanted:
        raise FewerError("tokens cannot be merged: the model has no transformer block with the parts attn and mlp")
    names: list[str] = []
    shapes: list[tuple[int, ...]] = []

    def seen(name: str) -> Any:
        def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
            names.append(name)
            shapes.append(tuple(inputs[0].shape))

        return hook

    handles = [model.get_submodule(n).register_forward_pre_hook(seen(n)) for n in wanted]
    try:
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    if len(names) < 2 or len(set(names)) < len(names) or set(names) != set(wanted):
        raise FewerError("tokens cannot be merged: the transformer blocks are not run once each, in a row")
    if len(set(shapes)) > 1 or len(shapes[0]) != 3:
        raise FewerError("tokens cannot be merged: the transformer blocks do not all see the same tokens")
    for name in names:
        block = model.get_submodule(name)
        reason = why_not_a_block(block)
        if reason is None and disagreement(block, MergingBlock(block, 0), shapes[0][-1]) > _SAME:
            reason = "its forward pass computes something else than its structure suggests"
        if reason:
            raise FewerError(f"tokens cannot be merged: {name} is not a block that is understood: {reason}")
    return names, shapes[0][1], _protected(model)


def _protected(model: nn.Module) -> int:
    count = getattr(model, "num_prefix_tokens", None)
    if isinstance(count, int):
        return count
    found = [t for t in (getattr(model, n, None) for n in _PREFIX) if isinstance(t, Tensor)]
    if not found:
        raise FewerError("tokens cannot be merged: the model does not show which of its tokens are no patches")
    return sum(t.shape[1] for t in found)


def merge_after(model: nn.Module, amounts: Mapping[str, int], protected: int = 1) -> nn.Module:
    """Change a model so that tokens are merged after some of its blocks.

    Parameters
    ----------
    model
        Changed in place. Names of layers and parameters stay as they were.
    amounts
        Tokens to merge after each transformer block, by its name, for every block in the order of execution.
    protected
        Tokens in front that are no patches.

    Returns
    -------
    nn.Module
        The model.

    Raises
    ------
    FewerError
        When a block is missing or has another structure.

    Examples
    --------
    >>> from fewer.models.vit import VisionTransformer
    >>> net = VisionTransformer(32, 8, width=16, depth=2, heads=2)
    >>> tuple(merge_after(net, {"blocks.0": 8, "blocks.1": 0})(torch.zeros(1, 3, 32, 32)).shape)
    (1, 17, 16)
    """
    last = list(amounts)[-1] if amounts else ""
    for name, amount in amounts.items():
        try:
            block = model.get_submodule(name or "(a block without a name)")
        except AttributeError:
            raise FewerError(f"tokens are to be merged after {name!r}, which the model does not have") from None
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, MergingBlock(block, amount, protected, name == last))
    return model


def merges_of(model: nn.Module) -> dict[str, Any] | None:
    """What :func:`merge_after` would have to be told to merge the same tokens; None for a model that merges none.

    Examples
    --------
    >>> from fewer.models.vit import VisionTransformer
    >>> merges_of(merge_after(VisionTransformer(32, 8, width=16, depth=2, heads=2), {"blocks.0": 8, "blocks.1": 0}))
    {'amounts': {'blocks.0': 8, 'blocks.1': 0}, 'protected': 1}
    """
    found = {name: m for name, m in model.named_modules() if isinstance(m, MergingBlock)}
    if not found:
        return None
    return {"amounts": {n: m.amount for n, m in found.items()}, "protected": next(iter(found.values())).protected}


@contextmanager
def unmerged(model: nn.Module) -> Iterator[None]:
    """No merges while this lasts: every layer then gets the rows that its twin in the dense model gets.

    Examples
    --------
    >>> from fewer.models.vit import VisionTransformer
    >>> net = merge_after(VisionTransformer(32, 8, width=16, depth=2, heads=2), {"blocks.0": 8, "blocks.1": 0})
    >>> with unmerged(net):
    ...     merges_of(net)["amounts"]["blocks.0"]
    0
    >>> merges_of(net)["amounts"]["blocks.0"]
    8
    """
    blocks = [module for module in model.modules() if isinstance(module, MergingBlock)]
    amounts = [block.amount for block in blocks]
    for block in blocks:
        block.amount = 0
    try:
        yield
    finally:
        for block, amount in zip(blocks, amounts, strict=True):
            block.amount = amount


def with_merging(model: nn.Module, tokens: Mapping[str, Any] | None) -> nn.Module:
    """Apply what a plan, curves or a recipe say about tokens; nothing for None.

    ``tokens`` holds ``amounts`` and ``protected``, as for :func:`merge_after`.
    """
    return model if not tokens else merge_after(model, tokens["amounts"], int(tokens["protected"]))
