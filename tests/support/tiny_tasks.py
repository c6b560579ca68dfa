"""A tiny data set for every task, so that one test can take each of them the whole way."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fewer.tasks import TASKS, register_task

__all__ = ["TINY", "Tiny"]

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Tiny:
    """How a task is tried.

    Attributes
    ----------
    tiny_data
        Writes a data set into a folder and gives its path.
    settings
        Of a training of seconds; ``every`` is half of ``steps``, so that there is a point to resume from.
    """

    tiny_data: Callable[[Path], Path]
    settings: dict[str, Any] = field(default_factory=dict)


def _segment(folder: Path) -> Path:
    pytest.importorskip("monai", reason="needs the [medical] extra")
    from tests.tasks.segment.simulated import write_folder

    write_folder(folder / "lesions", 6, (32, 32))
    return folder / "lesions"


def _classify(folder: Path) -> Path:
    from tests.tasks.classify.shapes import write_folders

    (folder / "net.py").write_text(
        "from torch import nn\n\n\ndef net():\n"
        "    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 3)]\n"
        "    return nn.Sequential(*layers), {'input_size': (3, 16, 16), 'crop': 1.0}\n"
    )
    return write_folders(folder / "photos", each=8)


def _detect3d(folder: Path) -> Path:
    from fewer.tasks.detect3d.simulator import SENSORS, Streets

    return Streets(SENSORS["hdl-64"].ahead(30).thinned(4), seed=5).write(folder / "kitti", 4, val=0.5)


_EXAMPLE = runpy.run_path(str(ROOT / "examples" / "disc_task.py"))
if "disc" not in TASKS:
    register_task(_EXAMPLE["Disc"])


def _disc(folder: Path) -> Path:
    return _EXAMPLE["simulate"](folder / "discs.npz", count=64)


def _gait(folder: Path) -> Path:
    from fewer.tasks.gait.simulator import Walkers

    kinds = ("nm-01", "nm-05", "cl-01")
    return Walkers(seed=0).write(folder / "walks", 6, train=3, kinds=kinds, views=("054", "090"), frames=10)


TINY = {
    "gait": Tiny(_gait, {"steps": 4, "every": 2, "size": "tiny", "batch": 4, "each": 2, "frames": 6, "tpa": "phase"}),
    "segment": Tiny(_segment, {"steps": 4, "every": 2, "width": 4, "levels": 2, "patch_voxels": 1024, "batch": 2}),
    "classify": Tiny(_classify, {"steps": 4, "every": 2, "batch": 8, "network": "{folder}/net.py:net"}),
    "detect3d": Tiny(_detect3d, {"steps": 4, "every": 2, "batch": 1, "classes": ("Car",), "judges": 1, "set_in": 2}),
    "disc": Tiny(_disc, {"steps": 4, "every": 2}),
}
"""By name of the task. A task that is added gets a row here, and with it the tests of ``tests/contract``."""
