"""``fewer demo quality``: photos are distorted, simulated raters write, a small model learns, and a page shows it."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.display import Told
from fewer.core.files import atomic_write_text
from fewer.core.progress import SILENT, Progress
from fewer.data.decode import read_image
from fewer.reports.page import Page, Picture, Section, Table, Tile, png_text
from fewer.tasks.folders import make_folder
from fewer.tasks.quality.convert.build import Converted, convert
from fewer.tasks.quality.experiment import Material, measure, measure_baselines, measure_descriptions, prepare
from fewer.tasks.quality.perception import Perception
from fewer.tasks.quality.questions import Question, write_questions
from fewer.tasks.quality.settings import TuneSettings
from fewer.tasks.quality.simulator import Simulated, true_questions
from fewer.tasks.quality.tuning import Tuned, tune

__all__ = ["QualityDemo", "demo"]


@dataclass(frozen=True, repr=False)
class QualityDemo(Told):
    """What the demo made.

    Attributes
    ----------
    page
        The page.
    numbers
        See :func:`~fewer.tasks.quality.experiment.measure`, before and after the tuning, and of the baselines.
    next
        A command that goes on with the tuned model.
    """

    page: Path
    numbers: dict[str, dict[str, float]]
    next: str = ""

    def lines(self) -> list[str]:
        """Accuracies before and after."""
        before, after = self.numbers["before"], self.numbers["after"]
        told = [f"{name}: {before[name]:.3f} before, {after[name]:.3f} after the tuning" for name in after]
        return [*told, "on simulated feedback; unseen photos", f"see {self.page}", f"next    {self.next}"]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"page": str(self.page), "numbers": self.numbers}


def demo(
    compress: Callable[..., Any] | None,
    out: str | Path,
    *,
    seed: int = 0,
    progress: Progress | None = None,
    command: str = "",
    steps: int = 1000,
    images: int = 600,
    judged: int = 80,
    distorted: int = 4000,
) -> QualityDemo:
    """Distort photos, simulate a study, convert, tune, and ask before and after on photos that never trained.

    Parameters
    ----------
    compress
        Not used: the demo ends with the page.
    out
        Folder for all of it.
    steps, images, judged, distorted
        Sizes.
    """
    folder, progress = make_folder(out), progress or SILENT
    material = prepare(folder, images=images, judged=judged, distorted=distorted, seed=seed, progress=progress)
    made = convert(material.texts, seed=seed, kinds=("pathway", "what-how", "yes-no"), choices=False)
    records = made.save(material.data.folder / "records.json")
    settings = TuneSettings(steps=steps, seed=seed, every=max(1, steps // 10))
    encoder = material.reader.encoder
    start = tune(records, settings=settings.model_copy(update={"steps": 1}), encoder=encoder)
    numbers = {"before": measure(start, material)[0]}
    tuned = tune(records, out=folder / "run", settings=settings, encoder=encoder, overwrite=True, progress=progress)
    numbers["after"], scored, choices = measure(tuned, material)
    numbers |= measure_baselines(material)
    questions = true_questions(material.judge.truths, material.seed)
    asked = write_questions(material.judge.folder / "questions.json", questions)
    page = _page(tuned, material, made, numbers, scored, choices, command)
    atomic_write_text(folder / "report.json", page.to_json())
    atomic_write_text(folder / "report.html", page.to_html())
    return QualityDemo(folder / "report.html", numbers, _next(folder, material, asked))


def _next(folder: Path, material: Material, asked: Path) -> str:
    """The command that makes the tuned model smaller, and judges it on the same questions."""
    words = ["fewer", "compress", str(folder / "run"), "--images", str(material.data.folder)]
    words += ["--labelled", str(asked), "--budget", "weights=70%", "--out", str(folder / "small")]
    return shlex.join(words)


def _page(
    tuned: Tuned,
    material: Material,
    made: Converted,
    numbers: dict[str, dict[str, float]],
    scored: Perception,
    choices: list[int],
    command: str,
) -> Page:
    after, judge = numbers["after"], material.judge
    texts, marks = measure_descriptions(tuned, material, 6)
    questions = true_questions(judge.truths, material.seed)
    chance = float(scored.rows["all"]["chance"] or 0)
    right, seen, other = (
        after[name] for name in ("accuracy, all", "SRCC, seen distortions", "SRCC, unseen distortions")
    )
    return Page(
        title="seeing quality",
        badge="simulated feedback",
        good=right - chance > 0.1,
        sentence=f"{right:.1%} of the questions about photos that never trained, {chance:.1%} by chance.",
        note="A mechanism on simulated feedback: raters are programs that know what was done to each image.",
        tiles=[
            Tile(name="questions right", value=f"{right:.1%}", note=f"chance {chance:.1%}"),
            Tile(name="SRCC, seen distortions", value=f"{seen:.2f}", note="on photos that never trained"),
            Tile(name="SRCC, unseen distortions", value=f"{other:.2f}", note="families that never trained"),
            Tile(name="description, of 6", value=f"{marks.total:.2f}", note="judged by rules"),
        ],
        sections=[
            Section(
                name="scores",
                title="Before and after",
                words=["Yes-or-no and how are asked as often about a defect that is there as about one that is not."],
                tables=[_scores(numbers, scored)],
                command=command,
            ),
            Section(name="data", title="Instruction data", points=made.lines()),
            Section(name="texts", title="What it writes", pictures=_pictures(judge, texts)),
            Section(name="errors", title="What it got wrong", tables=[_errors(questions, choices)]),
        ],
        data={"numbers": numbers},
    )


def _scores(numbers: dict[str, dict[str, float]], scored: Perception) -> Table:
    rows = []
    for name in numbers["after"]:
        row = scored.rows.get(name.removeprefix("accuracy, "), {})
        base = [f"{float(row[key] or 0):.3f}" if row else "" for key in ("chance", "majority")]
        told = [f"{given[name]:.3f}" if name in given else "" for given in numbers.values()]
        rows.append([name, *base, *told])
    return Table(head=["score", "chance", "most frequent answer", *numbers], rows=rows)


def _pictures(judge: Simulated, texts: dict[str, str]) -> list[Picture]:
    truths = {truth.image: truth for truth in judge.truths}
    found = []
    for name, text in texts.items():
        done = ", ".join(f"{a.family} {a.severity}{' ' + a.place if a.place else ''}" for a in truths[name].applied)
        pixels = np.asarray(read_image(judge.folder / name).convert("RGB"))
        found.append(Picture(caption=f"{done or 'as it was'}: {text or '(nothing)'}", png=png_text(pixels)))
    return found


def _errors(questions: list[Question], choices: list[int]) -> Table:
    wrong = [(q, c) for q, c in zip(questions, choices, strict=True) if c != q.answer][:12]
    rows = [[q.image, q.text, q.options[c], q.options[q.answer or 0]] for q, c in wrong]
    return Table(head=["image", "question", "answer", "truth"], rows=rows)
