"""What tuning on simulated feedback teaches: accuracy and SRCC on unseen photos, before and after, by seed and data.

Each row is one score of one training: before it (language model as it was made, encoder taught), after it, and what
chance, the most frequent answer, the linear layers of the encoder and a regression on pixel statistics get on the same
questions. Resumable: a training that stands in the CSV is not run again. The mechanism on simulated feedback; no figure
of a paper is comparable with these.

    python benchmarks/quality.py --seeds 3 --steps 1500
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

from fewer.tasks.quality.convert.build import convert
from fewer.tasks.quality.experiment import Material, measure, measure_baselines, prepare
from fewer.tasks.quality.records import Record, qalign_records
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
    parser.add_argument("--other", default="", help="records of other tasks, for mix and after")
    given = parser.parse_args()
    done: set[tuple[str, ...]] = set()
    if OUT.exists():
        with OUT.open() as file:
            done = {tuple(row[key] for key in KEY) for row in csv.DictReader(file)}
    for seed in range(given.seeds):
        wanted = [name for name in ROWS if not given.only or name == given.only]
        wanted = [name for name in wanted if name not in ("mix", "after") or given.other]
        missing = [name for name in wanted if _key(name, seed, given) not in done]
        if missing:
            _seed(seed, missing, given)


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
        more |= {"high_level": given.other, "strategy": name}
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
