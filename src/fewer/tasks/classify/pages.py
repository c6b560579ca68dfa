"""The pages of a training and of an evaluation of a classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fewer.core.stamp import environment
from fewer.reports.numbers import duration
from fewer.reports.page import Chart, Page, Picture, Section, Series, Table, Tile, png_text
from fewer.tasks.classify.dataset import ClassifyData
from fewer.tasks.classify.evaluation import POLICY, Evaluation
from fewer.training.history import steps_done

if TYPE_CHECKING:
    from fewer.tasks.classify.trained import TrainedRun

__all__ = ["evaluation_page", "training_page"]

SHOWN = 12
"""Wrong images in the gallery."""
SIDE = 128
LISTED = 30
LINES = 6
"""Layers in a chart."""


def evaluation_page(title: str, result: Evaluation, data: ClassifyData, command: str) -> Page:
    """The page of an evaluation: numbers with intervals, classes, confusions, and the surest mistakes."""
    return Page(
        title=title,
        badge="Evaluated",
        good=not result.doubt,
        sentence=_sentence(result),
        note=POLICY,
        tiles=_tiles(result),
        sections=[*_sections(result, data), _again(command, {})],
        data={"evaluation": result.to_dict()},
    )


def training_page(run: TrainedRun, data: ClassifyData, command: str) -> Page:
    """The page of a training: scores of the images that judged, learning curve, how to do it again."""
    sections = [] if run.evaluation is None else _sections(run.evaluation, data)
    sections += [_curves(run), *_few_bits(run), _again(command, run.settings.model_dump(mode="json"))]
    told = (
        "The weights are those of the best validation, so the scores above are a little too good; other images decide."
    )
    if run.evaluation is None:
        told = "No image was kept apart: nothing is known of how good the network is."
    sections.append(Section(name="limits", title="What this does not show", points=[told, "One seed.", *run.unread()]))
    tiles = _tiles(run.evaluation) if run.evaluation is not None else []
    took = sum(run.timings.values())
    tiles.append(
        Tile(
            name="Training",
            value=duration(took),
            note=f"{steps_done(run.history)} steps, {1e3 * run.step_seconds:.3g} ms each",
        )
    )
    return Page(
        title=f"{data.root.name}: {run.network}",
        badge="Trained",
        sentence=_sentence(run.evaluation) if run.evaluation is not None else "Trained on all images.",
        note=POLICY if run.evaluation is not None else "",
        tiles=tiles,
        sections=sections,
        data={"history": run.history, "timings": run.timings, "step_seconds": run.step_seconds, **run.to_dict()},
    )


def _sentence(result: Evaluation) -> str:
    if result.doubt:
        return f"Check the classes: {result.doubt}."
    low, high = result.intervals()["top-1 accuracy"]
    right = int((result.rank == 0).sum())
    return f"{right} of {len(result)} images were classified rightly: {result.top1:.1%} ({low:.1%} to {high:.1%})."


def _tiles(result: Evaluation) -> list[Tile]:
    ends = result.intervals()
    tiles = []
    for name, value in result.measures().items():
        low, high = ends[name]
        tiles.append(Tile(name=name, value=f"{value:.3f}", note=f"95 %: {low:.3f} to {high:.3f}"))
    return [*tiles, Tile(name="Images", value=str(len(result)), note=f"{len(result.classes)} classes")]


def _sections(result: Evaluation, data: ClassifyData) -> list[Section]:
    head, rows = result.rows()
    scores = sorted(result.per_class(), key=lambda s: s.recall if s.recall is not None else 2.0)
    cells = [
        [s.name, str(s.images), *("-" if v is None else f"{v:.3f}" for v in (s.recall, s.precision))]
        for s in scores[:LISTED]
    ]
    title = "Classes, the worst first" + (f" ({LISTED} of {len(scores)})" if len(scores) > LISTED else "")
    tables = [Table(head=head, rows=rows)]
    tables.append(Table(title=title, head=["class", "images", "recall", "precision"], rows=cells))
    confused = [[f"{a} taken for {b}", str(n)] for a, b, n in result.confused()]
    if confused:
        tables.append(Table(title="What was confused most", head=["pair", "images"], rows=confused))
    found = [Section(name="scores", title="Scores", tables=tables)]
    pictures = _pictures(result, data)
    if pictures:
        words = ["Wrong guesses, those of the highest confidence first: odd labels are often among them."]
        found.append(Section(name="examples", title="The surest mistakes", words=words, pictures=pictures))
    return found


def _pictures(result: Evaluation, data: ClassifyData) -> list[Picture]:
    row_of = {name: i for i, name in enumerate(data.names)}
    shown = []
    for i in result.worst()[:SHOWN]:
        image = data.pictures[row_of[result.names[i]]]
        grey = image if image.mode in ("L", "RGB") else Image.fromarray(np.asarray(image).clip(0, 255).astype(np.uint8))
        picture = grey.convert("RGB")
        scale = SIDE / max(picture.size)
        way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        label, guess = result.classes[result.labels[i]], result.classes[result.guesses[i]]
        told = f"{result.names[i]}: {label}, taken for {guess} with {result.confidence[i]:.0%}"
        shown.append(Picture(caption=told, png=png_text(np.asarray(picture.resize(size, way)))))
    return shown


def _curves(run: TrainedRun) -> Section:
    steps = [entry["step"] for entry in run.history]
    loss = Series(label="loss", x=steps, y=[entry["loss"] for entry in run.history])
    charts = [Chart(title="Training loss", x="step", y="mean loss since the last point", series=[loss])]
    judged = [entry for entry in run.history if "score" in entry]
    if judged:
        score = Series(label="accuracy", x=[e["step"] for e in judged], y=[e["score"] for e in judged])
        title = "Accuracy of images that judge; the dashed line is the step whose weights were kept"
        mark = float(run.best_step)
        charts.insert(0, Chart(title=title, x="step", y="accuracy", series=[score], mark=mark))
    return Section(name="learning", title="Learning curve", charts=charts)


def _few_bits(run: TrainedRun) -> list[Section]:
    """Bits by layer, what stayed in floating point, and how far gradients were off, where there were few bits."""
    told = run.few_bits
    if not told:
        return []
    head = ["layer", "weights", "inputs", "gradients", "why not as asked"]
    rows = [[str(layer[k]) for k in ("name", "weights", "inputs", "gradients", "why")] for layer in told["layers"]]
    tables = [Table(title="Bits by layer", head=head, rows=rows)]
    if told.get("accuracy"):
        cells = [[name, f"{value:.3f}"] for name, value in told["accuracy"].items()]
        tables.append(Table(title="Accuracy", head=["model", "top-1 accuracy"], rows=cells))
    charts = []
    for key, title in (
        ("error", "Relative error of the error signal"),
        ("cosine", "Cosine of the weight's gradient with that in fp32"),
    ):
        lines: dict[str, tuple[list[float], list[float]]] = {}
        for entry in told["gradients"]:
            if key in entry:
                x, y = lines.setdefault(entry["layer"], ([], []))
                x.append(float(entry["step"]))
                y.append(float(entry[key]))
        names = list(lines)
        shown = names if len(names) <= LINES else [names[i * (len(names) - 1) // (LINES - 1)] for i in range(LINES)]
        series = [Series(label=name, x=lines[name][0], y=lines[name][1]) for name in shown]
        if series:
            charts.append(Chart(title=title, x="step", y=key, series=series))
    words = ["BatchNorm, element-wise operations, the loss and the optimiser are in floating point throughout."]
    if charts:
        words.append(f"Gradients of single steps against a backward pass in fp32, of at most {LINES} layers.")
    return [Section(name="bits", title="Few bits", words=words, tables=tables, charts=charts)]


def _again(command: str, settings: dict[str, Any]) -> Section:
    facts: dict[str, Any] = {"Settings": settings} if settings else {}
    facts["Environment"] = dict(environment())
    return Section(name="reproduce", title="How to get these numbers again", command=command, facts=facts)
