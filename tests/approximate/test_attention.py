"""Attention with a softmax of one's own gives what torch gives, for every way to call it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.approximate.replace import replace_functions
from fewer.approximate.sites import find_sites


class Calls(nn.Module):
    """``nn.MultiheadAttention`` called in one way."""

    def __init__(self, made: dict[str, Any], **how: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.attention, self.how = nn.MultiheadAttention(8, 2, **made), how
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4)

    def forward(self, x: Tensor) -> Tensor:
        found = self.attention(x, **self.how)
        return torch.cat([t.flatten() for t in found if t is not None])


def other(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


CAUSAL = nn.Transformer.generate_square_subsequent_mask(5)
WAYS = {
    "packed": (dict(), dict(key=other(4, 3, 8), value=other(4, 3, 8))),
    "other widths": (dict(kdim=6, vdim=7), dict(key=other(4, 3, 6), value=other(4, 3, 7), need_weights=False)),
    "added keys": (dict(add_bias_kv=True, add_zero_attn=True), dict(key=other(4, 3, 8), value=other(4, 3, 8))),
    "causal": (
        dict(), dict(key=other(5, 3, 8), value=other(5, 3, 8), attn_mask=CAUSAL, is_causal=True, need_weights=False)
    ),
    "masks and added keys": (
        dict(add_bias_kv=True, bias=False),
        dict(
            key=other(4, 3, 8), value=other(4, 3, 8), attn_mask=torch.eye(5, 4, dtype=torch.bool),
            key_padding_mask=torch.tensor([[False, False, True, False]] * 3), average_attn_weights=False,
        ),
    ),
    "a mask for each head": (dict(), dict(key=other(4, 3, 8), value=other(4, 3, 8), attn_mask=other(6, 5, 4))),
    "no batch": (dict(), dict(key=other(4, 8), value=other(4, 8), key_padding_mask=torch.tensor([0, 0, 0, 1]).bool())),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_multi_head_attention_is_replaced_however_it_is_called(way: str) -> None:
    made, how = WAYS[way]
    net = Calls(made, **how).eval()
    x = torch.randn(*((5, 8) if way == "no batch" else (5, 3, 8)))
    with torch.no_grad():
        wanted = net(x)
    replaced = replace_functions(net, x)
    found = replaced(x)
    assert replaced.calls["softmax"] == 1 and found.shape == wanted.shape
    assert 0 < float((found - wanted).abs().max()) < 0.01
    assert [s.name for s in find_sites(net, lambda m: m(x))] == ["attention"]


class Function(nn.Module):
    def __init__(self, run: Any) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def grouped(x: Tensor) -> Tensor:
    """Four heads of queries, two of keys and values."""
    few = x[:, :2]
    return F.scaled_dot_product_attention(query=x, key=few, value=few * 2, scale=0.7, enable_gqa=True)


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        (grouped, "softmax"),
        (lambda x: F.softmax(input=x, dim=1), "softmax"),
        (lambda x: F.softmax(x[0, 0], -1, dtype=torch.float64), "softmax"),
        (lambda x: torch.softmax(x, 1), "softmax"),
        (lambda x: torch.special.softmax(x, dim=2), "softmax"),
        (lambda x: nn.Softmax2d()(x), "softmax"),
        (lambda x: x.softmax(dim=0), "softmax"),
        (lambda x: F.softmax(x - 1e6, -1), "softmax"),
        (lambda x: F.gelu(input=x, approximate="tanh"), "activation"),
        (lambda x: F.layer_norm(input=x, normalized_shape=(6,), eps=1e-6), "norm"),
        (lambda x: torch.layer_norm(x, (6,)), "norm"),
        (lambda x: F.rms_norm(x, (6,), weight=torch.arange(6.0)), "norm"),
        (lambda x: nn.RMSNorm(6)(x), "norm"),
    ],
)
def test_functions_are_met_however_their_arguments_are_given(run: Any, kind: str) -> None:
    net, x = Function(run), other(2, 4, 5, 6)
    replaced = replace_functions(net, x)
    found, wanted = replaced(x), net(x)
    assert replaced.calls[kind] == 1 and sum(replaced.calls.values()) == 1
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    assert 0 < float((found - wanted).abs().max()) < 0.02


def test_what_writes_into_its_input_still_does() -> None:
    def run(x: Tensor) -> Tensor:
        y = x * 1
        F.silu(y, inplace=True)
        return y

    x = other(2, 6)
    found = replace_functions(Function(run), x, activation="table-silu")(x)
    assert 0 < float((found - F.silu(x)).abs().max()) < 0.02


def test_norms_over_several_dimensions_and_given_results_are_left_alone() -> None:
    net = Function(lambda x: F.layer_norm(x, (5, 6)) + torch.softmax(x, -1, out=torch.empty_like(x)))
    assert find_sites(net, lambda m: m(other(2, 4, 5, 6))) == []
