"""The page of an adaptation: images side by side, curves of every stage, scores with intervals, checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fewer.adaptation.problem import Problem
from fewer.adaptation.settings import MODULES, MODULES_OF
from fewer.core.stamp import environment
from fewer.reports.numbers import duration
from fewer.reports.page import Chart, Page, Picture, Section, Series, Table, Tile, png_text
from fewer.tasks.segment.adapt_members import members_section
from fewer.tasks.segment.evaluation import POLICY, Evaluation
from fewer.tasks.segment.inference import predict_mask
from fewer.tasks.segment.overlay import COLOURS, colour_of, legend, one_slice, overlay, side_by_side
from fewer.tasks.segment.pages import case_strips
from fewer.tasks.segment.reading import read_case

if TYPE_CHECKING:
    from fewer.tasks.segment.adapted import AdaptedRun
    from fewer.tasks.segment.dataset import SegmentData

__all__ = ["adapt_page", "case_dices", "interval", "module_state"]

SHOWN = 6
ERROR = len(COLOURS)
"""Class whose colour shows where reference and prediction differ."""


def interval(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """A 95 % bootstrap interval of the mean over cases.

    Examples
    --------
    >>> interval([0.5, 0.5, 0.5])
    (0.5, 0.5)
    """
    array = np.asarray(values, float)
    means = array[np.random.default_rng(seed).integers(len(array), size=(draws, len(array)))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def case_dices(result: Evaluation) -> dict[str, float]:
    """Mean Dice of each case over its structures; a missed or spurious one counts 0."""
    found: dict[str, list[float]] = {}
    for score in result.scores:
        if score.status != "absent":
            found.setdefault(score.case, []).append(score.dice or 0.0)
    return {case: float(np.mean(values)) for case, values in found.items()}


def adapt_page(run: AdaptedRun, problem: Problem, judged: SegmentData | None, command: str) -> Page:
    """The page."""
    settings = run.plan.settings
    sections = []
    tiles = []
    sentence = "No labelled test folder was given: nothing is known of how good it is on the target."
    if run.evaluation is not None:
        dices = list(case_dices(run.evaluation).values())
        low, high = interval(dices)
        total = run.evaluation.overall
        sentence = (
            f"Mean Dice of {len(dices)} test cases: {np.mean(dices):.3f} (95 % interval {low:.3f} to {high:.3f})."
        )
        tiles.append(Tile(name="Dice, all", value=f"{np.mean(dices):.3f}", note=f"{low:.3f} to {high:.3f}"))
        tiles.append(
            Tile(name="Missed", value=str(total.missed), note="structures", state="bad" if total.missed else "good")
        )
        tiles.append(Tile(name="Spurious", value=str(total.spurious), note="structures"))
        head, rows = run.evaluation.rows()
        tables, strips = [Table(head=head, rows=rows)], case_strips(run.evaluation)
        sections.append(Section(name="scores", title="Scores", tables=tables, words=[POLICY], strips=strips))
    if run.adapted.members:
        sections.append(members_section(run))
    sections.append(_pictures(run, problem, judged))
    sections.append(_curves(run))
    if run.adapted.checks:
        sections.append(_checks(run.adapted.checks))
    sections.append(_modules(run))
    facts: dict[str, Any] = {k: str(v) for k, v in settings.model_dump().items()}
    sections.append(
        Section(
            name="reproduce",
            title="How to get these numbers again",
            command=command,
            facts={"Settings": facts, "Environment": dict(environment())},
        )
    )
    points = [
        "The weights were chosen without target labels, by held-out source Dice and agreement on the target.",
        "One seed: repeat with other values of --seed before methods are compared.",
    ]
    sections.append(Section(name="limits", title="What this does not show", points=points))
    tiles.append(Tile(name="Took", value=duration(run.seconds)))
    return Page(
        title=f"{run.plan.domains.data.root.name} to {run.plan.domains.target_data.root.name}: {settings.method}",
        badge="Adapted",
        sentence=sentence,
        tiles=tiles,
        sections=sections,
        data=run.to_dict(),
    )


def _drawn(image: Tensor, *masks: np.ndarray) -> list[np.ndarray]:
    """Each mask over the same slice of the image."""
    plane, *flat = one_slice(image.numpy(), *masks)
    return [overlay(plane, mask, side=200) for mask in flat]


def _pictures(run: AdaptedRun, problem: Problem, judged: SegmentData | None) -> Section:
    p = run.plan.domains.preparation
    pictures = []
    for index in range(min(SHOWN, len(problem.source), len(problem.target))):
        image, mask = problem.source[index]
        assert mask is not None
        panels, told = _drawn(image, mask.numpy()), ["source with its mask"]
        if index < len(run.adapted.translated):
            panels += _drawn(run.adapted.translated[index], mask.numpy())
            told.append("the same translated")
        target = problem.target[index]
        guess = problem.logits(run.model, target).argmax(0).numpy()
        panels += _drawn(target, np.zeros_like(guess), guess)
        told += ["target", "target with the prediction"]
        pictures.append(Picture(caption="; ".join(told), png=png_text(side_by_side(panels))))
    for case in (judged.cases if judged is not None else ())[:SHOWN]:
        assert judged is not None
        sample = read_case(judged, case, p.channels)
        assert sample.mask is not None
        guess = predict_mask(run.model, sample, p)
        image = torch.from_numpy(sample.image)
        panels = _drawn(image, sample.mask, guess, ERROR * (guess != sample.mask))
        pictures.append(
            Picture(caption=f"{case.name}: reference; prediction; error", png=png_text(side_by_side(panels)))
        )
    names = list(p.classes)[1:]
    colours = legend(names) | ({"error": colour_of(ERROR)} if judged is not None else {})
    return Section(name="examples", title="Side by side", pictures=pictures, colours=colours, wide=True)


def _curves(run: AdaptedRun) -> Section:
    charts, words = [], []
    for name, stage in run.adapted.stages.items():
        judged = [entry for entry in stage.history if "score" in entry]
        if not judged:
            continue
        steps = [entry["step"] for entry in judged]
        series = [
            Series(label=label, x=steps, y=[entry[label] for entry in judged])
            for label in ("choice", "held-out source", "agreement")
            if label in judged[0]
        ]
        title = f"{name}: what chooses, without target labels; the dashed line is the step that was kept"
        charts.append(Chart(title=title, x="step", y="0 to 1", series=series, mark=float(stage.best_step)))
        words.append(f"{name}: the choice preferred step {stage.best_step} of {stage.step}.")
    return Section(name="choice", title="How the weights were chosen", charts=charts, words=words + run.notes)


def _checks(checks: dict[str, Any]) -> Section:
    rows = [
        [s["name"], f"{s['before']:.2f}", f"{s['after']:.2f}", f"{s['kept']:.0%}", f"{s['prevalence']:.0%}"]
        for s in checks["structures"]
    ]
    head = ["structure", "contrast before", "after", "images that keep it", "source images that have it"]
    words = [f"{'Used' if checks['safe'] else 'Not used'}: {checks['sentence']}."]
    return Section(
        name="translator", title="Is the translator safe?", words=words, tables=[Table(head=head, rows=rows)]
    )


def module_state(run: AdaptedRun, name: str) -> str:
    """Whether a module took part: what is switched on may still be refused, not needed, or too long for the steps.

    Examples
    --------
    >>> module_state(run, "translation")  # doctest: +SKIP
    'refused as unsafe'
    """
    settings, adapted = run.plan.settings, run.adapted
    if not settings.uses(name):
        return "off"
    safe = adapted.checks.get("safe")
    if name in ("translation", "segmentation-heads", "edges") and safe is False:
        return "refused as unsafe"
    if settings.method in ("ms-mt", "mt-uda", "le-uda") and name == "curves" and safe:
        return "not needed: the translator is used"
    if settings.method in ("ours", "contrasts"):
        if name == "consistency" and not settings.consistency:
            return "off, unless --consistency gives it a weight"
        single = not adapted.members
        if single and (name == "choice" or (name == "warm-start" and "plain" not in adapted.stages)):
            return "left out: too few steps"
    return "on"


def _modules(run: AdaptedRun) -> Section:
    settings = run.plan.settings
    own = MODULES_OF.get(settings.method, ())
    rows = [[name, module_state(run, name), MODULES[name]] for name in own]
    words = [f"What {settings.method} is made of; --without NAME switches a module off."]
    if not own:
        words = [f"{settings.method} is one module: nothing of it can be switched off."]
    return Section(
        name="modules",
        title="Modules",
        words=words,
        tables=[Table(head=["module", "state", "what it does"], rows=rows)] if rows else [],
    )
