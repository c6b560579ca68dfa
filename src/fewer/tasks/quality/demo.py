"""``fewer demo quality``: photos are distorted, simulated raters write, a small model learns, and a page shows it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.files import atomic_write_text
from fewer.core.progress import Progress
from fewer.data.decode import read_image
from fewer.data.distortions.families import FAMILIES
from fewer.data.photos import real_photos
from fewer.reports.page import Page, Picture, Section, Table, Tile, png_text
from fewer.study.simulated import make_raters, simulate
from fewer.tasks.folders import make_folder
from fewer.tasks.quality.asking import choose, describe, level_scores
from fewer.tasks.quality.baselines import RegressionHead, pixel_statistics
from fewer.tasks.quality.convert.build import REQUESTS, convert
from fewer.tasks.quality.correlation import correlations
from fewer.tasks.quality.description import judge_descriptions
from fewer.tasks.quality.perception import Perception, score_answers
from fewer.tasks.quality.questions import Question
from fewer.tasks.quality.settings import TuneSettings
from fewer.tasks.quality.simulator import Simulated, simulate_images, true_questions
from fewer.tasks.quality.tuning import Tuned, tune

__all__ = ["UNSEEN", "QualityDemo", "demo", "measure"]

UNSEEN = ("lens-blur", "white-noise-ycc")
"""Families of distortions that no training sees."""


@dataclass(frozen=True)
class QualityDemo:
    """What the demo made.

    Attributes
    ----------
    page
        The page.
    numbers
        See :func:`measure`, before and after the tuning.
    """

    page: Path
    numbers: dict[str, dict[str, float]]

    def lines(self) -> list[str]:
        """Accuracies before and after."""
        before, after = self.numbers["before"], self.numbers["after"]
        told = [f"{name}: {before[name]:.3f} before, {after[name]:.3f} after the tuning" for name in after]
        return [*told, "on simulated feedback; unseen photos", f"see {self.page}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"page": str(self.page), "numbers": self.numbers}


def measure(
    tuned: Tuned, seen: Simulated, unseen: Simulated, seed: int
) -> tuple[dict[str, float], Perception, list[int]]:
    """Accuracy on unseen photos by kind, and SRCC against the simulated opinion, also on unseen distortions."""
    questions = true_questions(seen.truths, seed)
    pictures = tuned.pictures(seen.folder)
    choices = choose(tuned, pictures, questions)
    scored = score_answers(questions, choices)
    numbers = {f"accuracy, {name}": float(row["accuracy"] or 0) for name, row in scored.rows.items()}
    for name, group in (("seen", seen), ("unseen", unseen)):
        scores = level_scores(tuned, tuned.pictures(group.folder), list(group.opinions))
        opinions = np.array(list(group.opinions.values()))
        spread = np.ptp(scores) > 0
        numbers[f"SRCC, {name} distortions"] = correlations(scores, opinions)["srcc"] if spread else 0.0
    return numbers, scored, choices


def demo(
    compress: Callable[..., Any] | None,
    out: str | Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "",
    steps: int = 500,
    images: int = 360,
    judged: int = 60,
) -> QualityDemo:
    """Distort photos, simulate a study, convert, tune, and ask before and after on photos that never trained.

    Parameters
    ----------
    compress
        Not used: the demo ends with the page.
    out
        Folder for all of it.
    steps, images, judged
        Sizes.
    """
    folder = make_folder(out)
    photos = [photo.path for photo in real_photos()]
    order = np.random.default_rng([seed, 8]).permutation(len(photos))
    cut = max(1, len(photos) // 4)
    held, trained = [photos[i] for i in order[:cut]], [photos[i] for i in order[cut:]]
    known = [name for name in FAMILIES if name not in UNSEEN]
    data = simulate_images(trained, folder / "images", images, families=known, seed=seed)
    judge = simulate_images(held, folder / "judged", judged, families=known, seed=seed + 1)
    unseen = simulate_images(held, folder / "unseen", judged, families=UNSEEN, seed=seed + 2, most=1)
    texts = simulate(data.truths, make_raters(8, seed), 2, seed)
    made = convert(texts, seed=seed, kinds=("pathway", "what-how", "yes-no"), choices=False)
    made.save(folder / "images" / "records.json")
    settings = TuneSettings(
        steps=steps,
        batch=16,
        seed=seed,
        every=max(1, steps // 10),
        learning_rate=2e-3,
        input_size=96,
        quality_width=8,
        grid=2,
    )
    start = tune(made.records, settings=settings.model_copy(update={"steps": 1, "images": str(data.folder)}))
    numbers = {"before": measure(start, judge, unseen, seed)[0]}
    tuned = tune(
        folder / "images" / "records.json", out=folder / "run", settings=settings, overwrite=True, progress=progress
    )
    numbers["after"], scored, choices = measure(tuned, judge, unseen, seed)
    page = _page(tuned, data, judge, made.lines(), numbers, scored, choices, seed, command)
    atomic_write_text(folder / "report.json", page.to_json())
    atomic_write_text(folder / "report.html", page.to_html())
    return QualityDemo(folder / "report.html", numbers)


def _page(
    tuned: Tuned,
    data: Simulated,
    judge: Simulated,
    made: list[str],
    numbers: dict[str, dict[str, float]],
    scored: Perception,
    choices: list[int],
    seed: int,
    command: str,
) -> Page:
    before, after = numbers["before"], numbers["after"]
    rows = [[name, f"{before[name]:.3f}", f"{value:.3f}"] for name, value in after.items()]
    chance = float(scored.rows["all"]["chance"] or 0)
    majority = float(scored.rows["all"]["majority"] or 0)
    head = RegressionHead().fit(_statistics(data), list(data.opinions.values()))
    ridge = correlations(head.predict(_statistics(judge)), np.array(list(judge.opinions.values())))["srcc"]
    images = list(judge.opinions)[:6]
    texts = describe(tuned, tuned.pictures(judge.folder), images, REQUESTS[0])
    golden = {p.image: p.text for p in simulate([t for t in judge.truths if t.image in images], make_raters(1, 99), 1)}
    marks = judge_descriptions(texts, golden)
    questions = true_questions(judge.truths, seed)
    gain = after["accuracy, all"] - chance
    return Page(
        title="seeing quality",
        badge="simulated feedback",
        good=gain > 0.1,
        sentence=f"{after['accuracy, all']:.1%} of the questions about unseen photos, {chance:.1%} by chance.",
        note="A mechanism on simulated feedback: raters are programs that know what was done to each image.",
        tiles=[
            Tile(name="questions right", value=f"{after['accuracy, all']:.1%}", note=f"majority {majority:.1%}"),
            Tile(name="SRCC, seen distortions", value=f"{after['SRCC, seen distortions']:.2f}"),
            Tile(name="SRCC, regression on pixels", value=f"{ridge:.2f}"),
            Tile(name="description, of 6", value=f"{marks.total:.2f}", note="judged by rules"),
        ],
        sections=[
            Section(
                name="scores",
                title="Before and after",
                tables=[Table(head=["score", "before", "after"], rows=rows)],
                command=command,
            ),
            Section(name="data", title="Instruction data", points=made),
            Section(name="texts", title="What it writes", pictures=_pictures(judge, images, texts)),
            Section(name="errors", title="What it got wrong", tables=[_errors(questions, choices)]),
        ],
        data={"numbers": numbers, "regression_srcc": ridge},
    )


def _statistics(group: Simulated) -> np.ndarray:
    files = [group.folder / truth.image for truth in group.truths]
    return np.stack([pixel_statistics(np.asarray(read_image(path).convert("RGB"))) for path in files])


def _pictures(judge: Simulated, images: list[str], texts: dict[str, str]) -> list[Picture]:
    truths = {truth.image: truth for truth in judge.truths}
    found = []
    for name in images:
        done = ", ".join(f"{a.family} {a.severity}{' ' + a.place if a.place else ''}" for a in truths[name].applied)
        pixels = np.asarray(read_image(judge.folder / name).convert("RGB"))
        found.append(Picture(caption=f"{done or 'as it was'}: {texts[name] or '(nothing)'}", png=png_text(pixels)))
    return found


def _errors(questions: list[Question], choices: list[int]) -> Table:
    wrong = [(q, c) for q, c in zip(questions, choices, strict=True) if c != q.answer][:12]
    rows = [[q.image, q.text, q.options[c], q.options[q.answer or 0]] for q, c in wrong]
    return Table(head=["image", "question", "answer", "truth"], rows=rows)
