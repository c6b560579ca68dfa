"""``fewer demo select``: which real digits should be labelled first, by several methods, and a page that compares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.display import Told
from fewer.core.files import atomic_write_text, explain_os_error
from fewer.core.progress import Progress, Silent
from fewer.data.digits import real_digits
from fewer.reports.page import Chart, Page, Picture, Section, Series, Table, Tile, png_text
from fewer.selection.methods import choose
from fewer.selection.pool import Pool
from fewer.selection.uncertainty import probe_predictions

__all__ = ["METHODS", "SelectDemo", "demo"]

METHODS = ("random", "saal", "saal-corrected", "typiclust", "coverage")
BUDGETS = (10, 20, 40)
SHOWN = 20
"""The budget that the tiles and the sentence are about."""
ENLARGED = 6
"""Pixels of the page for each pixel of a digit."""


@dataclass(frozen=True, repr=False)
class SelectDemo(Told):
    """What the demo made.

    Attributes
    ----------
    page
        The page that compares.
    accuracy
        Share of other digits that are right after 20 labels, mean over draws, for each method.
    """

    page: Path
    accuracy: dict[str, float]

    def lines(self) -> list[str]:
        """The accuracies, where the page is, and what to do next."""
        told = "; ".join(f"{name} {value:.1%}" for name, value in self.accuracy.items())
        return [
            f"digits right after {SHOWN} labels: {told}",
            f"see {self.page}",
            f"Now with images of your own:  fewer select PHOTOS/ --budget labels={SHOWN} --out queue/",
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"page": str(self.page), "labels": SHOWN, "accuracy": self.accuracy}


def demo(
    out: str | Path,
    *,
    draws: int = 20,
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "fewer demo select",
) -> SelectDemo:
    """Choose among 1,297 real digits without a label, train a probe on the chosen ones, judge it on 500 others.

    A digit is its 64 pixels; the probe is a logistic regression. Offline, and well under a minute.

    Parameters
    ----------
    out
        Folder for the page ``demo.html`` and its numbers.
    draws
        Splits of the digits into a pool and those that judge; all methods see the same ones.
    seed
        Of the first draw.

    Raises
    ------
    FewerError
        When scikit-learn, which brings the digits, is not installed, or the folder cannot be written.
    """
    root = Path(out)
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, root, "make the folder") from None
    found: dict[tuple[str, int], list[float]] = {(m, b): [] for b in BUDGETS for m in METHODS}
    kinds: dict[str, list[int]] = {name: [] for name in METHODS}
    pictures: list[Picture] = []
    with (progress or Silent()).stage("choose and judge", total=draws) as stage:
        for draw in range(seed, seed + draws):
            (images, labels), judges = real_digits(draw)
            pool = Pool(images.reshape(len(images), -1))
            for name, budget in found:
                rows = choose(pool, name, budget, draw).rows
                found[name, budget].append(_right(pool.features, labels, rows, judges, draw))
                if budget == SHOWN:
                    kinds[name].append(len(np.unique(labels[rows])))
                    if draw == seed:
                        pictures.append(Picture(caption=name, png=png_text(_sheet(images[rows, 0]))))
            stage.advance()
    page = _page(found, kinds, pictures, command)
    atomic_write_text(root / "demo.json", page.to_json())
    means = {name: float(np.mean(found[name, SHOWN])) for name in METHODS}
    return SelectDemo(atomic_write_text(root / "demo.html", page.to_html()), means)


def _right(
    features: np.ndarray, labels: np.ndarray, rows: np.ndarray, judges: tuple[np.ndarray, np.ndarray], seed: int
) -> float:
    """Share of the judging digits that a probe trained on the chosen rows gets right."""
    known = labels[rows]
    if len(np.unique(known)) < 2:  # nothing to tell apart: the one digit is always said
        return float(np.mean(judges[1] == known[0]))
    images = judges[0].reshape(len(judges[0]), -1)
    every = np.concatenate([features[rows], images])
    said = probe_predictions(every, np.arange(len(rows)), known, members=1, seed=seed)[0, len(rows) :]
    return float(np.mean(np.unique(known)[said.argmax(1)] == judges[1]))


def _sheet(images: np.ndarray) -> np.ndarray:
    """Digits beside each other as colours, dark on light, with a margin."""
    framed = np.pad(1 - images, ((0, 0), (1, 1), (1, 1)), constant_values=0.9)
    half = (len(framed) + 1) // 2  # two rows, so that a digit is large enough on a phone
    framed = np.pad(framed, ((0, 2 * half - len(framed)), (0, 0), (0, 0)), constant_values=1)
    sheet = np.concatenate([np.concatenate(list(part), 1) for part in (framed[:half], framed[half:])])
    large = sheet.repeat(ENLARGED, 0).repeat(ENLARGED, 1)
    return np.rint(255 * np.clip(large, 0, 1)).astype(np.uint8)[..., None].repeat(3, 2)


def _interval(values: np.ndarray, times: int = 2000) -> tuple[float, float]:
    """A 95 % bootstrap interval of the mean."""
    drawn = np.random.default_rng(0).choice(values, (times, len(values))).mean(1)
    low, high = np.percentile(drawn, (2.5, 97.5))
    return float(low), float(high)


def _page(
    found: dict[tuple[str, int], list[float]], kinds: dict[str, list[int]], pictures: list[Picture], command: str
) -> Page:
    mean = {key: float(np.mean(values)) for key, values in found.items()}
    rows = []
    for name in METHODS:
        gain = np.array(found[name, SHOWN]) - np.array(found["random", SHOWN])
        ends = _interval(gain)
        rows.append(
            [
                name,
                *(f"{mean[name, budget]:.3f}" for budget in BUDGETS),
                "" if name == "random" else f"{ends[0]:+.3f} to {ends[1]:+.3f}",
                f"{np.mean(kinds[name]):.1f}",
            ]
        )
    best = max(METHODS, key=lambda name: mean[name, SHOWN])
    sentence = (
        f"With {SHOWN} labels, {mean['random', SHOWN]:.1%} of other digits are right after a random choice, "
        f"{mean['coverage', SHOWN]:.1%} after the default, {mean['saal', SHOWN]:.1%} after SAAL as published and "
        f"{mean['saal-corrected', SHOWN]:.1%} after SAAL with its features put right."
    )
    draws = len(found["random", SHOWN])
    chart = Chart(
        title="Accuracy against labels",
        x="labels",
        y="accuracy on other digits",
        series=[Series(label=n, x=list(BUDGETS), y=[mean[n, b] for b in BUDGETS]) for n in METHODS],
    )
    head = ["method", *(f"{b} labels" for b in BUDGETS), f"gain over random at {SHOWN}, 95 %", f"digits met at {SHOWN}"]
    return Page(
        title="Which images should be labelled first?",
        badge="Chosen",
        sentence=sentence,
        tiles=[Tile(name=f"accuracy, {name}", value=f"{mean[name, SHOWN]:.3f}") for name in METHODS],
        sections=[
            Section(
                name="scores",
                title=f"Accuracy; the best with {SHOWN} labels is {best}",
                tables=[Table(head=head, rows=rows)],
                charts=[chart],
                words=[f"Means of {draws} draws of the pool. The interval is of the difference over draws."],
            ),
            Section(
                name="chosen", title=f"The first {SHOWN} digits that each method asks for", pictures=pictures, wide=True
            ),
            Section(
                name="limits",
                title="What this does not show",
                points=[
                    "Here a digit is its pixels; fewer select takes features of a network, and ranks may differ.",
                    "SAAL as published mixes up the rows of its features, so it chooses others than it meant to.",
                ],
            ),
            Section(name="reproduce", title="How to get these numbers again", command=command),
        ],
        data={f"{name}, {budget}": values for (name, budget), values in found.items()},
    )
