"""``fewer demo detect3d``: simulated scans, a small detector trained on them, made cheap, and a page that compares."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fewer.core.progress import Progress, Silent
from fewer.models.spec import load_model
from fewer.tasks.demos import Compared, cheaper, write_page
from fewer.tasks.detect3d.dataset import open_data
from fewer.tasks.detect3d.loaded import detector_of
from fewer.tasks.detect3d.pages import bird_section, compare_page
from fewer.tasks.detect3d.scoring import score_detector
from fewer.tasks.detect3d.settings import TrainSettings
from fewer.tasks.detect3d.simulator import SENSORS, Streets
from fewer.tasks.detect3d.training import train
from fewer.tasks.folders import make_folder

__all__ = ["demo"]


def demo(
    compress: Callable[..., Any],
    out: str | Path = "demo-detect3d",
    *,
    budget: str = "flops=0.5x",
    scenes: int = 60,
    seconds: float = 100.0,
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "fewer demo detect3d",
) -> Compared:
    """Simulate, train, compress, compare; offline, a few minutes on two cores.

    A detector that has learnt for so short a time is a weak one: the demo shows the way, not what a detector can do.

    Parameters
    ----------
    compress
        ``compress(run folder, scans, budget, out=..., settings=dict, ...)`` of the engine, which gives a result with a
        ``model``; tasks do not know the engine.
    out
        Folder for scans, runs and the page ``demo.html``.
    budget
        Of the compression.
    scenes
        Simulated scans; a quarter judges.
    seconds
        Of the training.
    seed
        Of everything.

    Examples
    --------
    >>> demo(fewer.compress, "demo/").lines()  # doctest: +SKIP
    ['mAP 23.1 dense, 22.8 compressed, on simulated scans', 'see demo/demo.html']
    """
    root, progress = make_folder(out), progress or Silent()
    data = Streets(SENSORS["hdl-64"].ahead(45).thinned(2), seed=seed).write(root / "scans", scenes, progress=progress)
    settings = TrainSettings(network="pointpillars", classes=("Car",), time=seconds, every=10_000, seed=seed)
    run = train(data, out=root / "detector", settings=settings, overwrite=True, progress=progress)
    dense = detector_of(load_model(str(root / "detector")))
    cheap = cheaper(compress, root / "detector", data, budget, calibration=12, heldout=6, seed=seed, progress=progress)
    opened, names = open_data(data), run.plan.val
    before, found = score_detector(dense, opened, names, progress=progress)
    after, other = score_detector(cheap, opened, names, progress=progress)
    birds = bird_section(opened, found, dense.config.classes, dense.config.reach, other=other)
    page = compare_page("Simulated streets: a detector made cheap", before, after, f"Budget {budget}", birds, command)
    first, second = before.measures()["mAP"], after.measures()["mAP"]
    sentence = f"mAP {first:.1f} dense, {second:.1f} compressed, on simulated scans"
    return Compared(write_page(root, page), before, after, sentence)
