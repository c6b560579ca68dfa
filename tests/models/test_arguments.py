"""A model whose forward takes other arguments than a batch of images is refused with the way to call it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fewer
from fewer.core.errors import FewerError
from fewer.models.arguments import advice

FEW: dict[str, Any] = {"calibration": 8, "heldout": 4, "additivity": 0, "baselines": ()}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 10))


class Named(Net):
    def forward(self, *, pixels, scale=1.0):
        return self.net(pixels) * scale


class Several(Net):
    def forward(self, x, *, scale):
        return self.net(x) * scale


class Optional(Net):
    def forward(self, x, *, scale=2.0, flag=False):
        return self.net(x) * scale


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(14, 3, 16, 16, generator=torch.Generator().manual_seed(0))


CASES = {
    "by name only": (Named, "'pixels' by name only.*model\\(pixels=batch\\).*'pixels': \\.\\.\\."),
    "a second one": (Several, "needs 'x' and 'scale'.*model\\(batch, scale=\\.\\.\\.\\)"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("how", ["a tensor", "pairs", "dictionaries"])
def test_the_way_to_call_it_is_said(case: str, how: str, images: torch.Tensor) -> None:
    net, said = CASES[case]
    given: Any = images
    if how == "pairs":
        given = [(image, 1) for image in images]
    elif how == "dictionaries":
        given = [{"picture": image} for image in images]
    with pytest.raises(FewerError, match=said):
        fewer.compress(net(), given, budget="flops=0.7x", **FEW)


def test_what_is_said_works(images: torch.Tensor) -> None:
    net = Named()
    ways = [
        fewer.compress(net, images, budget="flops=0.7x", forward=lambda m, batch: m(pixels=batch), **FEW),
        fewer.compress(net, {"pixels": images}, budget="flops=0.7x", **FEW),
        fewer.compress(net, [{"pixels": image} for image in images], budget="flops=0.7x", **FEW),
    ]
    assert len({run.report.verdict.distortion for run in ways}) == 1


def test_arguments_with_defaults_are_left_alone(images: torch.Tensor) -> None:
    assert fewer.compress(Optional(), images, budget="flops=0.7x", **FEW).report.verdict.met
    for batch in (images, (images,), {"x": images}):
        assert advice(Optional(), batch) == ""
    assert advice(nn.Identity(), (images, images)) == "", "one argument that two are given for is no matter of names"
