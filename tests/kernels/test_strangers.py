"""Networks that are not written like timm's get the kernels that exist, and compute the same."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.kernels import native
from fewer.kernels.accelerate import accelerate
from fewer.kernels.likeness import StandIn, candidates_of, find_likenesses, same_as, without_shortcuts
from fewer.kernels.plain import padding_of, plain_convolutions
from tests.runtimes.networks import NETWORKS, Attention, SameConv2d

needs_kernels = pytest.mark.skipif(not native.available(), reason="the native library is not built")


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_is_accelerated_and_stays_what_it_is(name, precision):
    model, x = NETWORKS[name]()
    before = copy.deepcopy(model.state_dict())
    fast, rows = accelerate(model, example=x, precision=precision, budget_ms=1)
    with torch.no_grad():
        assert distance(fast(x), model(x)) < (1e-4 if precision == "fp32" else 0.1)
    assert rows and all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def encoder(norm_first: bool = True, **more) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first, **more).eval()
    for p in layer.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    return layer


@needs_kernels
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_an_encoder_layer_is_a_block(activation):
    layer, x = encoder(activation=activation), torch.randn(2, 9, 32)
    assert min(same_as(layer, like, x) for like in candidates_of(layer)) < 1e-4
    assert find_likenesses(nn.Sequential(layer)) == {"0": layer}


@needs_kernels
def test_another_order_of_norms_is_none():
    layer, x = encoder(norm_first=False), torch.randn(2, 9, 32)
    assert min(same_as(layer, like, x) for like in candidates_of(layer)) > 1e-2


@needs_kernels
def test_separate_layers_for_queries_keys_and_values_are_a_block_with_their_masks():
    block, x = Attention(32, 4).eval(), torch.randn(2, 9, 32)
    like = next(c for c in candidates_of(block) if same_as(block, c, x) < 1e-4)
    assert like.names["attn.qkv"] == ("q", "k", "v")
    masks = {"k": torch.rand(32, 32) > 0.5, "up": torch.rand(64, 32) > 0.5}
    with torch.no_grad():
        for name, mask in masks.items():
            block.get_submodule(name).weight.mul_(mask)
    fast, _ = accelerate(nn.Sequential(block), {f"0.{n}": m for n, m in masks.items()}, example=x, budget_ms=1)
    with torch.no_grad():
        assert distance(fast(x), block(x)) < 1e-4


@needs_kernels
def test_a_mask_of_attention_goes_to_the_layer_itself():
    layer, x = encoder(), torch.randn(2, 9, 32)
    stand_in = StandIn(nn.Identity(), without_shortcuts(layer))
    mask = torch.zeros(9, 9).masked_fill(torch.ones(9, 9).triu(1).bool(), float("-inf"))
    with torch.no_grad():
        assert torch.equal(stand_in(x, mask), layer(x, mask))
    assert torch.equal(stand_in(x, None, is_causal=False), x) and stand_in.norm_first


@pytest.mark.parametrize("size", [8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 2), (2, 1)])
def test_padding_found_from_the_size_is_padding(kernel, stride, size):
    net, x = nn.Sequential(SameConv2d(3, 4, kernel, stride)).eval(), torch.randn(2, 3, size, size)
    made = plain_convolutions(copy.deepcopy(net), lambda m: m(x))
    assert type(made[0]) is nn.Conv2d
    with torch.no_grad():
        assert distance(made(x), net(x)) < 1e-6
        if padding_of(made[0]) is None:  # then it holds for every size
            other = torch.randn(1, 3, size + 3, size + 5)
            assert distance(made(other), net(other)) < 1e-6


def test_a_layer_that_does_something_else_stays_as_it_is():
    class Standardised(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.weight / self.weight.std(), self.bias, self.stride, self.padding)

    net = nn.Sequential(Standardised(3, 4, 3, padding=1)).eval()
    assert type(plain_convolutions(net, lambda m: m(torch.randn(1, 3, 8, 8)))[0]) is Standardised
