"""``fewer demo detect3d``: a trained detector made cheap in four ways, judged on simulated scenes new to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fewer.core.progress import Progress, Silent
from fewer.models.spec import load_model
from fewer.presets import preset_values
from fewer.reports.page import Section, Table
from fewer.tasks.demos import Compared, write_page
from fewer.tasks.detect3d.dataset import DetectionData, open_data
from fewer.tasks.detect3d.evaluation import DetectionScores
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.loaded import detector_of
from fewer.tasks.detect3d.pages import bird_section, compare_page
from fewer.tasks.detect3d.scoring import score_detector
from fewer.tasks.detect3d.simulator import SENSORS, Streets
from fewer.tasks.folders import make_folder

__all__ = ["METHODS", "demo", "trained_detector"]

_QUICK: dict[str, Any] = {"calibration": 24, "sensing": 8, "heldout": 8, "batch": 4, "estimator": "taylor"}
"""Few scans, and distortions from gradients, so that every way takes less than a minute."""

_PLAIN: dict[str, Any] = {
    "pattern": "unstructured", "score": "magnitude", "compensation": "none", "correction": 0.0, "search": 0,
    "additivity": 0, "baselines": (),
}  # fmt: skip

METHODS: dict[str, Callable[[], dict[str, Any]]] = {
    "uniform": lambda: {**_PLAIN, "allocator": "uniform"},
    "LAMP": lambda: {**_PLAIN, "allocator": "lamp"},
    "DM3D as published": lambda: {**preset_values("dm3d"), "additivity": 0, "baselines": ()},
    "fewer": lambda: {"additivity": 0, "baselines": ()},
}
"""Settings of the ways that are compared; the last one is the default of the library."""

_SCENES = 1000
"""Seed of the demo's streets; those of the training are others (benchmarks/detect3d_weights.py)."""


def trained_detector() -> Path:
    """The folder of a small detector of cars that was trained on simulated scans; see ``detector.json`` in it.

    Examples
    --------
    >>> load_model(str(trained_detector())).model.config.classes
    ('Car',)
    """
    return Path(str(resources.files("fewer") / "tasks" / "detect3d" / "weights"))


@dataclass(frozen=True)
class _Way:
    """What one way of compressing made of the detector."""

    scores: DetectionScores
    found: Mapping[str, Objects]
    share: float

    def row(self, name: str) -> list[str]:
        ap = [f"{self.scores.ap('Car', d) or 0:.1f}" for d in ("easy", "moderate", "hard")]
        counts = [str(sum(getattr(b, kind) for b in self.scores.bands["Car"])) for kind in ("missed", "spurious")]
        return [name, f"{self.share:.2f}x", *ap, *counts]


def demo(
    compress: Callable[..., Any],
    out: str | Path = "demo-detect3d",
    *,
    budget: str = "flops=0.26x",
    scenes: int = 40,
    judged: int = 60,
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "fewer demo detect3d",
) -> Compared:
    """Simulate scans, make a trained detector cheap in four ways, and compare them; offline, in minutes on two cores.

    Parameters
    ----------
    compress
        ``compress(run folder, scans, budget, out=..., settings=dict, ...)`` of the engine, which gives a result with a
        ``model``; tasks do not know the engine.
    out
        Folder for scans, runs and the page ``demo.html``.
    budget
        Of every compression.
    scenes
        Simulated scans without labels that steer the compression.
    judged
        Further simulated scans, on which all detectors are scored.
    seed
        Of everything.

    Examples
    --------
    >>> demo(fewer.compress, "demo/").lines()  # doctest: +SKIP
    ['AP of cars 71.3 dense, 70.9 at flops=0.26x, on 60 simulated scans', 'see demo/demo.html']
    """
    root, progress = make_folder(out), progress or Silent()
    sensor = SENSORS["hdl-64"].ahead(45)
    steer = Streets(sensor, seed=_SCENES + 2 * seed).write(root / "scans", scenes, progress=progress)
    judge = Streets(sensor, seed=_SCENES + 2 * seed + 1).write(root / "unseen", judged, val=1.0, progress=progress)
    data, run = open_data(judge), trained_detector()
    dense = detector_of(load_model(str(run)))
    ways = {"dense": _Way(*score_detector(dense, data, data.names, progress=progress), 1.0)}
    for name, settings in METHODS.items():
        place = root / name.split()[0].lower()
        chosen = {**settings(), **_QUICK, "seed": seed}
        done = compress(str(run), str(steer), budget, out=place, overwrite=True, settings=chosen, progress=progress)
        share = done.plan.cost["flops"] / done.plan.dense["flops"]
        ways[name] = _Way(*score_detector(done.model, data, data.names, progress=progress), share)
    page = _page(data, ways, dense.config.reach, budget, command)
    before, after = ways["dense"].scores, ways["fewer"].scores
    first, second = before.ap("Car") or 0.0, after.ap("Car") or 0.0
    sentence = f"AP of cars {first:.1f} dense, {second:.1f} at {budget}, on {judged} simulated scans"
    others = ", ".join(f"{name} {way.scores.ap('Car') or 0:.1f}" for name, way in ways.items() if name not in _SHOWN)
    return Compared(write_page(root, page), before, after, f"{sentence} ({others})")


_SHOWN = ("dense", "fewer")


def _page(data: DetectionData, ways: Mapping[str, _Way], reach: Any, budget: str, command: str) -> Any:
    dense, ours = ways["dense"], ways["fewer"]
    head = ["way", "FLOPs", "AP easy", "AP moderate", "AP hard", "missed", "spurious"]
    table = Table(
        title="Cars, AP in space at an overlap of 0.7 and 40 recalls, percent; missed and spurious at confidence 0.3",
        head=head,
        rows=[way.row(name) for name, way in ways.items()],
    )
    words = [
        "All rows but the first keep the same share of the FLOPs of the detector's layers, and none was trained again.",
        "The scans are simulated: these numbers say nothing about real roads.",
    ]
    first = Section(name="ways", title="The detector, and what each way makes of it", words=words, tables=[table])
    birds = bird_section(data, dense.found, ["Car"], reach, other=ours.found)
    title = "Simulated streets: a detector made cheap"
    return compare_page(title, dense.scores, ours.scores, f"Budget {budget}", birds, command, first=[first])
