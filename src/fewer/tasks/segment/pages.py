"""The pages of a training and of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fewer.core.stamp import environment
from fewer.reports.numbers import duration
from fewer.reports.page import Chart, Dots, Page, Picture, Section, Series, Strip, Table, Tile, png_text
from fewer.tasks.segment.dataset import SegmentData
from fewer.tasks.segment.evaluation import POLICY, Evaluation
from fewer.tasks.segment.inference import predict_mask
from fewer.tasks.segment.overlay import compared, legend
from fewer.tasks.segment.reading import read_case
from fewer.training.history import steps_done

if TYPE_CHECKING:
    from fewer.tasks.segment.trained import TrainedRun, TrainingPlan

__all__ = ["case_strips", "evaluation_page", "examples", "training_page"]

SHOWN = 8
"""Cases in the gallery."""
LISTED = 20
"""Rows of the table of what went wrong."""
ROWS = 12
"""Structures in the strip plot."""


def training_page(plan: TrainingPlan, run: TrainedRun, command: str) -> Page:
    """The page of a training: scores on the cases that judged, learning curve, examples, how to do it again."""
    sections = []
    if run.evaluation is not None:
        cases = [plan.data.case(name) for name in plan.split.val]
        sections += _scores(run.evaluation)
        sections.append(
            examples(
                plan.data,
                [c.name for c in cases],
                run.evaluation,
                lambda s: predict_mask(run.model, s, run.preparation),
            )
        )
    sections.append(_curves(run))
    settings: dict[str, Any] = {
        k: ", ".join(map(str, v)) if isinstance(v, (list, tuple)) else v for k, v in run.settings.model_dump().items()
    }
    facts = {"Settings": settings, "Environment": dict(environment())}
    sections.append(Section(name="reproduce", title="How to get these numbers again", command=command, facts=facts))
    limits = [
        "The weights are those of the best validation, so the scores above are a little too good; other cases decide.",
        "One fold and one seed: repeat with other values of --fold and --seed before you compare methods.",
    ]
    if run.evaluation is None:
        limits = ["No case was kept apart: nothing is known of how good the network is."]
    sections.append(Section(name="limits", title="What this does not show", points=limits))
    steps = steps_done(run.history)
    best = f"best at step {run.best_step} of {steps}" if run.evaluation else f"{steps} steps"
    took = sum(run.timings.values())
    tiles = _tiles(run.evaluation) if run.evaluation else []
    tiles.append(Tile(name="Training", value=duration(took), note=best))
    return Page(
        title=f"{plan.data.root.name}: {plan.network.name}",
        badge="Trained",
        good=run.evaluation is None or _overlaps(run.evaluation),
        sentence=_sentence(run.evaluation) if run.evaluation else "Trained on all cases; none was kept apart to judge.",
        note=POLICY if run.evaluation else "",
        tiles=tiles,
        sections=sections,
        data={
            "history": run.history,
            "warm_up": run.warm_up,
            "best_step": run.best_step,
            "timings": run.timings,
            "train": list(plan.split.train),
            "val": list(plan.split.val),
            "memory": plan.sentence,
            "evaluation": run.evaluation.to_dict() if run.evaluation else None,
        },
    )


def evaluation_page(title: str, result: Evaluation, gallery: Section | None, command: str) -> Page:
    """The page of an evaluation."""
    sections = _scores(result) + ([gallery] if gallery is not None else [])
    sections.append(
        Section(
            name="reproduce",
            title="How to get these numbers again",
            command=command,
            facts={"Environment": dict(environment())},
        )
    )
    return Page(
        title=title,
        badge="Evaluated",
        good=_overlaps(result),
        sentence=_sentence(result),
        note=POLICY,
        tiles=_tiles(result),
        sections=sections,
        data={"evaluation": result.to_dict()},
    )


def _overlaps(result: Evaluation) -> bool:
    """Whether the masks overlap more than they miss: below a Dice of a half no page should look like a success."""
    return result.overall.dice_all is None or result.overall.dice_all >= 0.5


def _sentence(result: Evaluation) -> str:
    total = result.overall
    present = total.found + total.missed + total.spurious
    if not present:
        return f"None of the {result.cases} cases has a structure, and none was predicted."
    told = f"{total.found} of {total.references} structures in {result.cases} cases were found"
    told += f", with a mean Dice of {total.dice:.3f}" if total.dice is not None else ""
    parts = [f"{n} {word}" for n, word in ((total.missed, "missed"), (total.spurious, "spurious")) if n]
    return f"{told}; {' and '.join(parts) if parts else 'none missed, none spurious'}."


def _tiles(result: Evaluation) -> list[Tile]:
    total = result.overall
    found = f"over {total.found} found structures"
    wrong = f"{total.missed} missed, {total.spurious} spurious"
    tiles = [Tile(name="Missed", value=str(total.missed), note="structures", state="bad" if total.missed else "good")]
    state = "bad" if total.spurious else "good"
    tiles.append(Tile(name="Spurious", value=str(total.spurious), note="structures", state=state))
    values = [
        ("Dice, found", total.dice, 3, found),
        ("Dice, all", total.dice_all, 3, wrong),
        (f"HD95, found ({result.unit})", total.hd95, 2, f"{found}; {wrong}"),
        (f"ASSD, found ({result.unit})", total.assd, 2, f"{found}; {wrong}"),
    ]
    tiles += [Tile(name=n, value=f"{v:.{d}f}" if v is not None else "-", note=note) for n, v, d, note in values]
    return tiles


def _scores(result: Evaluation) -> list[Section]:
    head, rows = result.rows()
    worst = []
    for score in result.worst[:LISTED]:
        numbers = [score.dice, score.hd95, score.assd]
        shown = ["-" if value is None else f"{value:.3f}" for value in numbers]
        worst.append([score.case, score.structure, score.status, *shown])
    names = ["case", "structure", "status", "Dice", f"HD95 ({result.unit})", f"ASSD ({result.unit})"]
    told = [result.about_missing] if result.about_missing else []
    tables, strips = [Table(head=head, rows=rows)], case_strips(result)
    sections = [Section(name="scores", title="Scores", tables=tables, words=told, strips=strips)]
    if worst:
        sections.append(Section(name="worst", title="The worst first", tables=[Table(head=names, rows=worst)]))
    return sections


def case_strips(result: Evaluation) -> list[Strip]:
    """Dice of each case as a dot, a row for each structure; a structure in neither mask has none.

    Means hide what a strip shows: one network that is fair everywhere, and one that is good but misses a case in ten,
    have the same.
    """
    rows = []
    for summary in result.structures:
        scores = [s for s in result.scores if s.structure == summary.structure and s.status != "absent"]
        rows.append(
            Dots(
                label=f"{summary.structure} ({len(scores)} cases)"
                if len(scores) != 1
                else f"{summary.structure} (1 case)",
                names=[score.case for score in scores],
                values=[score.dice or 0.0 for score in scores],
                missing=[score.status != "found" for score in scores],
            )
        )
    rows = [row for row in rows if row.values][:ROWS]
    title = "Dice of every case" + (f", the first {ROWS} structures" if len(result.structures) > ROWS else "")
    return [Strip(title=title, x="Dice", missing="missed or spurious: counts as 0", rows=rows)] if rows else []


def _curves(run: TrainedRun) -> Section:
    steps = [entry["step"] for entry in run.history]
    loss = Series(label="loss", x=steps, y=[entry["loss"] for entry in run.history])
    charts = [Chart(title="Training loss", x="step", y="mean loss since the last point", series=[loss])]
    judged = [entry for entry in run.history if "score" in entry]
    if judged:
        dice = Series(label="Dice", x=[e["step"] for e in judged], y=[e["score"] for e in judged])
        title = "Dice of the cases that judge, pooled; the dashed line is the step whose weights were kept"
        charts.insert(0, Chart(title=title, x="step", y="pooled Dice", series=[dice], mark=float(run.best_step)))
    if run.warm_up:
        warm = Series(label="loss", x=[e["step"] for e in run.warm_up], y=[e["loss"] for e in run.warm_up])
        title = f"Warm-up by {run.settings.warm_up}"
        charts.append(Chart(title=title, x="step", y="mean loss since the last point", series=[warm]))
    return Section(name="learning", title="Learning curve", charts=charts)


def examples(
    data: SegmentData, names: Sequence[str], result: Evaluation, predict: Callable[[Any], np.ndarray]
) -> Section:
    """Image, reference and prediction of some cases: the worst half and the best half of what is shown."""
    order = list(dict.fromkeys(score.case for score in result.worst))
    order += [name for name in names if name not in order]
    chosen = order if len(order) <= SHOWN else [*order[: SHOWN // 2], *order[-SHOWN // 2 :]]
    pictures = []
    for name in chosen:
        sample = read_case(data, data.case(name))
        assert sample.mask is not None
        pixels = compared(sample.image, predict(sample), sample.mask)
        scores = [score for score in result.scores if score.case == name and score.status != "absent"]
        told = "; ".join(
            f"{s.structure} {s.status}" + (f", Dice {s.dice:.3f}" if s.dice is not None else "") for s in scores
        )
        pictures.append(Picture(caption=f"{name}: {told or 'nothing there, nothing predicted'}", png=png_text(pixels)))
    words = ["Image, reference and prediction, from left to right. The worst cases come first."]
    colours = legend([summary.structure for summary in result.structures])
    return Section(name="examples", title="Examples", words=words, pictures=pictures, colours=colours, wide=True)
