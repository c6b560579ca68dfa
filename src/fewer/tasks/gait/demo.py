"""``fewer demo gait``: simulated walkers, a network trained on them, who is who, and the network made cheap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewer.core.files import atomic_write_text
from fewer.core.progress import Progress, Silent
from fewer.reports.page import Tile
from fewer.tasks.folders import make_folder
from fewer.tasks.gait.data.dataset import open_data
from fewer.tasks.gait.embed import embed_walks
from fewer.tasks.gait.pages import evaluation_page
from fewer.tasks.gait.protocols import protocol_for
from fewer.tasks.gait.protocols.scores import Scores
from fewer.tasks.gait.settings import TrainSettings
from fewer.tasks.gait.simulator import Walkers, casia_kinds
from fewer.tasks.gait.training import train

__all__ = ["GaitDemo", "demo"]

PLAN: dict[str, Any] = {
    "calibration": 16,
    "sensing": 4,
    "heldout": 8,
    "estimator": "taylor",
    "probes": 2,
    "sparsities": (0.3, 0.5, 0.7, 0.8, 0.9),
    "allocator": "dp",
    "search": 0,
    "additivity": 0,
    "baselines": (),
}
"""Settings of the compression, so that it takes a minute."""

_VIEWS = ("054", "090", "126")


@dataclass(frozen=True)
class GaitDemo:
    """What the demo made.

    Attributes
    ----------
    page
        The page.
    dense, compressed
        Scores on persons that did not train.
    """

    page: Path
    dense: Scores
    compressed: Scores

    def lines(self) -> list[str]:
        """Both scores, and where the page is."""
        first, second = self.dense.headline, self.compressed.headline
        return [f"rank-1 {first:.1f} % dense, {second:.1f} % compressed, on simulated walkers", f"see {self.page}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"page": str(self.page), "dense": self.dense.to_dict(), "compressed": self.compressed.to_dict()}


def demo(
    compress: Callable[..., Any],
    out: str | Path = "demo-gait",
    *,
    budget: str = "flops=0.5x",
    people: int = 24,
    frames: int = 36,
    seconds: float = 90.0,
    size: str = "small",
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "fewer demo gait",
) -> GaitDemo:
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
    seconds
        Of the training.
    size
        Of the network.
    seed
        Of everything.

    Examples
    --------
    >>> demo(fewer.compress, "demo/").lines()  # doctest: +SKIP
    ['rank-1 71.3 % dense, 69.9 % compressed, on simulated walkers', 'see demo/demo.html']
    """
    root, progress = make_folder(out), progress or Silent()
    walkers, kinds = Walkers(seed=seed), casia_kinds(6, 1, 1)
    walkers.write(root / "walkers", people, kinds=kinds, views=_VIEWS, frames=frames, progress=progress)
    settings = TrainSettings.of(
        {"size": size, "tpa": "phase", "batch": 16, "frames": 20, "seconds": seconds, "every": 10_000, "seed": seed}
    )
    data = str(root / "walkers")
    run = train(data, out=root / "network", settings=settings, overwrite=True, progress=progress)
    result = compress(
        str(root / "network"), data, budget, out=root / "cheap", overwrite=True,
        settings={**PLAN, "seed": seed}, progress=progress,
    )  # fmt: skip
    opened = open_data(data)
    scores = []
    for model in (run.model, result.model):
        found, _ = embed_walks(model, opened, run.plan.test, progress=progress)
        scores.append(protocol_for(found)(found))
    page = evaluation_page("Simulated walkers: who is who", scores[0], run.model, opened, (), command)
    page.tiles.append(Tile(name=f"rank-1 at {budget}", value=f"{scores[1].headline:.1f} %"))
    page.data["compressed"] = scores[1].to_dict()
    place = atomic_write_text(root / "demo.html", page.to_html())
    atomic_write_text(root / "demo.json", page.to_json())
    return GaitDemo(place, scores[0], scores[1])
