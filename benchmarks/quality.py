"""What tuning on simulated feedback teaches: accuracy and SRCC on unseen photos, before and after, by seed and data.

Each row is one score of one training: before it (language model as it was made, encoder taught), after it, and what
chance, the most frequent answer, the linear layers of the encoder and a regression on pixel statistics get on the same
questions. Resumable: a training that stands in the CSV is not run again. The mechanism on simulated feedback; no figure
of a paper is comparable with these. For ``mix`` and ``after``, another task is made where ``--other`` gives none: which
colour covers most of a photo, on squares without a distortion.

    python benchmarks/quality.py --seeds 3 --steps 1500
"""

from __future__ import annotations

import argparse
import csv
import io
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
from PIL.Image import fromarray

from fewer.data.decode import read_image
from fewer.data.photos import real_photos
from fewer.tasks.quality.convert.build import convert
from fewer.tasks.quality.experiment import Material, measure, measure_baselines, photos_held, prepare
from fewer.tasks.quality.records import Record, qalign_records, write_records
from fewer.tasks.quality.settings import TuneSettings
from fewer.tasks.quality.tuning import tune

OUT = Path(__file__).parent / "results" / "quality_tuning.csv"
KINDS = {"full": ("pathway", "what-how", "yes-no"), "vqa only": ("what-how", "yes-no"), "pathway only": ("pathway",)}
ROWS = ("vqa only", "full", "pathway only", "quarter", "levels", "mix", "after")
KEY = ["data", "seed", "language", "steps", "images", "distorted"]
HEAD = [*KEY, "score", "questions", "chance", "majority", "before", "after", "linear", "pixels", "cpu_seconds"]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--images", type=int, default=800)
    parser.add_argument("--judged", type=int, default=120)
    parser.add_argument("--distorted", type=int, default=4000)
    parser.add_argument("--language", default="tiny")
    parser.add_argument("--only", default="", help="one row: " + ", ".join(ROWS))
    parser.add_argument("--other", default="", help="records of other tasks, for mix and after; made by default")
    given = parser.parse_args()
    done: set[tuple[str, ...]] = set()
    if OUT.exists():
        with OUT.open() as file:
            done = {tuple(row[key] for key in KEY) for row in csv.DictReader(file)}
    for seed in range(given.seeds):
        wanted = [name for name in ROWS if not given.only or name == given.only]
        missing = [name for name in wanted if _key(name, seed, given) not in done]
        if missing:
            _seed(seed, missing, given)
    plot(OUT)


def _key(name: str, seed: int, given: argparse.Namespace) -> tuple[str, ...]:
    return (name, str(seed), given.language, str(given.steps), str(given.images), str(given.distorted))


def _seed(seed: int, names: list[str], given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as place:
        began = process_time()
        sizes = {"images": given.images, "judged": given.judged, "distorted": given.distorted}
        material = prepare(place, seed=seed, **sizes)
        bases = measure_baselines(material)
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
    if name in ("mix", "after"):
        more |= {"high_level": given.other or str(_colours(material)), "strategy": name}
    settings = TuneSettings(language=given.language, **more)
    records, encoder = _records(name, material), material.reader.encoder
    before = measure(tune(records, settings=settings.model_copy(update={"steps": 1}), encoder=encoder), material)[0]
    after, scored, _ = measure(tune(records, settings=settings, encoder=encoder), material)
    seconds = f"{prepared + process_time() - began:.0f}"
    linear, pixels = bases.values()
    rows = []
    for score, value in after.items():
        part = scored.rows.get(score.removeprefix("accuracy, "))
        base = [str(part["questions"]), *(f"{part[k]:.4f}" for k in ("chance", "majority"))] if part else ["", "", ""]
        told = [f"{of[score]:.4f}" if score in of else "" for of in (before, after, linear, pixels)]
        rows.append([score, *base, f"{before[score]:.4f}", f"{value:.4f}", *told[2:], seconds])
    return rows


def _colours(material: Material, count: int = 400) -> Path:
    """Conversations of another task with a truth of its own: which colour covers most of a clean square of a photo."""
    folder = material.data.folder
    place = folder / "other.json"
    if place.exists():
        return place
    rng = np.random.default_rng([material.seed, 77])
    held = set(photos_held(material.seed))
    photos = [photo.path for photo in real_photos() if photo.path not in held]
    records = []
    for number in range(count):
        image = read_image(photos[number % len(photos)]).convert("RGB")
        size = int(rng.integers(96, 2 + min(image.size)))
        left, top = (int(rng.integers(side - size + 1)) for side in image.size)
        square = image.crop((left, top, left + size, top + size)).resize((96, 96))
        square.save(folder / f"other-{number}.png")
        asked = ("<image>\nWhich colour covers most of this image?", _colour(np.asarray(square)))
        records.append(Record(f"o{number}", (asked,), f"other-{number}.png"))
    return write_records(place, records)


def _colour(pixels: np.ndarray) -> str:
    """The name of the most frequent hue, or grey where there is hardly any colour."""
    hue, saturation, _ = np.moveaxis(np.asarray(fromarray(pixels).convert("HSV")).astype(int), 2, 0)
    if (saturation < 40).mean() > 0.5:
        return "grey"
    names = ("red", "yellow", "green", "cyan", "blue", "magenta")
    counts = np.bincount(((hue[saturation >= 40] + 21) // 43) % 6, minlength=6)
    return names[int(counts.argmax())]


def plot(path: Path) -> None:
    """Mean and spread of every score before and after, beside the linear layers, for each row of the table."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kinds = list(dict.fromkeys(row["data"] for row in rows))
    scores = list(dict.fromkeys(row["score"] for row in rows))
    figure = Figure(figsize=(8, 0.6 + 0.35 * len(scores) * len(kinds) ** 0.5), layout="constrained")
    for axes, kind in zip(np.atleast_1d(figure.subplots(1, len(kinds), sharey=True)), kinds, strict=True):
        for shift, column in enumerate(("before", "after", "linear")):
            of = [[float(r[column]) for r in rows if (r["data"], r["score"]) == (kind, s)] for s in scores]
            means = [float(np.mean(values)) if values else np.nan for values in of]
            spread = [float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for values in of]
            height = [place + 0.2 * (shift - 1) for place in range(len(scores))]
            axes.errorbar(means, height, xerr=spread, fmt="o", markersize=3, label=column)
        seeds = len({row["seed"] for row in rows if row["data"] == kind})
        axes.set_title(f"{kind} ({seeds} seed{'s' if seeds > 1 else ''})", fontsize=8)
        axes.set_yticks(range(len(scores)), scores)
        axes.set_xlim(-0.3, 1)
        axes.grid(alpha=0.3)
        axes.invert_yaxis()
        axes.legend(fontsize=6)
    text = io.StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    path.with_suffix(".svg").write_text(text.getvalue(), "utf-8")


def _records(name: str, material: Material) -> list[Record]:
    """Conversations of a row; ``quarter`` has a quarter of the texts, ``levels`` only words for scores (Q-Align)."""
    if name == "levels":
        return [
            Record(r.id, (("<image>\nHow is the overall quality of this image?", _level(r)),), r.image)
            for r in qalign_records(material.data.opinions, 1, 5)
        ]
    texts = material.texts[: len(material.texts) // 4] if name == "quarter" else material.texts
    kinds = KINDS.get(name, KINDS["vqa only"])
    return list(convert(texts, seed=material.seed, kinds=kinds, choices=False).records)


def _level(record: Record) -> str:
    return record.turns[0][1].rstrip(".").rsplit(" ", 1)[-1]


if __name__ == "__main__":
    main()
