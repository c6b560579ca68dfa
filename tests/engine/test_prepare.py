"""Distortion is measured on images that the repair which is measured was not fitted to."""

import numpy as np
import torch
from PIL import Image
from torch import nn

from fewer.engine.prepare import prepare
from fewer.engine.sense import sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work


def test_images_of_one_file_are_on_one_side(tmp_path):
    for i in range(12):
        Image.fromarray(np.full((40, 40, 3), 20 * i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    prepared = prepare(net, tmp_path, Settings(calibration=24, sensing=5, heldout=4))
    measured, fitted = (
        set(x.flatten(1).mean(1).tolist()) for x in (prepared.sensing_images.batch(), prepared.repair_images.batch())
    )
    assert len(prepared.sensing_images) == 5 and not measured & fitted
    assert (len(measured), len(fitted)) == (3, 6)  # the other three files are held out


def test_distortion_on_images_of_its_own_is_higher_than_on_those_that_the_repair_was_fitted_to():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    x = torch.randn(48, 64)
    settings = Settings(calibration=36, sensing=12, heldout=12, damping=1e-3, estimator="measured")
    prepared = prepare(net, x, settings)
    apart = sense_curves(Work(prepared, settings)).curves
    object.__setattr__(prepared, "apart", (12, 0))
    together = sense_curves(Work(prepared, settings)).curves
    first = [c.distortion[5] for c in apart.curves]
    second = [c.distortion[5] for c in together.curves]
    assert all(a > 1.2 * b for a, b in zip(first, second, strict=True))
