"""Swapped functions in networks of several makes, and the planned mix of approximations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from fewer.approximate.plan import plan_approximations
from fewer.approximate.replace import replace_functions
from fewer.core.errors import FewerError
from fewer.models.vit import VisionTransformer


def test_functions_are_met_wherever_they_are_called() -> None:
    torch.manual_seed(0)
    vit = VisionTransformer(image_size=16, patch_size=8, width=12, depth=2, heads=2, num_classes=3).eval()
    x = torch.randn(2, 3, 16, 16)
    replaced = replace_functions(vit, x)
    assert replaced.calls == {"softmax": 2, "activation": 2, "norm": 5}
    assert (replaced(x) - vit(x)).abs().max() < 0.02
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    tokens = torch.randn(2, 4, 8)
    ours = replace_functions(_Self(attention), tokens)
    assert ours.calls["softmax"] == 1 and (ours(tokens) - _Self(attention)(tokens)).abs().max() < 0.01
    silu = replace_functions(nn.Sequential(nn.Linear(4, 4), nn.SiLU()), torch.randn(3, 4), activation="shift-silu")
    assert silu.calls["activation"] == 1


class _Self(nn.Module):
    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.attention(x, x, x)[0]


def test_a_mask_still_forbids() -> None:
    class Causal(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)

    x = torch.randn(1, 1, 5, 4)
    assert (replace_functions(Causal(), x)(x) - Causal()(x)).abs().max() < 0.02


def test_nothing_to_replace_and_wrong_names_are_told() -> None:
    with pytest.raises(FewerError, match="nothing was replaced"):
        replace_functions(nn.Linear(4, 4), torch.randn(1, 4))
    with pytest.raises(FewerError, match="did you mean 'table'"):
        replace_functions(nn.Linear(4, 4), torch.randn(1, 4), softmax="tabel")


def test_the_planned_mix_is_within_its_budget_and_beats_published_sets() -> None:
    torch.manual_seed(0)
    net = VisionTransformer(image_size=16, patch_size=8, width=12, depth=2, heads=2, num_classes=0).eval()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pixels = torch.randint(0, 256, (4, 3, 16, 16))
    mix = plan_approximations(
        net, pixels / 255 - 0.5, pixels.numpy(), mean=(0.5,) * 3, std=(1.0,) * 3, budget="energy=0.8x"
    )
    assert mix.joules <= 0.8 * mix.dearest and set(mix.choices) == {0, 1}
    assert mix.distortion <= min(mix.single.values())
    assert np.isfinite(mix.predicted)
    with pytest.raises(FewerError, match="energy"):
        plan_approximations(
            net, pixels / 255 - 0.5, pixels.numpy(), mean=(0.5,) * 3, std=(1.0,) * 3, budget="energy=0.01x"
        )


@pytest.mark.parametrize(
    ("norm", "at"), [(nn.LayerNorm(32), 3.0), (nn.RMSNorm(32, eps=1e-6), 0.0), (nn.RMSNorm(32), 0.0)]
)
def test_rows_that_are_all_but_constant_stay_as_small_as_their_epsilon_keeps_them(norm: nn.Module, at: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 32)
    x[:, 1], x[:, 2], x[:, 3] = at + 1e-5 * torch.randn(2, 32), at + 1e-9, 0
    model = nn.Sequential(norm).eval()
    with torch.no_grad():
        wanted = model(x)
    assert float((replace_functions(model, x)(x) - wanted).abs().max()) < 0.01


def test_silu_goes_through_integers_as_gelu_does() -> None:
    class Gated(nn.Module):
        def forward(self, x):
            return nn.functional.silu(x) * nn.functional.gelu(x)

    torch.manual_seed(0)
    x = torch.randn(4, 8)
    for method in ("table-gelu", "shift-gelu", "polynomial-gelu"):
        made = replace_functions(Gated(), x, activation=method)
        assert made.calls["activation"] == 2 and float((made(x) - Gated()(x)).abs().max()) < 0.2
    assert replace_functions(Gated(), x, activation="table-silu").calls["activation"] == 1
    kept = nn.Sequential(nn.SiLU(inplace=True)).eval()
    assert replace_functions(kept, x).calls["activation"] == 1
