"""How many images a recovery fits with: as many as time and memory allow, or none."""

import pytest
import torch
from torch import nn

from fewer.engine import refit as refitting
from fewer.engine.apply import images_in_memory
from fewer.engine.prepare import prepare
from fewer.engine.refit import affordable_views, room_for_views
from fewer.engine.settings import Settings


@pytest.fixture
def prepared():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
    return prepare(net, torch.randn(40, 16), Settings(calibration=16))


def test_half_of_the_free_memory_is_used(prepared, monkeypatch):
    monkeypatch.setattr(refitting, "free_memory", lambda: 6 * 64 * 4 * 1000)
    assert room_for_views(prepared) == 500
    assert images_in_memory(prepared, 6 * 64 * 4 * 10) == 10
    monkeypatch.setattr(refitting, "free_memory", lambda: None)
    assert room_for_views(prepared) == images_in_memory(prepared)


def test_time_and_memory_limit_the_views_and_few_are_none(prepared, monkeypatch):
    monkeypatch.setattr(refitting, "room_for_views", lambda prepared: 100)
    monkeypatch.setattr(refitting, "rows_wanted", lambda columns: 0.0)
    fixed = next(s for s in range(10_000) if affordable_views(prepared, s, 1.0))  # seconds that pass before it pays
    assert affordable_views(prepared, fixed, 1.0) == 24  # one and a half times the images of the compression
    assert affordable_views(prepared, fixed + 5 * 36, 1.0) == 60  # an image costs five passes
    assert affordable_views(prepared, 1e6, 1.0) == 100
