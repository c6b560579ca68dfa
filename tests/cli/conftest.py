"""A tiny model file, a folder of tiny photos, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NETS = """
import os
import time

import torch
from torch import nn

SETTINGS = {"input_size": (3, 16, 16)}


def net(width=8):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 12, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10)), SETTINGS


def wider():
    return net(width=16)


def plain():
    return nn.Sequential(nn.Flatten(), nn.LayerNorm(768)), SETTINGS


def broken():
    model, settings = net()
    model[2].weight.data[0, 0, 0, 0] = float("nan")
    return model, settings


def raising():
    raise RuntimeError("the checkpoint\\nis not here")


def crashing():
    model, settings = net()
    model.register_forward_pre_hook(lambda module, inputs: 1 / 0)
    return model, settings


def slow():
    model, settings = net()
    model.register_forward_pre_hook(lambda module, inputs: time.sleep(0.1 * os.path.exists("be-slow")))
    return model, settings


def nothing():
    return 42
"""

QUICK = [
    *("--search=0", "--additivity=0", "--baselines=none", "--calibration=8"),
    *("--sensing=4", "--heldout=4", "--batch=4", "--workers=1"),
]
"""Settings that make a run of the tiny net take about a second."""


@dataclass
class Told:
    """What a call of the command line left behind."""

    code: int
    out: str
    err: str


def furnish(folder: Path) -> None:
    """A model file and six photos."""
    (folder / "net.py").write_text(NETS)
    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for index in range(6):
        pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{index}.png")


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test has its own working folder with a model file and six photos."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("FEWER_SEED", "FEWER_PATTERN"):
        monkeypatch.delenv(name, raising=False)
    furnish(tmp_path)


@pytest.fixture
def fewer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Told]:
    """``fewer("plan", "run")`` calls the command line and gives exit code, standard output and standard error."""
    import warnings

    import torch

    from fewer.cli import main

    torch.set_num_threads(1)
    # the command line hides the warnings of libraries; other tests want to see them
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(*words: str) -> Told:
        capsys.readouterr()
        code = main(words)
        told = capsys.readouterr()
        return Told(code, told.out, told.err)

    return call


@pytest.fixture
def compress(fewer: Callable[..., Told]) -> Callable[..., Told]:
    """``compress("net.py:net", "--budget=weights=50%")`` with settings that make it quick."""

    def call(*words: str, out: str = "run") -> Told:
        return fewer("compress", *words, "--images=photos", f"--out={out}", *QUICK)

    return call
