"""What tuning on simulated feedback teaches: accuracy and SRCC on unseen photos, before and after, by seed and data.

Resumable: a row that stands in the CSV is not run again. The mechanism on simulated feedback; no figure of a paper is
comparable with these.

    python benchmarks/quality.py --seeds 3 --steps 600
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from time import process_time

import numpy as np

from fewer.data.distortions.families import FAMILIES
from fewer.data.photos import real_photos
from fewer.study.simulated import make_raters, simulate
from fewer.tasks.quality.convert.build import convert
from fewer.tasks.quality.demo import UNSEEN, measure
from fewer.tasks.quality.settings import TuneSettings
from fewer.tasks.quality.simulator import simulate_images
from fewer.tasks.quality.tuning import tune

OUT = Path(__file__).parent / "results" / "quality.csv"
KINDS = {"full": ("pathway", "what-how", "yes-no"), "vqa only": ("what-how", "yes-no"), "pathway only": ("pathway",)}
HEAD = ["data", "share", "seed", "steps", "images", "score", "before", "after", "cpu_seconds"]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--judged", type=int, default=60)
    parser.add_argument("--only", default="", help="one kind of data: full, 'vqa only' or 'pathway only'")
    given = parser.parse_args()
    done = set()
    if OUT.exists():
        with OUT.open() as file:
            done = {(r["data"], r["share"], r["seed"], r["steps"], r["images"]) for r in csv.DictReader(file)}
    for seed in range(given.seeds):
        for kind, share in [*((kind, 1.0) for kind in KINDS), ("full", 0.25)]:
            key = (kind, f"{share:g}", str(seed), str(given.steps), str(given.images))
            if key in done or (given.only and kind != given.only):
                continue
            rows = run(KINDS[kind], share, seed, given)
            fresh = not OUT.exists()
            OUT.parent.mkdir(exist_ok=True)
            with OUT.open("a", newline="") as file:
                table = csv.writer(file)
                if fresh:
                    table.writerow(HEAD)
                table.writerows([[*key, *row] for row in rows])
            print(key, *rows, sep="\n  ", flush=True)


def run(kinds: tuple[str, ...], share: float, seed: int, given: argparse.Namespace) -> list[list[str]]:
    """One training, judged before and after."""
    began = process_time()
    photos = [photo.path for photo in real_photos()]
    order = np.random.default_rng([seed, 8]).permutation(len(photos))
    cut = max(1, len(photos) // 4)
    held, trained = [photos[i] for i in order[:cut]], [photos[i] for i in order[cut:]]
    known = [name for name in FAMILIES if name not in UNSEEN]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        data = simulate_images(trained, folder / "images", given.images, families=known, seed=seed)
        judge = simulate_images(held, folder / "judged", given.judged, families=known, seed=seed + 1)
        unseen = simulate_images(held, folder / "unseen", given.judged, families=UNSEEN, seed=seed + 2, most=1)
        texts = simulate(data.truths, make_raters(8, seed), 2, seed)[: max(1, round(2 * given.images * share))]
        made = convert(texts, seed=seed, kinds=kinds, choices=False)
        settings = TuneSettings(
            steps=given.steps, seed=seed, learning_rate=2e-3, quality_width=8, grid=2, images=str(data.folder)
        )
        start = tune(made.records, settings=settings.model_copy(update={"steps": 1}))
        before = measure(start, judge, unseen, seed)[0]
        after, scored, _ = measure(tune(made.records, settings=settings), judge, unseen, seed)
    seconds = f"{process_time() - began:.0f}"
    rows = [[name, f"{before[name]:.4f}", f"{value:.4f}", seconds] for name, value in after.items()]
    for base in ("chance", "majority"):
        value = f"{float(scored.rows['all'][base] or 0):.4f}"
        rows.append([base, value, value, seconds])
    return rows


if __name__ == "__main__":
    main()
