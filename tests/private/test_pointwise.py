"""Functions of each number that a network writes out itself become one polynomial."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.private.compile import approximate_activations, kinds_of
from fewer.private.reading import read_network


class Written(nn.Module):
    """Two linear layers around a function."""

    def __init__(self, function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.function = nn.Linear(6, 8), nn.Linear(8, 3), function
        self.beta = nn.Parameter(torch.tensor([1.3]))

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.function(self.a(x), self.beta))


WRITTEN = {
    "silu": lambda x, b: x * torch.sigmoid(x),
    "swish with a factor that was learnt": lambda x, b: x * torch.sigmoid(b * x),
    "hard swish": lambda x, b: x * F.relu6(x + 3) / 6,
    "gelu": lambda x, b: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))),
    "gelu with tanh": lambda x, b: 0.5 * x * (1 + torch.tanh(0.79788 * (x + 0.044715 * x**3))),
    "quick gelu": lambda x, b: x * torch.sigmoid(1.702 * x),
    "mish": lambda x, b: x * torch.tanh(F.softplus(x)),
    "sigmoid": lambda x, b: 1 / (1 + torch.exp(-x)),
    "softsign": lambda x, b: x / (1 + x.abs()),
    "leaky": lambda x, b: torch.where(x > 0, x, 0.1 * x),
    "relu": lambda x, b: torch.maximum(x, torch.zeros_like(x)),
    "relu beside a number": lambda x, b: torch.maximum(x, torch.zeros(())),
    "cube": lambda x, b: x * x * x,
}


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_out_is_one_function(name: str) -> None:
    net = Written(WRITTEN[name]).eval()
    images = torch.randn(30, 6)
    network = read_network(net, images[:1])
    assert len(network.order()) == 1
    assert torch.allclose(network(images), net(images).double(), atol=1e-5)
    made = approximate_activations(network, images, 4)
    assert kinds_of(made) in (["linear", "square", "joint"], ["linear"]) and torch.isfinite(made(images)).all()


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x, b: x * torch.sigmoid(x.flip(-1)), "multiplies numbers that depend on the image"),
        (lambda x, b: (x > 0).float(), "reads what gt gives|computes gt"),
        (lambda x, b: torch.log(x), "is not finite on all numbers"),
    ],
)
def test_what_is_none_is_told(function, words: str) -> None:
    images = torch.randn(30, 6)
    with pytest.raises(FewerError, match=words):
        approximate_activations(read_network(Written(function).eval(), images[:1]), images)
