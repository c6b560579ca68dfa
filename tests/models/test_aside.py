"""What no file of weights holds is compared when a model is built again: other answers are never given in silence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fewer
from fewer.core.errors import FewerError
from fewer.engine.settings import Settings
from fewer.models.aside import aside_of, check_aside

IMAGES = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))
QUICK = Settings(
    baselines=(), additivity=0, calibration=6, sensing=2, heldout=4, backend="serial", allocator="dp",
    sparsities=(0.5,), pattern="block:2x4",
)  # fmt: skip


class Net(nn.Module):
    """A value that a state dict does not hold, in one of several places."""

    def __init__(self, place: str = "buffer", value: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.place, self.body, self.head = place, nn.Linear(192, 16), nn.Linear(16, 4)
        tensor = torch.full((4,), value)
        if place == "buffer":
            self.register_buffer("shift", tensor, persistent=False)
        elif place == "attribute":
            self.shift: Any = tensor
        elif place == "list":
            self.shift = [tensor]
        elif place == "module":
            self.shift = [nn.Linear(4, 4)]
            self.shift[0].bias.data.fill_(value)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.head(self.body(x.flatten(1)).relu())
        if self.place in ("list", "module"):
            return rows + self.shift[0] if self.place == "list" else self.shift[0](rows)
        return rows + self.shift


@pytest.mark.parametrize(
    ("place", "name"),
    [("buffer", "shift"), ("attribute", "shift"), ("list", r"shift\[0\]"), ("module", r"shift\[0\]\.bias")],
)
def test_another_value_is_told_and_the_same_one_is_not(tmp_path: Any, place: str, name: str) -> None:
    made = fewer.compress(Net(place, 0.5), IMAGES, "weights=60%", settings=QUICK, out=tmp_path / "run")
    loaded = fewer.load(tmp_path / "run", lambda: Net(place, 0.5))
    with torch.no_grad():
        assert torch.equal(loaded(IMAGES), made.model(IMAGES))
    with pytest.raises(FewerError, match=rf"the architecture's '{name}' is another tensor"):
        fewer.load(tmp_path / "run", lambda: Net(place, 0.25))


class Remembers(nn.Module):
    """Keeps what calls left, which is no part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.body: nn.Module = nn.Linear(192, 4)
        self.last: Any = torch.zeros(12, 4)
        self.all: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        rows = self.body(x.flatten(1))
        self.last = rows.detach()
        self.all.append(self.last)
        return rows


def test_what_calls_leave_is_not_compared(tmp_path: Any) -> None:
    def used() -> nn.Module:
        net = Remembers()
        net(IMAGES * 2)
        return net

    fewer.compress(used(), IMAGES, "weights=60%", settings=QUICK, out=tmp_path / "run")
    for make in (Remembers, used):
        fewer.load(tmp_path / "run", make)


TENSORS: dict[str, Callable[[], Tensor]] = {
    "whole": lambda: torch.arange(6), "truths": lambda: torch.tensor([True, False]),
    "complex": lambda: torch.ones(2) * 1j,
    "infinite": lambda: torch.tensor([0.0, -float("inf")]), "half": lambda: torch.ones(3).half(),
    "nan": lambda: torch.tensor([float("nan"), 1.0]), "one": lambda: torch.tensor(3.0),
}  # fmt: skip


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_of_any_kind_have_a_print_of_finite_numbers(kind: str) -> None:
    net = nn.Linear(1, 1)
    net.register_buffer("kept_out", TENSORS[kind](), persistent=False)
    told = aside_of(net)
    assert all(abs(number) < float("inf") for number in told["kept_out"])
    check_aside(net, told)


def test_an_order_counts_and_rounding_does_not() -> None:
    net, turned = nn.Linear(1, 1), nn.Linear(1, 1)
    net.shift, turned.shift = torch.arange(5.0), torch.arange(5.0).flip(0)
    with pytest.raises(FewerError, match="shift"):
        check_aside(turned, aside_of(net))
    turned.shift = torch.arange(5.0) * (1 + 1e-6)
    check_aside(turned, aside_of(net))


def test_kept_tensors_are_not_aside() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    net.also = (net[0].weight, [net[1]])
    assert aside_of(net) == {}
