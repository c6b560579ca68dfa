"""What is said of the files that steered and judged, as people say it."""

from __future__ import annotations

from pathlib import Path

import torch

from fewer.data.samples import TensorSamples
from fewer.engine.samples import _many, _ordered
from fewer.engine.settings import Settings


def test_one_file_is_not_files() -> None:
    def samples(*names: str) -> TensorSamples:
        return TensorSamples(torch.randn(len(names), 2), [Path(name) for name in names])

    second = samples(*"c" * 8, *"d" * 4)
    said = _ordered(samples("a", "b"), second, Settings(heldout=8), "photos", "images", "files").notes[0]
    assert said.startswith("2 calibration images from 2 files, ")
    assert " from 1 other file" in said and " from 1 more file " in said
    assert [_many(1, noun) for noun in ("patches", "other images")] == ["1 patch", "1 other image"]
