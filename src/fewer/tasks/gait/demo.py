"""``fewer demo gait``: simulated walkers, a network trained on them, who is who, and the network made cheap."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.progress import Progress, Silent
from fewer.reports.page import Tile
from fewer.tasks.demos import Compared, cheaper, write_page
from fewer.tasks.folders import make_folder
from fewer.tasks.gait.data.dataset import open_data
from fewer.tasks.gait.embed import embed_walks
from fewer.tasks.gait.pages import evaluation_page
from fewer.tasks.gait.protocols import protocol_for
from fewer.tasks.gait.protocols.records import Walks
from fewer.tasks.gait.protocols.scores import Scores
from fewer.tasks.gait.settings import TrainSettings
from fewer.tasks.gait.simulator import Walkers
from fewer.tasks.gait.simulator.guards import shape_embedding
from fewer.tasks.gait.training import train

__all__ = ["demo"]

_VIEWS = ("036", "072", "108", "144")
_KINDS = ("nm-01", "nm-02", "nm-05", "bg-01", "cl-01")


def demo(
    compress: Callable[..., Any],
    out: str | Path = "demo-gait",
    *,
    budget: str = "flops=0.5x",
    people: int = 40,
    frames: int = 36,
    steps: int = 300,
    size: str = "tiny",
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "fewer demo gait",
) -> Compared:
    """Simulate, train, recognise, compress; offline, a few minutes on two cores.

    Parameters
    ----------
    compress
        ``compress(run folder, data, budget, out=..., settings=dict, ...)`` of the engine, which gives a result with a
        ``model``; tasks do not know the engine.
    out
        Folder for walkers, runs and the page ``demo.html``.
    budget
        Of the compression.
    people
        Simulated persons; two fifths judge.
    frames
        Of a sequence.
    steps
        Of the training.
    size
        Of the network.
    seed
        Of everything.

    Examples
    --------
    >>> demo(fewer.compress, "demo/").lines()  # doctest: +SKIP
    ['rank-1 71.3 % dense, 69.9 % compressed, 34.0 % by mean silhouettes alone, on simulated walkers', ...]
    """
    root, progress = make_folder(out), progress or Silent()
    Walkers(seed=seed).write(root / "walkers", people, kinds=_KINDS, views=_VIEWS, frames=frames, progress=progress)
    settings = TrainSettings.of(
        {"size": size, "tpa": "moments", "batch": 12, "each": 2, "frames": 24, "skip": 0, "seed": seed}
        | {"learning_rate": 1e-2, "steps": steps, "every": steps}
    )
    data = root / "walkers"
    run = train(str(data), out=root / "network", settings=settings, overwrite=True, progress=progress)
    cheap = cheaper(compress, root / "network", data, budget, calibration=16, heldout=8, seed=seed, progress=progress)
    opened = open_data(data)

    def score(model: Any) -> Scores:
        found, _ = embed_walks(model, opened, run.plan.test, progress=progress)
        return protocol_for(found)(found)

    before, after = score(run.model), score(cheap)
    known = Walks(run.plan.test, np.stack([shape_embedding(opened.frames(walk)) for walk in run.plan.test]))
    shape = protocol_for(known)(known).headline
    page = evaluation_page("Simulated walkers: who is who", before, run.model, opened, (), command)
    page.tiles.append(Tile(name=f"rank-1 at {budget}", value=f"{after.headline:.1f} %"))
    page.tiles.append(Tile(name="rank-1 of mean silhouettes", value=f"{shape:.1f} %"))
    page.data |= {"compressed": after.to_dict(), "mean silhouettes": shape}
    sentence = (
        f"rank-1 {before.headline:.1f} % dense, {after.headline:.1f} % compressed, {shape:.1f} % by mean silhouettes "
        "alone, on simulated walkers"
    )
    return Compared(write_page(root, page), before, after, sentence)
