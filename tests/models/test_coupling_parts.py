"""Channels that several layers make side by side: found, refused, and really removed."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.models.coupling import find_links
from fewer.models.coupling_search import difference
from fewer.models.matching import match
from fewer.models.surgery import Link, Removal, operate, read_surgery
from tests.models.test_coupling import lively


class Fire(nn.Module):
    """A squeeze, and two expansions side by side, as in SqueezeNet."""

    def __init__(self, inputs: int, squeeze: int, one: int, three: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.one, self.three = nn.Conv2d(squeeze, one, 1), nn.Conv2d(squeeze, three, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(y)), F.relu(self.three(y))], 1)


class Squeezed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2)
        self.a, self.b = Fire(8, 4, 16, 16), Fire(32, 4, 16, 32)
        self.head = nn.Conv2d(48, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.max_pool2d(self.b(self.a(F.relu(self.stem(x)))), 2)
        return F.relu(self.head(y)).mean((2, 3))


class Pyramid(nn.Module):
    """Branches with BatchNorm, dilation, a depthwise filter and an image-wide mean, and one projection (ASPP)."""

    def __init__(self) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.wide = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=2, dilation=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        )  # fmt: skip
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 16, 1), nn.ReLU())
        self.project = nn.Conv2d(48, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.interpolate(self.pool(x), size=x.shape[-2:], mode="bilinear")
        return self.project(torch.concat((self.point(x), self.wide(x), pooled), dim=1))


def links_of(net: nn.Module, x: Tensor) -> dict[str, Link]:
    return {link.consumer: link for link in find_links(net, match(net, x).units, x).links}


def check(net: nn.Module, x: Tensor, link: Link, kept: tuple[int, ...]) -> nn.Module:
    """The smaller network, after it was held against one whose channels are masked."""
    masked = copy.deepcopy(net)
    weight = masked.get_submodule(link.consumer).weight.data
    weight.view(weight.shape[0], link.count, -1)[:, [g for g in range(link.count) if g not in kept]] = 0
    small = operate(copy.deepcopy(net), read_surgery([Removal(link, kept).to_dict()]))
    with torch.no_grad():
        assert difference([masked(x)], [small(x)]) < 1e-5
    return small


def test_layers_side_by_side_lose_their_own_channels() -> None:
    torch.manual_seed(0)
    net, x = Squeezed().eval(), torch.randn(2, 3, 15, 15)
    links = links_of(net, x)
    assert links["b.squeeze"].producers == ("a.one", "a.three") and links["b.squeeze"].size == 2
    assert links["head"].parts == ((0, 16), (16, 32)) and links["head"].runs == (8, 16) and links["head"].steps == 8
    small = check(net, torch.randn(3, 3, 15, 15), links["head"], (0, 3, 7, 8, 9, 20, 23))
    assert small.b.one.weight.shape[0] == 6 and small.b.three.weight.shape[0] == 8
    assert small.head.weight.shape[1] == 14
    check(net, x, links["b.squeeze"], (1, 15))


def test_branches_with_norms_of_the_same_width_keep_their_own() -> None:
    torch.manual_seed(0)
    net, x = lively(Pyramid()), torch.randn(2, 8, 9, 9)
    link = links_of(net, x)["project"]
    assert link.producers == ("pool.1", "point.0", "wide.0", "wide.3")  # in the order of execution
    assert link.followers == ("point.1", "wide.1", "wide.4")
    assert dict(zip((*link.producers, *link.followers), link.parts, strict=True))["wide.4"] == (16, 16)
    small = check(net, x, link, (0, 1, 9, 10, 13, 23))
    assert small.wide[3].groups == 6 and small.point[1].num_features == 4 and small.pool[1].out_channels == 2


class Odd(nn.Module):
    """Tensors side by side that cannot lose channels, each for another reason."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.stem, self.one, self.two = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 3, padding=1)
        self.last = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.stem(x))
        a, b = self.one(y), self.two(y)
        if self.how == "read elsewhere":
            return self.last(torch.cat([a, b], 1)) + b.mean()
        if self.how == "dense block":
            return self.last(torch.cat([y, self.two(y)], 1))
        if self.how == "shuffled":
            return self.last(torch.cat([a, b], 1).unflatten(1, (2, 16)).transpose(1, 2).flatten(1, 2))
        return self.last(torch.cat([a, a], 1))


@pytest.mark.parametrize("how", ["read elsewhere", "dense block", "shuffled", "twice the same"])
def test_what_is_read_elsewhere_or_mixed_stays(how: str) -> None:
    torch.manual_seed(0)
    net, x = Odd(how).eval(), torch.randn(2, 3, 6, 6)
    assert not any(link.parts for link in links_of(net, x).values())


def test_damaged_parts_are_refused() -> None:
    link = Link("squeeze", ("one", "three"), (), None, 96, 8, parts=((0, 32), (32, 64)))
    good = Removal(link, link.first(0.5)).to_dict()
    assert read_surgery([good])[0].link == link
    for parts in ([[0, 32], [40, 56]], [[0, 32]], [[0, 30], [30, 66]], [[0, 32], [32, 32]], [[0], [1]], "x"):
        with pytest.raises(FewerError, match="surgery"):
            read_surgery([good | {"parts": parts}])


class Beside(nn.Module):
    """Modules with as many numbers as channels beside layers side by side, which are not in their way."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.one, self.two, self.last = nn.Conv2d(3, 32, 1), nn.Conv2d(3, 32, 3, padding=1), nn.Conv2d(64, 4, 1)
        self.lstm = nn.LSTM(3, 8)  # its biases have 32 numbers, and it gives a tuple
        self.other = nn.Linear(7, 7)
        self.other.register_buffer("offset", torch.zeros(32))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.one(x), self.two(x)], 1)
        if self.kind == "lstm":
            state = self.lstm(x.mean((2, 3))[None])[0].mean()
        else:
            state = self.other(x.new_ones(1, 7)).mean()
        return self.last(y.relu()) + state


@pytest.mark.parametrize("kind", ["lstm", "other"])
def test_modules_of_other_shapes_are_no_followers(kind: str) -> None:
    torch.manual_seed(0)
    net, x = Beside(kind).eval(), torch.randn(2, 3, 6, 6)
    assert links_of(net, x)["last"].followers == ()
