"""What tuning on simulated feedback teaches: accuracy and SRCC on unseen photos, before and after, by seed and data.

Each row is one score of one training: before it (language model as it was made, encoder taught), after it, and what
chance, the most frequent answer, the linear layers of the encoder, a regression on pixel statistics and BRISQUE (where
its package is installed) get on the same questions. Resumable: a training that stands in the CSV is not run again. The
mechanism on simulated feedback; no figure of a paper is comparable with these. For ``mix`` and ``after``, another task
is made where ``--other`` gives none: which colour covers most of a photo, on squares without a distortion.

    python benchmarks/quality.py --seeds 3 --steps 1500
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from PIL.Image import fromarray

from fewer.data.decode import read_image
from fewer.data.distortions.truth import Truth, family
from fewer.data.photos import real_photos
from fewer.tasks.quality.asking import better, choose, level_scores
from fewer.tasks.quality.convert.build import convert
from fewer.tasks.quality.correlation import pair_accuracy, spearman
from fewer.tasks.quality.experiment import (
    Material,
    measure,
    measure_baselines,
    measure_descriptions,
    photos_held,
    prepare,
)
from fewer.tasks.quality.perception import Perception, score_answers
from fewer.tasks.quality.questions import Question
from fewer.tasks.quality.records import Record, qalign_records, write_records
from fewer.tasks.quality.settings import TuneSettings
from fewer.tasks.quality.simulator import true_questions
from fewer.tasks.quality.tuning import Tuned, tune

OUT = Path(__file__).parent / "results" / "quality_tuning.csv"
KINDS = {"full": ("pathway", "what-how", "yes-no"), "vqa only": ("what-how", "yes-no"), "pathway only": ("pathway",)}
SHARES = {"quarter": 0.25, "half": 0.5}
"""Of the images with all texts about them, for questions alone; all of them are the row ``vqa only``."""
ROWS = ("vqa only", "full", "pathway only", *SHARES, "mix", "after", "with pairs", "levels", "taught by texts")
PAIRS = 1500
"""Pairs of images that comparisons are made of, and a tenth of them to judge on."""
KEY = ["tokens", "data", "seed", "language", "steps", "images", "distorted"]
"""``tokens`` is read where aspects are named by tokens of their own, and plain where not (and in rows of old versions,
in which the frozen encoder had dropout too, and answers weighed their length)."""
HEAD = [*KEY, "score", "questions", "chance", "majority", "before", "after", "linear", "pixels", "brisque"]
HEAD += ["cpu_seconds"]
KINDS_BY = ("data", "tokens", "steps")
"""What a panel of the plot is of."""
DESCRIBED = 20
"""Images whose descriptions are marked: a model without a cache of its own words takes half a second for each."""


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--judged", type=int, default=120)
    parser.add_argument("--distorted", type=int, default=4000)
    parser.add_argument("--language", default="tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precision", default="no")
    parser.add_argument("--only", default="", help="rows, with commas: " + ", ".join(ROWS))
    parser.add_argument("--other", default="", help="records of other tasks, for mix and after; made by default")
    parser.add_argument("--plain", action="store_true", help="without the tokens that name aspects")
    given = parser.parse_args()
    done: set[tuple[str, ...]] = set()
    if OUT.exists():
        with OUT.open() as file:
            done = {tuple(row[key] for key in KEY) for row in csv.DictReader(file)}
    for seed in range(given.seeds):
        wanted = [name for name in ROWS if not given.only or name in given.only.split(",")]
        missing = [name for name in wanted if _key(name, seed, given) not in done]
        if missing:
            _seed(seed, missing, given)
    plot(OUT)


def _key(name: str, seed: int, given: argparse.Namespace) -> tuple[str, ...]:
    tokens = "plain" if given.plain else "read"
    return (tokens, name, str(seed), given.language, str(given.steps), str(given.images), str(given.distorted))


def _seed(seed: int, names: list[str], given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        began = process_time()
        sizes = {"images": given.images, "judged": given.judged, "distorted": given.distorted}
        material = prepare(place, seed=seed, **sizes)
        bases = baselines(material)
        prepared = process_time() - began
        for name in names:
            rows = run(name, material, bases, prepared, given)
            fresh = not OUT.exists()
            OUT.parent.mkdir(exist_ok=True)
            with OUT.open("a", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                if fresh:
                    table.writerow(HEAD)
                table.writerows([[*_key(name, seed, given), *row] for row in rows])
            print(name, seed, *rows, sep="\n  ", flush=True)


def run(
    name: str, material: Material, bases: dict[str, dict[str, float]], prepared: float, given: argparse.Namespace
) -> list[list[str]]:
    """One training, judged before and after."""
    began = process_time()
    more: dict[str, Any] = {"steps": given.steps, "seed": material.seed, "images": str(material.data.folder)}
    more |= {"batch": given.batch, "precision": given.precision, "readings": not given.plain}
    if name in ("mix", "after"):
        more |= {"high_level": given.other or str(_colours(material)), "strategy": name}
    settings = TuneSettings(language=given.language, **more)
    records, encoder = _records(name, material), material.reader.encoder
    if name == "taught by texts":
        encoder = None
    start = tune(records, settings=settings.model_copy(update={"steps": 1}), encoder=encoder)
    also = ("other",) if name in ("mix", "after") else ("comparison",) if name == "with pairs" else ()
    before, _ = judge(start, material, also)
    del start  # a language model of full size is not kept twice
    after, scored = judge(tune(records, settings=settings, encoder=encoder), material, also)
    seconds = f"{prepared + process_time() - began:.0f}"
    rows = []
    for score, value in after.items():
        part = scored.rows.get(score.removeprefix("accuracy, "))
        base = [str(part["questions"]), *(f"{part[k]:.4f}" for k in ("chance", "majority"))] if part else ["", "", ""]
        told = [f"{of[score]:.4f}" if score in of else "" for of in bases.values()]
        rows.append([score, *base, f"{before[score]:.4f}", f"{value:.4f}", *told, seconds])
    return rows


def judge(tuned: Tuned, material: Material, also: tuple[str, ...]) -> tuple[dict[str, float], Perception]:
    """All scores of a model by name, and its accuracies."""
    numbers, scored, _ = measure(tuned, material)
    numbers["accuracy, with another image"] = blind(tuned, material)
    numbers["description, of 6"] = measure_descriptions(tuned, material, DESCRIBED)[1].total
    pictures, opinions = tuned.pictures(material.judge.folder), material.judge.opinions
    scores = dict(zip(opinions, level_scores(tuned, pictures, list(opinions)), strict=True))
    plain = [truth.image for truth in material.judge.truths if not changes_tones(truth)]
    numbers[PLAIN] = spearman(*(np.array([of[name] for name in plain]) for of in (scores, opinions)))
    pairs = _pairs(opinions, material.seed)
    numbers["pairs, by scores"] = pair_accuracy({name: float(score) for name, score in scores.items()}, pairs)
    if "comparison" in also:
        wins, _ = better(tuned, pictures, pairs)
        numbers["pairs, both at once"] = float(np.mean(wins > 0))
    if "other" in also:
        questions = _colour_questions(material)
        chosen = choose(tuned, pictures, questions)
        numbers["accuracy, other task"] = score_answers(questions, chosen).accuracy
    return numbers, scored


def blind(tuned: Tuned, material: Material) -> float:
    """Accuracy where each question is asked about another image: what the words of the questions give away."""
    names = [truth.image for truth in material.judge.truths]
    other = dict(zip(names, [*names[len(names) // 3 :], *names[: len(names) // 3]], strict=True))
    questions = true_questions(material.judge.truths, material.seed)
    asked = [replace(question, image=other[question.image]) for question in questions]
    return score_answers(questions, choose(tuned, tuned.pictures(material.judge.folder), asked)).accuracy


def _pairs(opinions: dict[str, float], seed: int) -> list[tuple[str, str]]:
    """Pairs (better, worse) of images to judge on that differ by half a level at least."""
    rng, names = np.random.default_rng([seed, 31]), list(opinions)
    drawn = [[names[int(i)] for i in rng.choice(len(names), 2, replace=False)] for _ in range(PAIRS)]
    clear = [pair for pair in drawn if abs(opinions[pair[0]] - opinions[pair[1]]) >= 0.5][: PAIRS // 10]
    ranked = [sorted(pair, key=lambda name: opinions[name]) for pair in clear]
    return [(best, worst) for worst, best in ranked]


PLAIN = "SRCC, seen distortions but tones"


def changes_tones(truth: Truth) -> bool:
    """Whether light or colours of an image were changed, which a photo may have by nature."""
    return any(family(one.family).aspect in ("exposure", "contrast", "colour") for one in truth.applied)


def baselines(material: Material) -> dict[str, dict[str, float]]:
    """Scores of what needs no language: linear layers on the encoder, pixel statistics, BRISQUE."""
    found = measure_baselines(material)
    plain = [truth.image for truth in material.judge.truths if not changes_tones(truth)]
    pixels = [np.asarray(read_image(material.judge.folder / name).convert("RGB")) for name in plain]
    wanted = np.array([material.judge.opinions[name] for name in plain])
    next(iter(found.values()))[PLAIN] = spearman(material.reader.levels(pixels), wanted)
    found["brisque"] = {}
    for name, group in (("SRCC, seen distortions", material.judge), ("SRCC, unseen distortions", material.unseen)):
        scores = brisque([np.asarray(read_image(group.folder / t.image).convert("RGB")) for t in group.truths])
        if scores is not None:
            found["brisque"][name] = spearman(scores, np.array(list(group.opinions.values())))
    scores = brisque(pixels)
    if scores is not None:
        found["brisque"][PLAIN] = spearman(scores, wanted)
    return found


def brisque(images: list[np.ndarray]) -> np.ndarray | None:
    """Scores, higher is better, of the package ``brisque`` (Apache-2.0); None where it is not installed."""
    try:
        from brisque import BRISQUE
    except ImportError:
        return None

    class Repaired(BRISQUE):
        """Version 0.2.0 hands on arrays of one number, which NumPy 2.4 does not take for a number."""

        def scale_features(self, features: Any) -> Any:
            return super().scale_features([np.ravel(value)[0] for value in features])

    judge = Repaired()
    return np.array([-float(judge.score(pixels)) for pixels in images])


COLOUR = "Which colour covers most of this image?"


def _colours(material: Material, count: int = 400) -> Path:
    """Conversations of another task with a truth of its own: which colour covers most of a clean square of a photo."""
    place = material.data.folder / "other.json"
    if place.exists():
        return place
    held = set(photos_held(material.seed))
    photos = [photo.path for photo in real_photos() if photo.path not in held]
    told = _squares(photos, material.data.folder, count, material.seed)
    return write_records(place, [Record(name, ((f"<image>\n{COLOUR}", word),), name) for name, word in told.items()])


def _colour_questions(material: Material, count: int = 80) -> list[Question]:
    """The same of photos that never trained; every colour may be chosen."""
    told = _squares(photos_held(material.seed), material.judge.folder, count, material.seed + 1)
    return [Question(name, COLOUR, COLOURS, COLOURS.index(word)) for name, word in told.items()]


def _squares(photos: list[Path], folder: Path, count: int, seed: int) -> dict[str, str]:
    """Squares without a distortion, and the colour of each."""
    rng = np.random.default_rng([seed, 77])
    told = {}
    for number in range(count):
        image = read_image(photos[number % len(photos)]).convert("RGB")
        size = int(rng.integers(96, 1 + min(image.size))) if min(image.size) > 96 else min(image.size)
        left, top = (int(rng.integers(side - size + 1)) for side in image.size)
        square = image.crop((left, top, left + size, top + size)).resize((96, 96))
        square.save(folder / f"other-{number}.png")
        told[f"other-{number}.png"] = _colour(np.asarray(square))
    return told


COLOURS = ("grey", "red", "yellow", "green", "cyan", "blue", "magenta")


def _colour(pixels: np.ndarray) -> str:
    """The name of the most frequent hue, or grey where there is hardly any colour."""
    hue, saturation, _ = np.moveaxis(np.asarray(fromarray(pixels).convert("HSV")).astype(int), 2, 0)
    if (saturation < 40).mean() > 0.5:
        return "grey"
    counts = np.bincount(((hue[saturation >= 40] + 21) // 43) % 6, minlength=6)
    return COLOURS[1 + int(counts.argmax())]


def plot(path: Path) -> None:
    """Mean and spread of every score before and after, beside the linear layers, for each row of the table."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = list(dict.fromkeys(tuple(row[key] for key in KINDS_BY) for row in rows))
    scores = list(dict.fromkeys(row["score"] for row in rows))
    wide = min(4, len(kinds))
    deep = -(-len(kinds) // wide)
    figure = Figure(figsize=(3 + 2.2 * wide, 0.6 + 0.24 * len(scores) * deep), layout="constrained")
    panels = np.ravel(figure.subplots(deep, wide, sharey=True, squeeze=False))
    for axes, kind in zip(panels, kinds, strict=False):
        own = [row for row in rows if tuple(row[key] for key in KINDS_BY) == kind]
        for shift, column in enumerate(("before", "after", "linear")):
            # a description has 6 marks at most, all else 1
            share = [6 if score.endswith("of 6") else 1 for score in scores]
            of = [[float(r[column]) for r in own if r["score"] == s and r[column]] for s in scores]
            means = [
                float(np.mean(values)) / most if values else np.nan for values, most in zip(of, share, strict=True)
            ]
            spread = [float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for values in of]
            height = [place + 0.2 * (shift - 1) for place in range(len(scores))]
            axes.errorbar(means, height, xerr=np.divide(spread, share), fmt="o", markersize=3, label=column)
        seeds = len({row["seed"] for row in own})
        axes.set_title(f"{', '.join(kind)} ({seeds} seed{'s' if seeds > 1 else ''})", fontsize=8)
        axes.set_yticks(range(len(scores)), [score.replace("of 6", "share of 6") for score in scores], fontsize=7)
        axes.set_xlim(-0.3, 1)
        axes.grid(alpha=0.3)
    panels[0].invert_yaxis()  # shared by all
    panels[0].legend(fontsize=6)
    for axes in panels[len(kinds) :]:
        axes.set_visible(False)
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    path.with_suffix(".svg").write_text(text.getvalue(), "utf-8")


def _records(name: str, material: Material) -> list[Record]:
    """Conversations of a row; :data:`SHARES` have a part of the texts, ``levels`` words for scores alone (Q-Align)."""
    if name == "levels":
        return [
            Record(r.id, (("<image>\nHow is the overall quality of this image?", _level(r)),), r.image)
            for r in qalign_records(material.data.opinions, 1, 5)
        ]
    texts = material.texts[: int(SHARES.get(name, 1.0) * len(material.texts))]
    kinds = KINDS.get(name, KINDS["vqa only"])
    pairs = PAIRS if name == "with pairs" else 0
    records = convert(texts, seed=material.seed, kinds=kinds, choices=False, pairs=pairs).records
    # answers that repeat two whole texts take most of the time, and no question asks for them
    return [record for record in records if record.kind != "comparison" or len(record.turns[0][1]) < 40]


def _level(record: Record) -> str:
    return record.turns[0][1].rstrip(".").rsplit(" ", 1)[-1]


if __name__ == "__main__":
    main()
