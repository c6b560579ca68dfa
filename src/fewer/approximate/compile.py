"""From a trained Vision Transformer and some images to the constants of its integer twin. No training, no labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.approximate.activation import ACTIVATIONS
from fewer.approximate.arithmetic import scaling
from fewer.approximate.native import native_twin
from fewer.approximate.norm import NORMS
from fewer.approximate.shape import PARTS, refuse_unlike
from fewer.approximate.softmax import SOFTMAXES
from fewer.approximate.transformer import INNER, Affine, Block, Choice, IntegerTransformer
from fewer.core.errors import FewerError

__all__ = ["compile_transformer", "observe"]

_NORM_SCALE = NORMS[NORMS.default].run(np.zeros((1, 2), dtype=np.int64), 1.0, None)[1]


def observe(model: nn.Module, images: Tensor) -> dict[str, np.ndarray]:
    """Largest magnitudes of each channel (of the mean over images), lowest and highest where it matters.

    Parameters
    ----------
    model
        A Vision Transformer in timm's names.
    images
        [N, 3, side, side], as the model takes them.

    Returns
    -------
    dict
        ``blocks.0.norm1`` and so on: vectors; ``blocks.0.mlp.fc1.span``: lowest and highest number.
    """
    seen: dict[str, np.ndarray] = {}

    def note(name: str, x: Tensor, span: bool = False) -> None:
        x = x.detach()
        seen[name] = x.abs().amax(dim=tuple(range(1, x.dim() - 1))).mean(0).double().numpy()
        if span:
            seen[name + ".span"] = np.array([float(x.min()), float(x.max())])

    inputs = ("attn.proj", "mlp.fc2")
    outputs = ("norm1", "norm2", "attn.qkv", "mlp.fc1")
    handles = []
    for i, block in enumerate(_blocks(model)):
        for part in outputs:
            name = f"blocks.{i}.{part}"
            hook = lambda _m, _x, y, name=name: note(name, y, name.endswith("fc1"))  # noqa: E731
            handles.append(block.get_submodule(part).register_forward_hook(hook))
        for part in inputs:
            name = f"blocks.{i}.{part}.in"
            pre = lambda _m, x, name=name: note(name, x[0])  # noqa: E731
            handles.append(block.get_submodule(part).register_forward_pre_hook(pre))
        for part in ("norm1", "norm2"):
            name = f"blocks.{i}.{part}.in"
            pre = lambda _m, x, name=name: note(name, x[0])  # noqa: E731
            handles.append(block.get_submodule(part).register_forward_pre_hook(pre))
    norm: Any = model.norm
    handles.append(norm.register_forward_pre_hook(lambda _m, x: note("norm.in", x[0])))
    handles.append(norm.register_forward_hook(lambda _m, _x, y: note("norm", y)))
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def compile_transformer(
    model: nn.Module,
    images: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    choices: Mapping[int, Choice] | None = None,
    smooth: float = 0.0,
    seen: Mapping[str, np.ndarray] | None = None,
) -> IntegerTransformer:
    """Make the integer twin of a Vision Transformer.

    Weights are rounded to 8 bits for each output; activations have one scale for each tensor (each head for queries,
    keys and values). Between a norm and the layer behind it scales differ by channel, which the layer's weights take
    up (RepQ-ViT, arXiv 2212.08254; here a power ``smooth`` of the range). DINOv2 errs least without it.

    Parameters
    ----------
    model
        With timm's names: ours, DeiT, DINOv2.
    images
        Calibration images [N, 3, side, side], as the model takes them.
    mean, std
        Of the model's preprocessing, on the 0..1 scale; they become a part of the first layer.
    choices
        Which approximations stand in which block; the defaults elsewhere.
    smooth
        0: one scale behind a norm; 1: each channel fills its 8 bits.
    seen
        Of :func:`observe`, where it has been called already.

    Raises
    ------
    FewerError
        When the model is no such transformer, or has a part that its integer twin has not.

    Examples
    --------
    >>> from fewer.models.vit import VisionTransformer
    >>> net = VisionTransformer(image_size=28, patch_size=14, width=24, depth=1, heads=2, num_classes=0)
    >>> pixels = torch.randint(0, 256, (2, 3, 28, 28), generator=torch.Generator().manual_seed(0))
    >>> integer = compile_transformer(net, pixels / 255, mean=(0, 0, 0), std=(1, 1, 1))
    >>> integer.features(pixels.numpy()).shape
    (2, 5, 24)
    """
    blocks = _blocks(model)
    if seen is None:
        refuse_unlike(model, images)
        seen = observe(model, images)
    heads = _heads(blocks[0])
    state = {name: t.detach().double().numpy() for name, t in model.state_dict().items()}
    top = max(float(v.max()) for name, v in seen.items() if name.endswith((".in", "norm.in")))
    residual = 2.0 ** np.ceil(np.log2(max(top, 1e-3) * 2 / 2**21))  # twice the range fits into 22 bits
    kernel = state["patch_embed.proj.weight"]
    width, _, patch, _ = kernel.shape
    deviation, middle = (np.asarray(v, dtype=float).reshape(1, 3, 1, 1) for v in (std, mean))
    pixel = kernel / (255 * deviation)
    bias = state.get("patch_embed.proj.bias", np.zeros(width)) + (pixel * (128 - 255 * middle)).sum((1, 2, 3))
    embed, embed_scale = _rounded(pixel.reshape(width, -1))
    position = state["pos_embed"][0] + np.concatenate(
        [state["cls_token"][0], np.zeros((len(state["pos_embed"][0]) - 1, width))]
    )
    scale = float(seen["norm"].max()) / 2**15
    made = tuple(
        _block(state, seen, i, (choices or {}).get(i, Choice()), heads, residual, smooth) for i in range(len(blocks))
    )
    last = scaling(_NORM_SCALE * state["norm.weight"] / scale, state["norm.bias"] / scale)
    return IntegerTransformer(
        patch=patch,
        heads=heads,
        embed=embed,
        after_embed=Affine(*scaling(embed_scale / residual, bias / residual), byte=False),
        position=np.rint(position / residual).astype(np.int64),
        residual=float(residual),
        blocks=made,
        norm=NORMS.default,
        after_norm=Affine(*last, byte=False),
        scale=scale,
        quicken=native_twin,
    )


def _block(
    state: Mapping[str, np.ndarray],
    seen: Mapping[str, np.ndarray],
    i: int,
    choice: Choice,
    heads: int,
    residual: float,
    smooth: float,
) -> Block:
    def at(name: str) -> np.ndarray:
        return state[f"blocks.{i}.{name}"]

    def bias(name: str) -> np.ndarray:  # zero where a layer has none
        kept = state.get(f"blocks.{i}.{name}.bias")
        return np.zeros(len(at(f"{name}.weight"))) if kept is None else kept

    def range_of(name: str) -> np.ndarray:
        return np.maximum(seen[f"blocks.{i}.{name}"], 1e-6)

    width = len(at("norm1.weight"))
    ones = np.ones(width)
    norm1, s1 = _norm(at("norm1.weight"), bias("norm1"), range_of("norm1"), smooth)
    norm2, s2 = _norm(at("norm2.weight"), bias("norm2"), range_of("norm2"), smooth)
    qkv, w_qkv = _rounded(at("attn.qkv.weight") * s1)
    s_heads = range_of("attn.qkv").reshape(3, heads, -1).max(-1) / 127
    per_output = np.repeat(s_heads.reshape(-1), width // heads)
    heads_in = Affine(*scaling(w_qkv / per_output, bias("attn.qkv") / per_output))
    logit = s_heads[0] * s_heads[1] * (width // heads) ** -0.5 / INNER
    s_mixed = float(range_of("attn.proj.in").max()) / 127
    p_scale = SOFTMAXES[choice.softmax].run(np.zeros((1, 2), dtype=np.int64), INNER, None)[1]
    per_head = (heads, 1, 1)
    proj, w_proj = _rounded(at("attn.proj.weight") * s_mixed)
    ls1, ls2 = (state.get(f"blocks.{i}.{ls}.gamma", ones) / residual for ls in ("ls1", "ls2"))
    fc1, w_fc1 = _rounded(at("mlp.fc1.weight") * s2)
    span = tuple(float(v) for v in seen[f"blocks.{i}.mlp.fc1.span"])
    s_act = float(range_of("mlp.fc2.in").max()) / 127
    out = ACTIVATIONS[choice.activation].run(np.zeros(1, dtype=np.int64), INNER, span)[1]
    fc2, w_fc2 = _rounded(at("mlp.fc2.weight") * s_act)
    return Block(
        choice=choice,
        norm1=norm1,
        qkv=qkv,
        heads_in=heads_in,
        logits=_by_head(*scaling(logit.reshape(per_head)), byte=False),
        heads_out=_by_head(*scaling((p_scale * s_heads[2] / s_mixed).reshape(per_head))),
        proj=proj,
        after_proj=Affine(*scaling(w_proj * ls1, bias("attn.proj") * ls1), byte=False),
        norm2=norm2,
        fc1=fc1,
        before_activation=Affine(*scaling(w_fc1 / INNER, bias("mlp.fc1") / INNER), byte=False),
        after_activation=Affine(*scaling(np.array([out / s_act]))),
        fc2=fc2,
        after_fc2=Affine(*scaling(w_fc2 * ls2, bias("mlp.fc2") * ls2), byte=False),
        spans={"activation": span, **{n: seen[f"blocks.{i}.{n}.in"] for n in ("norm1", "norm2")}},
    )


def _by_head(m: np.ndarray, b: np.ndarray, shift: int, byte: bool = True) -> Affine:
    return Affine(m, np.asarray(b).reshape(-1, 1, 1) if np.ndim(b) else b, shift, byte)


def _norm(weight: np.ndarray, bias: np.ndarray, largest: np.ndarray, smooth: float) -> tuple[Affine, np.ndarray]:
    """The affine part of a norm with the rounding behind it, and the scale of each channel."""
    share = largest / largest.max()
    scale = largest.max() * share**smooth / 127
    # a channel whose part of the smoothing is too small would be cut off
    scale = np.maximum(scale, largest / 127)
    return Affine(*scaling(_NORM_SCALE * weight / scale, bias / scale)), scale


def _rounded(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 weights [inputs, outputs] and a scale for each output."""
    scale = np.maximum(np.abs(weight).max(1), 1e-12) / 127
    return np.rint(weight / scale[:, None]).astype(np.int8).T.copy(), scale


def _blocks(model: nn.Module) -> list[nn.Module]:
    if not all(hasattr(model, part) for part in PARTS):
        raise FewerError(
            f"{type(model).__name__} is no Vision Transformer in timm's names ({', '.join(PARTS)}), "
            "so it has no integer twin; fewer.approximate.replace swaps single operations of any model"
        )
    return list(model.blocks)  # type: ignore[arg-type]


def _heads(block: nn.Module) -> int:
    attention: Any = block.get_submodule("attn")
    return int(getattr(attention, "num_heads", None) or attention.heads)
