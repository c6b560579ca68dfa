"""Rows are ranked by what the network feels, also where an activation hides them, if a distance tells places apart."""

from __future__ import annotations

import torch
from torch import nn

from fewer.distortion.detection import DetectionDistance
from fewer.distortion.outputs import Reference
from fewer.engine.prepare import prepare
from fewer.engine.sense import row_sensitivity
from fewer.engine.settings import Settings
from fewer.engine.work import Work


class Maps(nn.Module):
    """A tiny head: features of cells to a confidence and a place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.hm, self.center = nn.Conv2d(2, 6, 1), nn.Conv2d(6, 1, 1), nn.Conv2d(6, 2, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.first(x).relu()
        return {"hm": self.hm(x), "center": self.center(x)}


def test_rows_that_an_activation_hides_are_ranked_where_places_are_told_apart() -> None:
    torch.manual_seed(0)
    settings = Settings(calibration=6, heldout=2, sensing=2, workers=1)
    weighed = {}
    for distance in (Reference, DetectionDistance):
        prepared = prepare(Maps().eval(), torch.randn(10, 2, 5, 5), settings, distance=distance)
        work = Work(prepared, settings)
        known, ranked = row_sensitivity(work, prepared.model)
        assert set(known) == {"first", "hm", "center"}
        weighed[distance] = set(ranked)
    assert "first" not in weighed[Reference] and weighed[DetectionDistance] == {"first", "hm", "center"}
