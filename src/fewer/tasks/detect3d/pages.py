"""Pages of a training and of an evaluation, with bird's-eye views, the worst scan first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewer.core.stamp import environment
from fewer.reports.numbers import duration
from fewer.reports.page import Chart, Page, Picture, Section, Series, Table, Tile, png_text
from fewer.tasks.detect3d.bird import FOUND, OTHER, TRUTH, bird_view, side_by_side
from fewer.tasks.detect3d.dataset import DetectionData
from fewer.tasks.detect3d.evaluation import DetectionScores
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.metrics.bands import count_bands
from fewer.tasks.detect3d.scoring import detect_all
from fewer.tasks.detect3d.trained import TrainedDetector

__all__ = ["bird_section", "compare_page", "evaluation_page", "training_page"]

SHOWN = 6
"""Scans in the gallery."""


def _wrong(truth: Objects, found: Objects, classes: Sequence[str], score: float) -> int:
    return sum(b.missed + b.spurious for name in classes for b in count_bands([truth], [found], name, score=score))


def _shown(objects: Objects, score: float) -> Objects:
    return objects if objects.scores is None else objects.take(objects.scores >= score)


def bird_section(
    data: DetectionData,
    found: Mapping[str, Objects],
    classes: Sequence[str],
    reach: Sequence[float],
    *,
    other: Mapping[str, Objects] | None = None,
    score: float = 0.3,
) -> Section:
    """Scans from above: annotated and detected boxes; with a second detector, both side by side.

    The scans with most missed and spurious boxes come first; of two detectors, those that disagree most.
    """
    order = {}
    for name in found:
        truth = data.objects(name)
        order[name] = _wrong(truth, found[name], classes, score)
        if other is not None:
            order[name] = _wrong(_shown(found[name], score), other[name], classes, score) * 1000 + order[name]
    pictures = []
    for name in sorted(order, key=lambda n: -order[n])[:SHOWN]:
        points, truth = data.points(name), data.objects(name)
        views = []
        for boxes, colour in ((found, FOUND), (other, OTHER)):
            if boxes is not None:
                shown = _shown(boxes[name], score)
                views.append(bird_view(points, [(truth, TRUTH), (shown, colour)], reach))
        told = f"{name}: {_wrong(truth, found[name], classes, score)} missed or spurious"
        if other is not None:
            told += f" dense, {_wrong(truth, other[name], classes, score)} compressed"
        pictures.append(Picture(caption=told, png=png_text(side_by_side(views))))
    words = [
        "White: annotated. Green: detected"
        + (" by the dense network; orange: by the compressed one." if other else ".")
    ]
    words.append("What is ahead of the sensor is up; a line points to the front of a box. The worst scan comes first.")
    return Section(name="birds-eye", title="From above", words=words, pictures=pictures)


def _tables(scores: DetectionScores) -> list[Table]:
    head = ["class", "place", "overlap", "difficulty", "AP R40", "AP R11", "objects"]
    rows = [
        [
            r["class"],
            "in space" if r["metric"] == "3d" else "from above",
            f"{r['overlap']:g}",
            r["difficulty"],
            f"{r['R40']:.2f}",
            f"{r['R11']:.2f}",
            f"{r['objects']:.0f}",
        ]
        for r in scores.rows
    ]
    bands = [
        [name, b.name, str(b.objects), str(b.found), str(b.missed), str(b.spurious)]
        for name, some in scores.bands.items()
        for b in some
    ]
    other = [[name, f"{value:.3f}"] for name, value in scores.other.items()]
    return [
        Table(title="Average precision by the rules of KITTI, percent", head=head, rows=rows),
        Table(
            title=f"Missed and spurious by distance, at confidence {scores.score:g}",
            head=["class", "distance", "objects", "found", "missed", "spurious"],
            rows=bands,
        ),
        Table(title="Other rules", head=["score", "value"], rows=other),
    ]


def _tiles(scores: DetectionScores) -> list[Tile]:
    tiles = []
    for name, bands in scores.bands.items():
        value = scores.ap(name)
        if value is not None:
            missed, spurious = sum(b.missed for b in bands), sum(b.spurious for b in bands)
            note = f"moderate, R40; {missed} missed, {spurious} spurious of {sum(b.objects for b in bands)}"
            tiles.append(Tile(name=f"AP {name}", value=f"{value:.1f}", note=note))
    return tiles


def _sentence(scores: DetectionScores) -> str:
    told = [f"{name} {value:.1f}" for name in scores.bands if (value := scores.ap(name)) is not None]
    return f"Average precision on {scores.scans} scans (moderate, 40 recalls): {', '.join(told) or 'no object counts'}."


def _again(command: str, settings: Mapping[str, Any] | None = None) -> Section:
    facts: dict[str, Any] = {"Environment": dict(environment())}
    if settings is not None:
        facts["Settings"] = {
            k: ", ".join(map(str, v)) if isinstance(v, (list, tuple)) else v for k, v in settings.items()
        }
    return Section(name="reproduce", title="How to get these numbers again", command=command, facts=facts)


def training_page(run: TrainedDetector, command: str) -> Page:
    """The page of a training."""
    plan, scores, sections = run.plan, run.scores, []
    if scores is not None:
        sections.append(Section(name="scores", title="Scores", tables=_tables(scores)))
        names = plan.val[:: max(1, len(plan.val) // 24)]
        found, _ = detect_all(run.model, plan.data, names)
        sections.append(bird_section(plan.data, found, plan.config.classes, plan.config.reach))
    # a detector that came trained is judged before its first step, where there is no loss yet
    learnt = [entry for entry in run.history if "loss" in entry]
    charts = [
        Chart(
            title="Training loss",
            x="step",
            y="mean loss since the last point",
            series=[Series(label="loss", x=[e["step"] for e in learnt], y=[e["loss"] for e in learnt])],
        )
    ]
    judged = [e for e in run.history if "score" in e]
    if judged:
        series = Series(label="AP", x=[e["step"] for e in judged], y=[e["score"] for e in judged])
        charts.append(
            Chart(
                title=f"Mean AP of {', '.join(plan.config.classes)} on scans that judge",
                x="step",
                y="percent",
                series=[series],
                mark=float(run.best_step),
            )
        )
    sections.append(Section(name="learning", title="Learning curve", charts=charts))
    sections.append(_again(command, run.settings.model_dump()))
    points = ["The weights are those of the best validation, so the scores above are a little too good."]
    if (plan.data.root / "SIMULATED.txt").exists():
        points.append("The scans are simulated: these numbers say nothing about real roads.")
    sections.append(Section(name="limits", title="What this does not show", points=points))
    tiles = [*(_tiles(scores) if scores else []), Tile(name="Training", value=duration(run.seconds))]
    data: dict[str, Any] = {"history": run.history, "train": list(plan.train), "val": list(plan.val)}
    data |= {"scores": scores.to_dict() if scores else None}
    return Page(
        title=f"{plan.data.root.name}: {plan.config.network}",
        badge="Trained",
        sentence=_sentence(scores) if scores else "No scan was kept apart to judge.",
        note=scores.note if scores else "",
        tiles=tiles,
        sections=sections,
        data=data,
    )


def evaluation_page(title: str, scores: DetectionScores, birds: Section | None, command: str) -> Page:
    """The page of an evaluation."""
    sections = [
        Section(name="scores", title="Scores", tables=_tables(scores)),
        *([birds] if birds else []),
        _again(command),
    ]
    return Page(
        title=title,
        badge="Evaluated",
        sentence=_sentence(scores),
        note=scores.note,
        tiles=_tiles(scores),
        sections=sections,
        data={"scores": scores.to_dict()},
    )


def compare_page(
    title: str,
    dense: DetectionScores,
    after: DetectionScores,
    cost: str,
    birds: Section,
    command: str,
    first: Sequence[Section] = (),
) -> Page:
    """The page of a dense and a compressed detector on the same scans; ``first`` stands above all."""
    head = ["class", "AP dense", "AP compressed", "missed dense", "missed", "spurious dense", "spurious"]
    rows = []
    for name in dense.bands:
        a, b = dense.ap(name), after.ap(name)
        counts = [
            str(sum(getattr(x, kind) for x in scores.bands[name]))
            for kind in ("missed", "spurious")
            for scores in (dense, after)
        ]
        rows.append([name, "-" if a is None else f"{a:.2f}", "-" if b is None else f"{b:.2f}", *counts])
    before, now = (scores.measures().get("mAP", 0.0) for scores in (dense, after))
    sections = [
        *first,
        Section(name="before-after", title="Before and after", tables=[Table(head=head, rows=rows)]),
        Section(name="scores", title="Scores of the compressed detector", tables=_tables(after)),
        birds,
        _again(command),
    ]
    change = now - before
    return Page(
        title=title,
        badge="Compressed",
        good=bool(np.abs(change) < 2 or change > 0),
        sentence=f"{cost}; mAP {before:.1f} dense, {now:.1f} compressed, on {dense.scans} scans.",
        note=after.note,
        tiles=[
            Tile(name="mAP dense", value=f"{before:.1f}"),
            Tile(name="mAP compressed", value=f"{now:.1f}"),
            *_tiles(after),
        ],
        sections=sections,
        data={"dense": dense.to_dict(), "compressed": after.to_dict()},
    )
