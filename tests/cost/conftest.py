"""Made-up times, and a net to take them of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewer.cost import profile as module
from tests.fake_device import FakeWatch


@pytest.fixture
def device(monkeypatch, tmp_path):
    """A cache of its own, and made-up times."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "Stopwatch", FakeWatch)
    return FakeWatch


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
