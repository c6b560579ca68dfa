"""The frame of a task's demo: train a small network on simulated data, make it cheap, and show both on one page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from fewer.core.display import Told
from fewer.core.files import atomic_write_text
from fewer.core.progress import Progress
from fewer.reports.page import Page

__all__ = ["Compared", "Scores", "cheaper", "write_page"]

PLAN: dict[str, Any] = {
    "sensing": 4,
    "estimator": "taylor",
    "probes": 2,
    "sparsities": (0.3, 0.5, 0.7, 0.8, 0.9),
    "allocator": "dp",
    "search": 0,
    "additivity": 0,
    "baselines": (),
}
"""Settings of the compression, so that it takes a minute."""


class Scores(Protocol):
    """What a network was worth."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        ...


@dataclass(frozen=True, repr=False)
class Compared(Told):
    """What a demo made.

    Attributes
    ----------
    page
        The page that compares.
    dense, compressed
        Scores on what did not train.
    sentence
        Both in words.
    """

    page: Path
    dense: Scores
    compressed: Scores
    sentence: str

    def lines(self) -> list[str]:
        """Both scores, and where the page is."""
        return [self.sentence, f"see {self.page}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"page": str(self.page), "dense": self.dense.to_dict(), "compressed": self.compressed.to_dict()}


def cheaper(
    compress: Callable[..., Any],
    run: Path,
    data: Path,
    budget: str,
    *,
    calibration: int,
    heldout: int,
    seed: int,
    progress: Progress,
) -> nn.Module:
    """The network of a run within a budget; the compressed run stands beside it, in the folder ``cheap``.

    Parameters
    ----------
    compress
        ``compress(run folder, data, budget, out=..., settings=dict, ...)`` of the engine, which gives a result with a
        ``model``; tasks do not know the engine.
    run, data
        Folders of the trained network and of its data.
    calibration, heldout
        Inputs that steer the compression, and that judge it.
    """
    settings = {**PLAN, "calibration": calibration, "heldout": heldout, "seed": seed}
    out = run.parent / "cheap"
    return compress(str(run), str(data), budget, out=out, overwrite=True, settings=settings, progress=progress).model


def write_page(root: Path, page: Page) -> Path:
    """Write ``demo.html``, and its numbers as ``demo.json`` beside it."""
    atomic_write_text(root / "demo.json", page.to_json())
    return atomic_write_text(root / "demo.html", page.to_html())
