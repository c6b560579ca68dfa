"""``fewer demo adapt``: drawn heads in two simulated modalities, with and without adaptation, and a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.display import Told
from fewer.core.files import atomic_write_text
from fewer.core.progress import Progress, Silent
from fewer.reports.page import Page, Picture, Section, Table, Tile, png_text
from fewer.tasks.folders import make_folder
from fewer.tasks.segment.adapt import adapt
from fewer.tasks.segment.adapt_page import case_dices, interval
from fewer.tasks.segment.adapt_settings import AdaptSettings
from fewer.tasks.segment.adapted import AdaptedRun
from fewer.tasks.segment.dataset import open_data
from fewer.tasks.segment.inference import predict_mask
from fewer.tasks.segment.modalities import SEQUENCES, phantom, write_domain
from fewer.tasks.segment.overlay import overlay, side_by_side
from fewer.tasks.segment.reading import read_case

__all__ = ["AdaptDemo", "Rows", "demo", "write_heads"]

COUNTS = {"source": 10, "target": 8, "test": 6}
RUNS: Mapping[str, Mapping[str, Any]] = {
    "source-only": {"method": "source-only"},
    "ours": {},
    "contrasts": {"method": "contrasts"},
    "contrasts without structures": {"method": "contrasts", "without": ("structures",)},
    "contrasts without pseudo-labels": {"method": "contrasts", "without": ("pseudo-labels",)},
    "target-oracle": {"method": "target-oracle"},
}
"""Rows of the page: both ends of the scale, the default, and one of its networks alone with a module off."""
SHOWN = ("source-only", "ours", "target-oracle")
"""Rows whose predictions are drawn."""


@dataclass(frozen=True)
class Rows:
    """What a demo compares: a name and settings for each row, those that are drawn, and words about them."""

    runs: Mapping[str, Mapping[str, Any]]
    shown: tuple[str, ...]
    title: str
    words: tuple[str, ...] = ()


OURS = Rows(
    RUNS,
    SHOWN,
    "Scores, and one network with a module off",
    (
        "ours has three times the steps of the others, since it trains several networks; its own page "
        "(ours/report.html) shows what each of them had.",
    ),
)


@dataclass(frozen=True, repr=False)
class AdaptDemo(Told):
    """What the demo made.

    Attributes
    ----------
    page
        The page that compares.
    dice
        Mean Dice on the test scans for each method.
    """

    page: Path
    dice: dict[str, float]

    def lines(self) -> list[str]:
        """The scores, and where the page is."""
        told = ", ".join(f"{name} {value:.3f}" for name, value in self.dice.items())
        return [f"Dice on scans of the simulated target: {told}", f"see {self.page}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"page": str(self.page), "dice": self.dice, "simulated": True}


def demo(
    out: str | Path,
    *,
    steps: int = 400,
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "",
    rows: Rows | None = None,
) -> AdaptDemo:
    """Draw T1-like and T2-like heads, train with and without adaptation, and compare on T2-like heads.

    The oracle alone uses the masks of the T2-like scans.

    Anatomy and contrast are simulated; real label maps can take the place of the drawn ones, see
    :func:`fewer.tasks.segment.modalities.write_domain`. Runs of an
    earlier demo in the same folder are replaced. ``rows`` says what is compared, and in which words.
    """
    rows = rows or OURS
    root, shown = make_folder(out), progress or Silent()
    write_heads(root, seed)
    runs: dict[str, AdaptedRun] = {}
    for name, chosen in rows.runs.items():
        many = 3 * steps if name == "ours" else steps  # it trains several networks, which share them
        settings = AdaptSettings.of({"steps": many, "every": max(1, steps // 4), "seed": seed} | dict(chosen))
        runs[name] = adapt(
            root / "source", root / "target", out=root / name.replace(" ", "-"), settings=settings, test=root / "test",
            overwrite=True, progress=shown, command=command,
        )  # fmt: skip
    page = root / "report.html"
    made = _page(root, runs, command, rows)
    atomic_write_text(page.with_suffix(".json"), made.to_json())  # the page says that it stands there
    atomic_write_text(page, made.to_html())
    return AdaptDemo(page, {name: float(np.mean(_dices(run))) for name, run in runs.items()})


def write_heads(folder: str | Path, seed: int = 0) -> Path:
    """Draw simulated heads: ``source/`` (T1-like), ``target/`` (T2-like) and ``test/`` (T2-like), all with masks.

    Adaptation never opens the masks of the target; those of the test are for scores alone.
    """
    root = Path(folder)
    for number, (part, count) in enumerate(COUNTS.items()):
        rng = np.random.default_rng([seed, number])
        maps = {f"head{index:02d}": phantom(rng) for index in range(count)}
        sequence = SEQUENCES["t1" if part == "source" else "t2"]
        write_domain(root / part, maps, sequence, seed + number)
    return root


def _dices(run: AdaptedRun) -> list[float]:
    assert run.evaluation is not None
    return list(case_dices(run.evaluation).values())


def _page(root: Path, runs: dict[str, AdaptedRun], command: str, compared: Rows) -> Page:
    tiles, rows, pictures = [], [], []
    for name, run in runs.items():
        assert run.evaluation is not None
        dices, total = _dices(run), run.evaluation.overall
        low, high = interval(dices)
        if name in compared.shown:
            tiles.append(Tile(name=f"Dice, {name}", value=f"{np.mean(dices):.3f}", note=f"{low:.3f} to {high:.3f}"))
        rows.append(
            [
                name,
                f"{np.mean(dices):.3f}",
                f"{low:.3f} to {high:.3f}",
                str(total.missed),
                str(total.spurious),
                f"{total.assd or 0:.2f}",
            ]
        )
    data = open_data(root / "test")
    for case in data.cases:
        sample = read_case(data, case)
        assert sample.mask is not None
        guesses = [predict_mask(runs[n].model, sample, runs[n].plan.domains.preparation) for n in compared.shown]
        panels = [overlay(sample.image, mask, side=200) for mask in (sample.mask, *guesses)]
        pictures.append(Picture(caption=f"reference; {'; '.join(compared.shown)}", png=png_text(side_by_side(panels))))
    head = ["method", "Dice", "interval over scans", "missed", "spurious", "ASSD, found (mm)"]
    words = ["Simulated heads: trained on T1-like scans with masks, tested on T2-like scans of other heads."]
    return Page(
        title="From T1-like to T2-like heads, without a mask of the second kind",
        badge="Adapted",
        sentence=words[0],
        tiles=tiles,
        sections=[
            Section(
                name="scores",
                title=compared.title,
                tables=[Table(head=head, rows=rows)],
                words=["One seed and six scans: differences within the intervals say nothing.", *compared.words],
            ),
            Section(
                name="examples", title="Side by side", pictures=pictures, words=words, wide=len(compared.shown) > 3
            ),
            Section(name="reproduce", title="How to get these numbers again", command=command),
        ],
        data={name: run.to_dict() for name, run in runs.items()},
    )
