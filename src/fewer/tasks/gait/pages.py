"""Pages of gait recognition: curves, heat maps of views, matches with silhouettes, periods and phases."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from fewer.core.errors import FewerError
from fewer.reports.page import Chart, Page, Picture, Section, Series, Table, Tile, png_text
from fewer.tasks.gait.data.dataset import GaitData, as_input
from fewer.tasks.gait.networks import GaitNetwork
from fewer.tasks.gait.pictures import heat_map, strip
from fewer.tasks.gait.protocols.records import Walk
from fewer.tasks.gait.protocols.scores import Match, Scores

if TYPE_CHECKING:
    from fewer.tasks.gait.trained import TrainedGait

__all__ = ["evaluation_page", "match_picture", "matches_page", "training_page"]

_SHOWN = 6


def _tiles(scores: Scores) -> list[Tile]:
    return [Tile(name=name, value=f"{value:.1f} %") for name, value in scores.numbers.items() if np.isfinite(value)]


def _tables(scores: Scores) -> list[Table]:
    found = []
    for table in scores.tables:
        means = table.by_view()
        cells = [f"{100 * v:.1f}" if np.isfinite(v) else "" for v in means]
        rows = [[view, cell] for view, cell in zip(table.probe_views, cells, strict=True)]
        found.append(Table(title=f"{table.condition.upper()} by probe view", head=["view", "rank-1"], rows=rows))
    return found


def _score_section(scores: Scores) -> Section:
    charts = []
    if scores.curve:
        x = [float(k) for k in range(1, len(scores.curve) + 1)]
        series = [Series(label="probes found", x=x, y=[float(v) for v in scores.curve])]
        charts.append(Chart(title="Found within a rank", x="rank", y="percent", series=series))
    return Section(
        name="scores",
        title="Scores",
        words=[f"Protocol {scores.protocol}.", *scores.notes],
        tables=_tables(scores),
        charts=charts,
        pictures=[heat_map(table) for table in scores.tables if table.values.size > 1],
    )


def training_page(result: TrainedGait, command: str = "") -> Page:
    """The page of a training."""
    steps = [entry for entry in result.history if "loss" in entry]
    charts = []
    if steps:
        x = [float(entry["step"]) for entry in steps]
        losses = Series(label="loss", x=x, y=[float(entry["loss"]) for entry in steps])
        charts.append(Chart(title="Loss", x="step", y="loss", series=[losses]))
    judged = [entry for entry in result.history if "score" in entry]
    if judged:
        x, y = [float(e["step"]) for e in judged], [float(e["score"]) for e in judged]
        series = [Series(label="validation", x=x, y=y)]
        best = float(result.best_step)
        charts.append(Chart(title="Persons that choose", x="step", y="rank-1", series=series, mark=best))
    sections = [Section(name="training", title="Training", points=result.plan.lines(), charts=charts, command=command)]
    if result.scores is not None:
        sections.insert(0, _score_section(result.scores))
    told = f"rank-1 {result.scores.headline:.1f} %" if result.scores is not None else "not judged"
    data = result.to_dict() | {"history": result.history}
    data.pop("folder")
    return Page(
        title=result.plan.config.network,
        badge="Trained",
        sentence=f"{result.plan.config.network} on {result.plan.data.root.name}: {told}.",
        note=result.note,
        tiles=_tiles(result.scores) if result.scores is not None else [],
        sections=sections,
        data=data,
    )


class Strips:
    """Strips of sequences, each read once: one may be a video, and be the match of many."""

    def __init__(self) -> None:
        self._made: dict[Path, np.ndarray] = {}

    def of(self, data: GaitData, walk: Walk) -> np.ndarray:
        """The strip of a sequence."""
        place = data.places[walk]
        if place not in self._made:
            self._made[place] = strip(data.frames(walk))
        return self._made[place]


def match_picture(
    data: GaitData, match: Match, gallery: GaitData | None = None, strips: Strips | None = None
) -> Picture | None:
    """Probe above match, as strips of silhouettes; None where one cannot be read."""
    strips = strips or Strips()
    try:
        rows = [strips.of(data, match.probe), strips.of(gallery or data, match.found)]
    except (FewerError, KeyError):
        return None
    line = np.full((2, rows[0].shape[1], 3), 128, np.uint8)
    # a file of its own has a name and no person
    told = f" ({'right' if match.right else 'wrong'})" if match.probe.kind else ""
    caption = f"{match.probe} above, {match.found} below{told}; distance {match.distance:.3f}"
    return Picture(caption=caption, png=png_text(np.concatenate([rows[0], line, rows[1]])))


def rhythm_section(model: GaitNetwork, data: GaitData, walks: Sequence[Walk]) -> Section | None:
    """Period and phase over time of some sequences."""
    series, rows = [], []
    for walk in walks:
        try:
            x = torch.from_numpy(as_input(data.frames(walk)))[None]
        except FewerError:
            continue
        if x.shape[1] < 8:
            continue
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        with torch.no_grad():
            rhythm = model.rhythm(x.to(device))
        phase = np.mod(np.rad2deg(rhythm.phase(x.shape[1])[0].cpu().numpy()), 360)
        series.append(Series(label=str(walk), x=[float(t) for t in range(len(phase))], y=[float(v) for v in phase]))
        rows.append([str(walk), f"{rhythm.period.item():.1f}", f"{rhythm.strength.item():.2f}"])
    if not series:
        return None
    return Section(
        name="rhythm",
        title="Period and phase",
        words=["From how wide the legs stand, which repeats once a step (half a stride)."],
        tables=[Table(head=["sequence", "period, frames", "share of the movement in it"], rows=rows)],
        charts=[Chart(title="Phase over time", x="frame", y="degrees", series=series[:4])],
    )


def evaluation_page(
    title: str,
    scores: Scores,
    model: GaitNetwork,
    data: GaitData,
    skipped: Sequence[tuple[Walk, str]] = (),
    command: str = "",
) -> Page:
    """The page of an evaluation, wrong matches first."""
    sections = [_score_section(scores)]
    strips = Strips()
    shown = [match_picture(data, match, strips=strips) for match in scores.matches[:_SHOWN]]
    wrong = sum(not match.right for match in scores.matches)
    where = " in another view" if scores.tables else ""
    words = [f"{wrong} of {len(scores.matches)} probes have a wrong nearest match{where}; these come first."]
    sections.append(
        Section(name="matches", title="Matches", words=words, pictures=[p for p in shown if p], command=command)
    )
    walks = sorted({match.probe for match in scores.matches[:4]})
    rhythm = rhythm_section(model, data, walks)
    if rhythm is not None:
        sections.append(rhythm)
    if skipped:
        points = [f"{walk}: {reason}" for walk, reason in skipped]
        sections.append(Section(name="skipped", title="Left out", points=points))
    return Page(
        title=title,
        badge="Evaluated",
        sentence=f"{scores.lines()[0]}.",
        tiles=_tiles(scores),
        sections=sections,
        data=scores.to_dict(),
    )


def matches_page(
    title: str, ranked: Sequence[Sequence[Match]], data: GaitData, gallery: GaitData, pictures: bool = True
) -> Page:
    """The page of a prediction: who each sequence looks like."""
    rows = [
        [str(some[0].probe).strip("/"), *(f"{m.found.person} ({m.distance:.3f})" for m in some[:5])] for some in ranked
    ]
    width = max(len(row) for row in rows)
    head = ["sequence", *(f"match {k}" for k in range(1, width))]
    table = Table(head=head, rows=[row + [""] * (width - len(row)) for row in rows[:200]])
    strips = Strips()
    shown = [match_picture(data, some[0], gallery, strips) for some in ranked[:20]] if pictures else []
    words = ["A small distance means alike; how small is small enough depends on the network and the recordings."]
    section = Section(name="matches", title="Nearest", words=words, tables=[table], pictures=[p for p in shown if p])
    return Page(
        title=title,
        badge="Matched",
        sentence=f"{len(ranked)} sequences, each with its nearest of {len(gallery)} sequences of "
        f"{len(gallery.people)} persons.",
        sections=[section],
    )
