"""The gallery of a queue: one self-contained page with the chosen images, where they lie in the pool, and why."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from PIL import Image

from fewer.core.version import __version__
from fewer.data.decode import read_image
from fewer.reports.figure import COLOUR, Key, Plot, panel, plot
from fewer.reports.templating import template_environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fewer.selection.plan import Asked, QueuePlan

__all__ = ["Card", "flat_map", "render_gallery"]

SHOWN = 240  # pictures on the page; the queue itself is never cut
DOTS = 1200  # images of the pool on the map
SIDE = 176  # pixels of a thumbnail


@dataclass(frozen=True)
class Card:
    """One chosen image on the page."""

    asked: Asked
    picture: str
    size: str


def render_gallery(
    plan: QueuePlan, vectors: np.ndarray, names: Sequence[str], root: Path, command: str | None = None
) -> str:
    """Render the page of the latest round.

    Parameters
    ----------
    plan
        With all rounds; the last one is shown.
    vectors
        [N, d] of the whole pool.
    names
        File of every row.
    root
        Folder of the pool.
    command
        The command line that made it.

    Returns
    -------
    str
        HTML that loads nothing from elsewhere. The same queue gives the same page.
    """
    last = plan.rounds[-1]
    latest = [asked for asked in plan.queue if asked.round == last.round]
    environment = template_environment("fewer.selection")
    return environment.get_template("gallery.html.j2").render(
        plan=plan,
        last=last,
        cards=[_card(asked, root) for asked in latest[:SHOWN]],
        hidden=latest[SHOWN:],
        waiting=[asked for asked in plan.waiting() if asked.round < last.round],
        map=flat_map(plan, vectors, names),
        version=__version__,
        command=command,
        Markup=Markup,
    )


def _card(asked: Asked, root: Path) -> Card:
    try:
        image = read_image(root / asked.name)
        size = f"{image.width} x {image.height}"
        image = image.convert("RGB")
        image.thumbnail((SIDE * 2, SIDE * 2) if max(image.size) < SIDE else (SIDE, SIDE), Image.Resampling.LANCZOS)
    except Exception:  # a file that broke since it was chosen can make a decoder raise anything
        image, size = Image.new("RGB", (SIDE, SIDE), "#888"), "gone"
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return Card(asked, base64.b64encode(buffer.getvalue()).decode(), size)


def flat_map(plan: QueuePlan, vectors: np.ndarray, names: Sequence[str]) -> Plot | None:
    """The pool on its two strongest principal directions, with what was chosen on it; None for fewer than 3 images.

    At most 1,200 images of the pool are drawn, so that the page stays small.
    """
    skipped = {s.name for s in plan.skipped}
    rows = np.array([row for row, name in enumerate(names) if name not in skipped])
    if len(rows) < 3:
        return None
    rng = np.random.default_rng(0)
    if len(rows) > DOTS:
        rows = np.sort(rng.choice(rows, DOTS, replace=False))
    sample = np.asarray(vectors[rows], np.float64)
    sample /= np.maximum(np.linalg.norm(sample, axis=1, keepdims=True), 1e-12)
    mean = sample.mean(0)
    values, basis = np.linalg.eigh((sample - mean).T @ (sample - mean))
    basis = basis[:, [-1, -2]] if basis.shape[1] > 1 else np.hstack([basis, np.zeros_like(basis)])
    basis *= np.sign(basis[np.abs(basis).argmax(0), [0, 1]] + 1e-30)
    share = values[-2:].sum() / max(values.sum(), 1e-30)
    row_of = {name: row for row, name in enumerate(names)}

    def at(wanted: Sequence[str]) -> np.ndarray:
        found = np.asarray(vectors[[row_of[n] for n in wanted]], np.float64) if wanted else np.zeros((0, len(mean)))
        return (found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12) - mean) @ basis

    last = plan.rounds[-1].round
    now = [a.name for a in plan.queue if a.round == last]
    done = [n for n in dict.fromkeys([*(a.name for a in plan.queue if a.round < last), *plan.labelled]) if n in row_of]
    cloud, chosen, known = (sample - mean) @ basis, at(now), at(done)

    def draw(figure: Figure, narrow: bool) -> None:
        axes = panel(figure, 4, 4, 4, 4)
        axes.grid(False)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines["bottom"].set_visible(False)
        axes.plot(*cloud.T, "o", color=COLOUR["other"], alpha=0.55, markersize=4, markeredgewidth=0)
        if len(known):
            axes.plot(*known.T, "s", color=COLOUR["c2"], markersize=6, markeredgewidth=0)
        axes.plot(*chosen.T, "o", color=COLOUR["ours"], markersize=7 if len(now) <= 200 else 4, markeredgewidth=0)
        for place in range(min(len(now), 12 if narrow else 20)):
            axes.annotate(str(place + 1), chosen[place], (6, 3), textcoords="offset points", color=COLOUR["ink"])

    keys = [Key("chosen in this round", "ours", "o"), Key("in the pool", "other", "o")]
    if len(known):
        keys.insert(1, Key("labelled or asked for before", "c2", "s"))
    return plot(
        "map",
        "Where the chosen images lie in the pool",
        f"Scatter plot of {len(rows)} images of the pool and {len(now)} chosen ones on two principal directions, which "
        f"hold {100 * share:.0f} % of the variance of the features.",
        draw,
        wide=(960, 460),
        narrow=(360, 340),
        legend=keys,
    )
