"""The native merge of tokens against the one that is made of tensor operations, on every instruction set."""

from __future__ import annotations

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.kernels import native, rows
from fewer.tokens.blocks import merge_quickly
from fewer.tokens.merge import TokenState, merge_tokens, most_merges

SHAPES = [
    (1, 2, 1, 0),
    (1, 3, 5, 1),
    (2, 17, 33, 1),
    (3, 40, 16, 0),
    (1, 257, 384, 1),
    (2, 198, 192, 2),
    (1, 64, 100, 5),
]


def same(found, wanted) -> None:
    (y, state), (z, other) = found, wanted
    torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-6)
    assert torch.equal(state.sizes, other.sizes)
    assert torch.equal(state.origin, other.origin)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_merged_again_and_again(each_isa, shape, share):
    batch, tokens, width, protected = shape
    x = torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(tokens))
    state = TokenState.fresh(x)
    for _ in range(3):
        count = max(1, int(share * most_merges(x.shape[1], protected)))
        wanted = merge_tokens(x, state, count, protected)
        same(merge_quickly(x, state, count, protected), wanted)
        x, state = wanted


def test_batches_by_several_threads(each_isa):
    torch.set_num_threads(3)
    x = torch.randn(5, 50, 24, generator=torch.Generator().manual_seed(0))
    same(merge_quickly(x, TokenState.fresh(x), 12), merge_tokens(x, TokenState.fresh(x), 12))


def test_tokens_that_are_all_alike_lose_as_many_as_were_to_go(each_isa):
    x = torch.ones(1, 21, 8)
    y, state = merge_quickly(x, TokenState.fresh(x), 7, 1)
    assert y.shape == (1, 14, 8) and float(state.sizes.sum()) == 21
    torch.testing.assert_close(y, torch.ones(1, 14, 8))
    assert state.origin.unique().tolist() == list(range(14))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_nan_infinity_and_zeros_stay_where_they_are_from(each_isa, bad):
    x = torch.randn(2, 31, 20, generator=torch.Generator().manual_seed(3))
    x[0, 8] = bad
    y, state = merge_quickly(x, TokenState.fresh(x), 9, 1)
    assert torch.isfinite(y[1]).all() and float(state.sizes[0].sum()) == 31
    held = int(state.origin[0, 8])
    others = [t for t in range(22) if t != held]
    assert torch.isfinite(y[0, others]).all()
    if bad != 0.0:
        assert not torch.isfinite(y[0, held]).all()


def test_what_cannot_be_merged_is_refused(lib):
    x = torch.randn(1, 9, 4)
    state = TokenState.fresh(x)
    with pytest.raises(FewerError, match="merges of"):
        rows.merge_direct(x, state.sizes, state.origin, 5, 1)
    with pytest.raises(FewerError, match="refused"):
        rows.merge_direct(x, state.sizes, state.origin + 9, 2, 1)
    with pytest.raises(FewerError, match="do not fit"):
        rows.merge_direct(x, state.sizes[:, :3], state.origin, 2, 1)
    with pytest.raises(FewerError, match="float32"):
        rows.merge_direct(x.double(), state.sizes, state.origin, 2, 1)


def test_gradients_and_other_types_go_by_tensor_operations(lib, monkeypatch):
    monkeypatch.setattr(native.library(), "merge", None)  # a call would fail
    with torch.inference_mode(False):
        x = torch.randn(1, 9, 4, requires_grad=True)
        merge_quickly(x, TokenState.fresh(x), 2)[0].sum().backward()
        assert x.grad is not None
    x = torch.randn(1, 9, 4, dtype=torch.float64)
    assert merge_quickly(x, TokenState.fresh(x), 2)[0].dtype == torch.float64
