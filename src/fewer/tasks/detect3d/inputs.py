"""Scans of a folder for the engine: ragged, unlabelled, and never the same ones for calibration and judgement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.data.images import split_files
from fewer.data.samples import ListSamples
from fewer.models.spec import LoadedModel
from fewer.tasks.detect3d.loaded import config_of, data_for, scan_tensor, unseen

__all__ = ["ScanSamples", "scans_for"]

_STREAM = 23


class ScanSamples(ListSamples):
    """Scans as a network takes them: several in one batch as several arguments, whatever their lengths."""

    def __init__(self, items: Any, files: tuple[Path, ...] = (), skipped: list[tuple[Path, str]] | None = None) -> None:
        super().__init__(items, collate=tuple)
        self.files, self.skipped = files, list(skipped or [])

    def take(self, positions: Any) -> ScanSamples:
        """The scans at some positions."""
        files = tuple(self.files[i] for i in positions) if self.files else ()
        return ScanSamples([self.items[i] for i in positions], files)

    def map(self, change: Any) -> ScanSamples:
        """Every scan changed."""
        return ScanSamples([change(item) for item in self.items], self.files, self.skipped)


def scans_for(loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> ScanSamples:
    """Scans without labels.

    Of the folder that the network was trained on, the scans that judged are held out; of any other folder, a fixed
    quarter by name.

    Raises
    ------
    FewerError
        When the folder holds no scan that can be used for this part.
    """
    data, config = data_for(loaded, folder), config_of(loaded)
    if len(data) < 2:
        raise FewerError(f"{folder} holds one scan; give two or more, since some steer and others judge")
    held = set(unseen(loaded, data))
    if 0 < len(held) < len(data.labelled()):
        chosen = [name for name in data.names if (name in held) == (part == "heldout")]
    else:
        own = set(split_files(list(data.files), list(data.names), part))
        chosen = [name for name, file in zip(data.names, data.files, strict=True) if file in own]
    items, files, skipped = [], [], []
    for index in np.random.default_rng([seed, _STREAM]).permutation(len(chosen)):
        name = chosen[int(index)]
        try:
            items.append(scan_tensor(data.points(name), config, data.file(name)))
            files.append(data.file(name))
        except FewerError as error:
            skipped.append((data.file(name), str(error)))
        if len(items) == count:
            break
    if not items:
        reason = f"; the first: {skipped[0][1]}" if skipped else ""
        raise FewerError(f"{folder} holds no readable scan for the {part} part{reason}")
    return ScanSamples(items, tuple(files), skipped)
