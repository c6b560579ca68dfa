"""Transformers that the integer twin would not be a twin of are told by the part that makes the difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fewer.approximate.compile import compile_transformer
from fewer.approximate.onnx import export_onnx
from fewer.core.errors import FewerError
from fewer.models.vit import VisionTransformer

PIXELS = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0))


def a_vit() -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(image_size=16, patch_size=8, width=12, depth=2, heads=2, num_classes=0).eval()


def made(net: nn.Module, pixels: torch.Tensor = PIXELS):
    return compile_transformer(net, pixels / 255, mean=(0,) * 3, std=(1,) * 3)


def with_query_norms(net: VisionTransformer) -> None:
    net.blocks[1].attn.q_norm = nn.LayerNorm(6)


def with_registers(net: VisionTransformer) -> None:
    net.reg_token = nn.Parameter(torch.zeros(1, 2, 12))


def with_silu(net: VisionTransformer) -> None:
    for block in net.blocks:
        block.mlp.act = nn.SiLU()


def with_overlap(net: VisionTransformer) -> None:
    net.patch_embed.proj = nn.Conv2d(3, 12, 8, stride=4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_query_norms, r"has 'blocks\.1\.attn\.q_norm\.weight'"),
        (with_registers, "has 'reg_token'"),
        (with_silu, "calls gelu in 0 places of its 2 blocks, not in 2"),
        (with_overlap, "patches that overlap"),
    ],
)
def test_a_part_that_the_twin_has_not_is_named(change, words: str) -> None:
    net = a_vit()
    change(net)
    with pytest.raises(FewerError, match=words):
        made(net)


def test_layers_without_a_bias_are_as_if_it_were_zero() -> None:
    net = a_vit()
    with torch.no_grad():
        for block in net.blocks:
            block.attn.qkv.bias.zero_()
    wanted = made(net).features(PIXELS.numpy())
    for block in net.blocks:
        block.attn.qkv.bias = None
    assert np.array_equal(made(net).features(PIXELS.numpy()), wanted)


def test_pixels_of_another_size_or_from_0_to_1_are_told() -> None:
    net = made(a_vit())
    with pytest.raises(FewerError, match=r"pixels are \[N, 3, 16, 16\] for this network; got \[2, 3, 24, 24\]"):
        net.features(np.zeros((2, 3, 24, 24)))
    with pytest.raises(FewerError, match="multiply by 255"):
        net.features(PIXELS.numpy() / 255)
    assert np.array_equal(net.features(PIXELS.numpy().astype(float)), net.features(PIXELS.numpy()))


def test_a_file_for_images_of_another_size_is_told(tmp_path) -> None:
    pytest.importorskip("onnx", reason='needs pip install "fewer[deploy]"')
    with pytest.raises(FewerError, match="takes images of 16 pixels"):
        export_onnx(made(a_vit()), tmp_path / "net.onnx", side=24)
    assert not (tmp_path / "net.onnx").exists()
