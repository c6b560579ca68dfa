"""Whether a Vision Transformer is one that the integer twin stands for; what it would leave out is told by name."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from torch import Tensor, nn

from fewer.approximate.sites import find_sites
from fewer.core.errors import FewerError

__all__ = ["PARTS", "refuse_unlike"]

PARTS = ("patch_embed", "cls_token", "pos_embed", "blocks", "norm")
"""What such a transformer has, in timm's names."""

_LAYERS = r"(norm1|norm2|attn\.qkv|attn\.proj|mlp\.fc1|mlp\.fc2)\.(weight|bias)|ls[12]\.gamma"
_KNOWN = re.compile(
    rf"cls_token|pos_embed|patch_embed\.proj\.(weight|bias)|norm\.(weight|bias)|blocks\.\d+\.({_LAYERS})"
    # what follows the tokens, and what is for training alone
    r"|(head|fc_norm|head_drop)(\..*)?|mask_token"
)


def refuse_unlike(model: nn.Module, images: Tensor) -> None:
    """Refuse a transformer with a part that the integer twin has not: it would be another network in silence.

    Parameters
    ----------
    model
        With :data:`PARTS`.
    images
        The first one is run.

    Raises
    ------
    FewerError
        Which part it is.

    Examples
    --------
    >>> import torch
    >>> from fewer.models.vit import VisionTransformer
    >>> refuse_unlike(VisionTransformer(16, 8, width=12, depth=1, heads=2), torch.zeros(1, 3, 16, 16))
    """
    name, state = type(model).__name__, model.state_dict()
    other = next((key for key in state if not _KNOWN.fullmatch(key)), None)
    if other is not None:
        raise _unlike(name, f"has {other!r}")
    patch: Any = model.get_submodule("patch_embed.proj")
    if tuple(patch.stride) != tuple(patch.kernel_size) or any(patch.padding):
        raise _unlike(name, "has patches that overlap or are padded")
    tokens = 1 + images[0, 0].numel() // (patch.kernel_size[0] * patch.kernel_size[1])
    if state["pos_embed"].shape[1] != tokens or images.shape[-1] != images.shape[-2]:
        raise _unlike(
            name,
            f"has {state['pos_embed'].shape[1]} positions, where a square image of these has {tokens} with its class",
        )
    depth = len(list(model.blocks))  # type: ignore[arg-type]
    found = Counter(site.function for site in find_sites(model.eval(), lambda m: m(images[:1])) if _inside(site.name))
    wanted = {"softmax": depth, "gelu": depth, "layer-norm": 2 * depth}
    for function in {**wanted, **found}:
        if found[function] != wanted.get(function, 0):
            raise _unlike(
                name,
                f"calls {function} in {found[function]} places of its {depth} blocks, not in {wanted.get(function, 0)}",
            )


def _inside(name: str) -> bool:
    return name.startswith("blocks.")


def _unlike(name: str, what: str) -> FewerError:
    return FewerError(
        f"{name} {what}, which the integer twin of a plain Vision Transformer has no place for; "
        "fewer.approximate.replace swaps single functions of any model"
    )
