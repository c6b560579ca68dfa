"""``fewer demo uda``: the published adaptation methods beside no adaptation, from few labelled scans, and a page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fewer.core.progress import Progress
from fewer.tasks.segment.adapt_demo import AdaptDemo, Rows
from fewer.tasks.segment.adapt_demo import demo as compare

__all__ = ["demo"]

FEW: Mapping[str, Any] = {"source_labels": 4, "translator_steps": 60}
"""Labelled scans of the source, of ten, and steps of the networks that translate images."""
RUNS: Mapping[str, Mapping[str, Any]] = {
    "source-only": {"method": "source-only", **FEW},
    "ms-mt": {"method": "ms-mt", **FEW},
    "mt-uda": {"method": "mt-uda", **FEW},
    "le-uda": {"method": "le-uda", **FEW},
    "target-oracle": {"method": "target-oracle"},
}
PAPERS = Rows(
    RUNS,
    ("source-only", "ms-mt", "le-uda", "target-oracle"),
    "Scores of the published methods, as reimplemented here",
    (
        "Four of the ten source scans keep their masks, but for the oracle, which has all masks of the target.",
        "The papers train for days on scans of patients; so few steps on drawn heads say how the methods are used, "
        "not how good they are. The page of each run tells whether its translator was refused.",
    ),
)
"""What is compared."""


def demo(
    out: str | Path, *, steps: int = 300, seed: int = 0, progress: Progress | None = None, command: str = ""
) -> AdaptDemo:
    """MS-MT, MT-UDA and LE-UDA on simulated heads, as :func:`fewer.tasks.segment.adapt_demo.demo` draws them."""
    return compare(out, steps=steps, seed=seed, progress=progress, command=command, rows=PAPERS)
