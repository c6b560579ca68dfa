"""Merging blocks in place of a model's own, and the reasons why they cannot be."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.kernels import native
from fewer.kernels.accelerate import accelerate
from fewer.models.artefact import load_artefact, load_recipe, save_artefact
from fewer.models.vit import VisionTransformer
from fewer.tokens.blocks import MergingBlock, merge_after, mergeable_blocks, merges_of, state_of
from fewer.tokens.merge import TokenState
from tests.tiny import tiny

needs_native = pytest.mark.skipif(not native.available(), reason="the native library is not built")


def vit(depth: int = 3, width: int = 32, scale: float | None = 0.5) -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = VisionTransformer(32, 8, width=width, depth=depth, heads=2, layer_scale=scale)
        for parameter in net.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
    return net.eval()


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


AMOUNTS = {"blocks.0": 4, "blocks.1": 3, "blocks.2": 0}


def test_nothing_merged_is_the_same_model():
    net = vit()
    same = merge_after(copy.deepcopy(net), dict.fromkeys(AMOUNTS, 0))
    assert list(same.state_dict()) == list(net.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(same(images()), net(images()))


def test_tokens_go_block_by_block_and_come_back_at_the_end():
    net = merge_after(vit(), AMOUNTS)
    seen = []
    for block in net.blocks:
        block.register_forward_pre_hook(lambda _m, x: seen.append((x[0].shape[1], state_of(x[0]))))
    with torch.no_grad():
        out = net(images())
    assert [tokens for tokens, _ in seen] == [17, 13, 10]
    assert seen[0][1] is None and float(seen[2][1].sizes[0].sum()) == 17
    assert out.shape == (2, 17, 32)
    origin = seen[2][1].origin
    for a in range(17):
        for b in range(17):
            assert torch.equal(out[0, a], out[0, b]) == bool(origin[0, a] == origin[0, b])


def test_attention_counts_a_token_as_often_as_it_has_tokens_in_it():
    """Twins that are merged are attended to like twins that are not."""
    block = vit().blocks[0]
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(2))
    twins = torch.cat([x, x[:, 3:4], x[:, 3:4]], 1)
    state = TokenState(torch.tensor([[1.0, 1, 1, 3, 1]]), torch.tensor([[0, 1, 2, 3, 4, 3, 3]]))
    with torch.no_grad():
        torch.testing.assert_close(MergingBlock(block, 0).block(x, state), block(twins)[:, :5])
        plain = MergingBlock(block, 0).block(x, None)
    assert not torch.allclose(plain, block(twins)[:, :5], atol=1e-3)


def test_copies_and_pickles_merge_the_same_tokens():
    net = merge_after(vit(), AMOUNTS)
    with torch.no_grad():
        wanted = net(images())
        assert torch.equal(copy.deepcopy(net)(images()), wanted)
        assert torch.equal(pickle.loads(pickle.dumps(net))(images()), wanted)
    assert merges_of(net) == {"amounts": AMOUNTS, "protected": 1}
    assert merges_of(vit()) is None


def test_an_artefact_merges_what_its_model_merged(tmp_path):
    net = merge_after(vit(), AMOUNTS)
    save_artefact(tmp_path, net, [], {"kind": "object", "class": "x"})
    recorded = load_recipe(tmp_path).tokens
    assert recorded is not None and recorded.amounts == AMOUNTS
    back = load_artefact(tmp_path, vit)
    with torch.no_grad():
        assert torch.equal(back(images()), net(images()))
    with pytest.raises(FewerError, match=r"blocks\.2"):
        load_artefact(tmp_path, lambda: vit(depth=2))


@needs_native
@pytest.mark.parametrize("precision, close", [("fp32", 1e-4), ("int8", 0.1)])
def test_the_native_kernel_weighs_merged_tokens_alike(precision, close):
    from fewer.kernels.transformer import NativeBlock

    block = vit().blocks[0]
    x = torch.randn(3, 11, 32, generator=torch.Generator().manual_seed(3))
    sizes = torch.randint(1, 9, (3, 11), generator=torch.Generator().manual_seed(4)).float()
    state = TokenState(sizes, torch.zeros(3, 11, dtype=torch.int64))
    fast = NativeBlock.from_block(block, precision=precision)
    with torch.inference_mode():
        wanted, got = MergingBlock(block, 0).block(x, state), fast(x, sizes.log())
        assert float((got - wanted).norm() / (wanted - x).norm()) < close
        assert not torch.allclose(fast(x), got, atol=1e-3)
        with pytest.raises(FewerError, match="bias of attention"):
            fast(x, sizes[:, :5])


@needs_native
def test_an_accelerated_model_merges_and_restores():
    net = merge_after(vit(width=64), AMOUNTS)
    fast, rows = accelerate(net, example=images(1), budget_ms=1)
    with torch.inference_mode():
        wanted, got = net(images()), fast(images())
    assert got.shape == wanted.shape
    assert float((got - wanted).norm() / wanted.norm()) < 1e-3
    assert not any("computes something else" in row.reason for row in rows)


def test_which_models_can_and_why_others_cannot():
    assert mergeable_blocks(vit(), images(1)) == (list(AMOUNTS), 17, 1)

    class Registers(nn.Module):
        num_prefix_tokens = 5

        def __init__(self):
            super().__init__()
            self.blocks = vit().blocks

        def forward(self, x):
            return self.blocks(x)

    assert mergeable_blocks(Registers(), torch.zeros(1, 12, 32)) == (list(AMOUNTS), 12, 5)
    Registers.num_prefix_tokens = None
    with pytest.raises(FewerError, match="no patches"):
        mergeable_blocks(Registers(), torch.zeros(1, 12, 32))

    net, example = tiny("conv")
    with pytest.raises(FewerError, match="no transformer block"):
        mergeable_blocks(net, example)

    odd = vit()
    odd.blocks[1].mlp.act = nn.Softplus()
    with pytest.raises(FewerError, match=r"blocks\.1 is not a block that is understood.*Softplus"):
        mergeable_blocks(odd, images(1))

    class Doubled(type(vit().blocks[0])):
        def forward(self, x):
            return 2 * super().forward(x)

    other = vit()
    other.blocks[2].__class__ = Doubled
    with pytest.raises(FewerError, match="computes something else"):
        mergeable_blocks(other, images(1))

    twice = vit()
    twice.blocks.append(twice.blocks[0])
    with pytest.raises(FewerError, match="once each"):
        mergeable_blocks(twice, images(1))


def test_proportional_attention_is_the_logarithm_of_the_size():
    """Two keys of the same score, one of size 3: it gets three quarters of the attention."""
    block = vit(scale=None).blocks[0]
    with torch.no_grad():
        block.attn.qkv.weight[:64].zero_()
        block.attn.qkv.bias[:64].zero_()
    x = torch.randn(1, 2, 32, generator=torch.Generator().manual_seed(5))
    state = TokenState(torch.tensor([[1.0, 3.0]]), torch.zeros(1, 2, dtype=torch.int64))
    merging = MergingBlock(block, 0)
    with torch.no_grad():
        v = block.attn.qkv(block.norm1(x))[0, :, 64:]
        wanted = block.attn.proj(0.25 * v[0] + 0.75 * v[1])
        torch.testing.assert_close(merging._attention(block.norm1(x), state)[0, 0], wanted)
