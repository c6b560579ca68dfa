"""Weights that are NaN or infinite are refused in one sentence that names the tensor, by all that load a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import fewer
from fewer.core.errors import FewerError
from fewer.models.spec import load_model, load_untouched
from fewer.models.strangers import refuse_not_finite

NAN, INF = float("nan"), float("inf")


class Net(nn.Module):
    """Its output shows nothing of any of them: a head is for training alone, and the rest is cut off."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(3, 4, 3, 2), nn.BatchNorm2d(4)
        self.last, self.aux = nn.Linear(4, 2), nn.Linear(4, 4)
        self.register_buffer("mask", torch.tensor([0.0, -INF]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seen = torch.relu(self.norm(self.first(x))).mean((2, 3))
        return torch.nan_to_num(self.last(seen)).clamp(-9, 9)


BROKEN = {
    "first.weight": NAN,
    "first.bias": -INF,
    "norm.running_var": INF,
    "norm.weight": NAN,
    "last.weight": INF,
    "aux.weight": NAN,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_tensor_is_named(name: str, tmp_path: Path) -> None:
    net = Net()
    with torch.no_grad():
        net.state_dict()[name].view(-1)[0] = BROKEN[name]
    said = f"1 of [0-9,]+ numbers of '{name}' is NaN or infinite; give a checkpoint"
    for use in (
        load_model,
        load_untouched,
        lambda net: load_untouched(net, fold=False),
        lambda net: fewer.compress(net, torch.randn(8, 3, 16, 16), budget="flops=0.7x"),
        lambda net: fewer.sense(net, torch.randn(8, 3, 16, 16), out=tmp_path / "run"),
    ):
        with pytest.raises(FewerError, match=said):
            use(net)
    with pytest.raises(FewerError, match=said):
        loaded = load_model(Net())
        loaded.model.load_state_dict(net.state_dict())
        load_untouched(loaded)


def test_a_broken_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from tests.models.test_not_finite import Net\ndef make():\n    return Net()\n")
    state = Net().state_dict()
    spec = f"{tmp_path}/net.py:make?checkpoint={tmp_path}/net.safetensors"
    save_file(state, tmp_path / "net.safetensors")
    load_model(spec)
    state["last.bias"][0] = NAN
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(FewerError, match=r"'last\.bias'"):
        load_model(spec)


def test_infinity_that_is_meant_is_let_through() -> None:
    net = Net()
    refuse_not_finite(net)
    net.fixed = nn.Parameter(torch.tensor([0.0, -INF]), requires_grad=False)
    refuse_not_finite(net)
    refuse_not_finite(nn.LazyLinear(3))
    refuse_not_finite(nn.Linear(2, 2).to(torch.float8_e4m3fn))
    net.first.requires_grad_(False).weight.view(-1)[0] = INF
    with pytest.raises(FewerError, match=r"first\.weight"):
        refuse_not_finite(net)
    net.first.weight.view(-1)[0] = 0.0
    net.fixed[0] = NAN
    with pytest.raises(FewerError, match="'fixed'"):
        refuse_not_finite(net)
