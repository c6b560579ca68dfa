"""Opened attention computes what PyTorch's does, in every form of its call, and its projections become units."""

import itertools

import pytest
import torch
from torch import nn

from fewer.models.attention import PlainAttention, open_attention
from fewer.models.load import load
from fewer.models.matching import match
from fewer.verbs.compress import compress


def attention(**settings) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    return nn.MultiheadAttention(12, 3, **settings).eval()


def masks(kind: str) -> dict:
    torch.manual_seed(1)
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    return {
        "none": {},
        "bool": {"attn_mask": causal},
        "added": {"attn_mask": torch.randn(5, 5)},
        "by head": {"attn_mask": torch.randn(2 * 3, 5, 5)},
        "padding": {"key_padding_mask": padding},
        "both": {"attn_mask": causal, "key_padding_mask": padding},
        "causal": {"attn_mask": causal, "is_causal": True},
        "causal, padding": {"attn_mask": causal, "is_causal": True, "key_padding_mask": padding},
    }[kind]


KINDS = ("none", "bool", "added", "by head", "padding", "both", "causal", "causal, padding")


@pytest.mark.parametrize(
    ("first", "bias", "kind", "shown"), itertools.product([True, False], [True, False], KINDS, [0, 1, 2])
)
@torch.no_grad()
def test_it_equals_the_module_that_it_stands_for(first, bias, kind, shown):
    source = attention(batch_first=first, bias=bias)
    mine = PlainAttention(source)
    x = torch.randn(2, 5, 12) if first else torch.randn(5, 2, 12)
    how = {**masks(kind), "need_weights": shown > 0, "average_attn_weights": shown == 2}
    expected, weights = source(x, x, x, **how)
    found, own = mine(x, x, x, **how)
    assert torch.allclose(found, expected, atol=1e-6)
    assert (own is None) == (weights is None) and (own is None or torch.allclose(own, weights, atol=1e-6))


@torch.no_grad()
def test_other_keys_other_values_and_samples_without_a_batch():
    source = attention(batch_first=True)
    mine = PlainAttention(source)
    q, k, v = torch.randn(2, 5, 12), torch.randn(2, 7, 12), torch.randn(2, 7, 12)
    for sides in ((q, k, k), (q, k, v), (q, q, q + 1), (q[0], q[0], q[0]), (q[0], k[0], v[0])):
        assert torch.allclose(mine(*sides)[0], source(*sides)[0], atol=1e-6)


@torch.no_grad()
def test_the_fused_path_of_an_encoder_stays_open():
    torch.manual_seed(0)
    net = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 24, batch_first=True), 2).eval()
    x = torch.randn(2, 5, 12)
    expected = net(x)
    assert open_attention(net) == ["layers.0.self_attn", "layers.1.self_attn"]
    assert torch.allclose(net(x), expected, atol=1e-6)
    net.layers[0].self_attn.in_proj = nn.Sequential(net.layers[0].self_attn.in_proj)  # no plain layer any more
    assert torch.allclose(net(x), expected, atol=1e-6)


def test_a_state_of_the_module_that_it_stands_for_can_be_loaded():
    torch.manual_seed(0)
    source = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 24, batch_first=True), 2).eval()
    other = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 24, batch_first=True), 2).eval()
    open_attention(other)
    other.load_state_dict(source.state_dict())
    x = torch.randn(2, 5, 12)
    with torch.no_grad():
        assert torch.allclose(other(x), source(x), atol=1e-6)


def test_what_is_of_another_form_stays():
    class Own(nn.MultiheadAttention):
        pass

    net = nn.ModuleList(
        [Own(8, 2), nn.MultiheadAttention(8, 2, kdim=4), nn.MultiheadAttention(8, 2, add_zero_attn=True)]
    )
    assert open_attention(net) == [] and open_attention(nn.MultiheadAttention(8, 2)) == []


def test_one_module_in_two_places_stays_one():
    shared = nn.MultiheadAttention(8, 2)
    net = nn.ModuleList([shared, shared])
    assert len(open_attention(net)) == 2 and net[0] is net[1]


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        self.embed, self.encoder, self.head = nn.Linear(6, 16), nn.TransformerEncoder(layer, 2), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


def test_an_encoder_is_cut_in_its_attention_too_and_comes_back_from_its_folder(tmp_path):
    torch.manual_seed(0)
    net, x = Encoder().eval(), torch.randn(24, 7, 6)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    run = compress(net, x, "weights=50%", out=tmp_path / "run")
    kept = {name: float(mask.float().mean()) for name, mask in run.masks.items()}
    assert {f"encoder.layers.{i}.self_attn.{p}" for i in (0, 1) for p in ("in_proj", "out_proj")} <= kept.keys()
    assert min(kept.values()) < 0.6 and run.report.verdict.met
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    again = load(tmp_path / "run", Encoder)
    with torch.no_grad():
        assert torch.equal(again(x[:3]), run.model(x[:3]))


def test_every_projection_of_an_encoder_is_matched():
    net = Encoder().eval()
    open_attention(net)
    assert len(match(net, torch.zeros(1, 7, 6)).units) == 2 + 2 * 4
