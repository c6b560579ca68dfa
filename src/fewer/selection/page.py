"""The gallery of a queue: one self-contained page with the chosen images, where they lie in the pool, and why."""

from __future__ import annotations

import base64
import io
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup
from PIL import Image

from fewer.core.version import __version__
from fewer.data.decode import read_image
from fewer.reports.figure import COLOUR, Key, Plot, panel, plot
from fewer.reports.labels import place_boxes
from fewer.reports.templating import template_environment
from fewer.selection.distance import principal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from fewer.selection.plan import Asked, QueuePlan

__all__ = ["Card", "Near", "flat_map", "nearest_of", "render_gallery"]

SHOWN = 240  # pictures on the page; the queue itself is never cut
DOTS = 1200  # images of the pool on the map
SIDE = 176  # pixels of a thumbnail
EXAMPLES, SMALL_SIDE, WITH_EXAMPLES = 3, 56, 60  # pictures of what an image stands for, and how many cards have them
ON_MAP = 14  # chosen images whose pictures lie on the map


@dataclass(frozen=True)
class Card:
    """One chosen image on the page."""

    asked: Asked
    picture: str
    size: str
    near: Near | None = None


@dataclass(frozen=True)
class Near:
    """The images of the pool that are closer to one chosen image than to every other.

    ``pictures`` show the closest, the middle and the farthest of them.
    """

    count: int
    pictures: tuple[tuple[str, str], ...]


def render_gallery(
    plan: QueuePlan,
    vectors: np.ndarray,
    names: Sequence[str],
    root: Path,
    command: str | None = None,
    queue: str = "QUEUE",
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
    queue
        Folder of the queue, for the command of the next round.

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
        cards=_cards(latest[:SHOWN], vectors, names, root, {s.name for s in plan.skipped}),
        hidden=latest[SHOWN:],
        waiting=[asked for asked in plan.waiting() if asked.round < last.round],
        map=flat_map(plan, vectors, names, root),
        version=__version__,
        command=command,
        next=f"fewer select --continue --out {shlex.quote(queue)} --labels EXPORT --budget labels={last.chosen}",
        Markup=Markup,
    )


def _cards(
    latest: Sequence[Asked], vectors: np.ndarray, names: Sequence[str], root: Path, skipped: set[str]
) -> list[Card]:
    shown = nearest_of([asked.name for asked in latest], vectors, names, skipped)
    cards = []
    for place, asked in enumerate(latest):
        image, size = _thumbnail(root / asked.name, SIDE)
        near = None
        if place < WITH_EXAMPLES and len(shown[place]):
            rows = shown[place]
            picked = dict.fromkeys(int(rows[i]) for i in (0, len(rows) // 2, len(rows) - 1))
            pictures = tuple((names[row], _jpeg(_thumbnail(root / names[row], SMALL_SIDE)[0])) for row in picked)
            near = Near(len(rows), pictures[:EXAMPLES])
        cards.append(Card(asked, _jpeg(image), size, near))
    return cards


def nearest_of(
    chosen: Sequence[str], vectors: np.ndarray, names: Sequence[str], skipped: Collection[str] = ()
) -> list[np.ndarray]:
    """Share the pool out: each image goes to the chosen one that it is most alike.

    Parameters
    ----------
    chosen
        Names of the chosen images.
    vectors
        [N, d] of the whole pool.
    names
        File of every row.
    skipped
        Names of images that cannot be read.

    Returns
    -------
    list of ndarray
        For each chosen image the rows that are its own, the most alike first; no chosen image is among them.

    Examples
    --------
    >>> [rows.tolist() for rows in nearest_of(["a", "d"], np.array([[1, 0], [1, 0.1], [1, 0.3], [0, 1]]), "abcd")]
    [[1, 2], []]
    """
    row_of = {name: row for row, name in enumerate(names)}
    centres = np.array([row_of[name] for name in chosen], dtype=int)
    left_out = {*centres.tolist(), *(row_of[name] for name in skipped if name in row_of)}
    rows = np.array([row for row in range(len(names)) if row not in left_out], dtype=int)
    owner, likeness = np.zeros(len(rows), int), np.zeros(len(rows))
    wanted = _unit(vectors[centres])
    for start in range(0, len(rows), 4096):  # a pool may be large
        part = slice(start, start + 4096)
        alike = _unit(vectors[rows[part]]) @ wanted.T
        owner[part], likeness[part] = alike.argmax(1), alike.max(1)
    order = np.argsort(-likeness, kind="stable")
    return [rows[order[owner[order] == i]] for i in range(len(centres))]


def _unit(vectors: np.ndarray) -> np.ndarray:
    rows = np.asarray(vectors, np.float64)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def _thumbnail(path: Path, side: int) -> tuple[Image.Image, str]:
    """A small copy, and the size of the original."""
    try:
        image = read_image(path)
        size = f"{image.width} x {image.height}"
        image = image.convert("RGB")
        image.thumbnail((side * 2, side * 2) if max(image.size) < side else (side, side), Image.Resampling.LANCZOS)
    except Exception:  # a file that broke since it was chosen can make a decoder raise anything
        image, size = Image.new("RGB", (side, side), "#888"), "gone"
    return image, size


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82)
    return base64.b64encode(buffer.getvalue()).decode()


def flat_map(plan: QueuePlan, vectors: np.ndarray, names: Sequence[str], root: Path | None = None) -> Plot | None:
    """The pool on its two strongest principal directions, with what was chosen on it; None for fewer than 3 images.

    At most 1,200 images of the pool are drawn, so that the page stays small. Where ``root``, the folder of the pool, is
    given, the first of the chosen images lie on the map as small pictures.
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
    values, basis = principal(sample - mean)
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
        pictures = 0 if root is None else min(len(now), ON_MAP // 2 if narrow else ON_MAP)
        for place in range(pictures, min(len(now), 12 if narrow else 20)):
            axes.annotate(str(place + 1), chosen[place], (6, 3), textcoords="offset points", color=COLOUR["ink"])
        if root is not None:
            _draw_pictures(axes, chosen[:pictures], [root / name for name in now[:pictures]], 34 if narrow else 48)

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


def _draw_pictures(axes: Axes, points: np.ndarray, files: Sequence[Path], side: int) -> None:
    """Put small pictures beside their points, where they cover neither each other nor another point, with the rank."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    images = [_thumbnail(file, side)[0] for file in files]
    axes.autoscale_view()  # limits are set when they are asked for, and places hang on them
    corner, size = axes.bbox.min, axes.bbox.size
    places = [tuple(map(float, axes.transData.transform(point) - corner)) for point in points]
    # each with room for its rank below
    boxes = [(image.width * _fit(image, side), image.height * _fit(image, side) + _RANK) for image in images]
    spots = place_boxes(places, boxes, (float(size[0]), float(size[1])))  # type: ignore[arg-type]
    for rank, (image, point, at, spot) in enumerate(zip(images, points, places, spots, strict=True), 1):
        middle = (spot.x + spot.width / 2 - at[0], spot.y + (spot.height + _RANK) / 2 - at[1])
        axes.add_artist(
            AnnotationBbox(
                OffsetImage(np.asarray(image), zoom=_fit(image, side), resample=True), tuple(point), xybox=middle,
                boxcoords="offset points", frameon=False, pad=0,
                arrowprops={"arrowstyle": "-", "color": COLOUR["ours"], "linewidth": 0.8, "shrinkA": 0, "shrinkB": 2},
            )
        )  # fmt: skip
        name = (spot.x + 3 - at[0], spot.y + _RANK - 2 - at[1])
        axes.annotate(
            str(rank), point, name, textcoords="offset points", color=COLOUR["ours"], fontweight="bold", va="top"
        )


_RANK = 14.0
"""Points of a rank below its picture."""


def _fit(image: Image.Image, side: int) -> float:
    return side / max(image.size)
