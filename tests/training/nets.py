"""A small network with dropout and BatchNorm, and a task for it, shared by the tests of the loop."""

import torch
from torch import Tensor, nn


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))


def loss(model: nn.Module, step: int) -> Tensor:
    """Regression on data that follow from the number of the step; the noise comes from the global generator."""
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
    return (model(x + 0.01 * torch.randn(16, 4)) - x.sum(1, keepdim=True)).square().mean()


def score(model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        return -float(loss(model, 1000))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
