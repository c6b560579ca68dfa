"""Which images of a pool to show to raters: by features of objects, by statistics of appearance, or at random.

The pool are simulated squares of photos whose distortions are known. Of each choice: how many families of them
raters would see, how evenly opinions are spread (entropy over five levels, 1 is even), and the SRCC on other photos of
a ridge regression on statistics that learns from the chosen images alone. Resumable; the mechanism on simulated images.

    python benchmarks/quality_select.py --seeds 3
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np

import fewer
from fewer.data.distortions.truth import Truth, overall_level
from fewer.data.photos import real_photos
from fewer.tasks.quality.appearance import describe_photos
from fewer.tasks.quality.baselines import RegressionHead
from fewer.tasks.quality.correlation import spearman
from fewer.tasks.quality.experiment import photos_held
from fewer.tasks.quality.simulator import Simulated, simulate_images

OUT = Path(__file__).parent / "results" / "quality_select.csv"
HEAD = ["seed", "pool", "labels", "method", "features", "families", "entropy", "srcc"]
WAYS = (
    ("random", "quality"),
    ("coverage", "quality"),
    ("kcenter", "quality"),
    ("typiclust", "quality"),
    ("coverage", "fewer/dinov2-small"),
    ("kcenter", "fewer/dinov2-small"),
)


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pool", type=int, default=600)
    parser.add_argument("--labels", default="24,60")
    given = parser.parse_args()
    done: set[tuple[str, ...]] = set()
    if OUT.exists():
        with OUT.open() as file:
            done = {tuple(row[key] for key in HEAD[:5]) for row in csv.DictReader(file)}
    for seed in range(given.seeds):
        wanted = [(labels, *way) for labels in given.labels.split(",") for way in WAYS]
        missing = [one for one in wanted if (str(seed), str(given.pool), *one) not in done]
        if missing:
            _seed(seed, given.pool, missing)


def _seed(seed: int, count: int, missing: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        held = photos_held(seed)
        photos = [photo.path for photo in real_photos() if photo.path not in set(held)]
        pool = simulate_images(photos, f"{place}/pool", count, seed=seed, most=1)
        other = simulate_images(held, f"{place}/other", 240, seed=seed + 1)
        # statistics of both in the same units
        files = [group.folder / truth.image for group in (pool, other) for truth in group.truths]
        numbers, _ = describe_photos(files)
        for labels, method, features in missing:
            out = f"{place}/queue-{features.replace('/', '-')}"
            again = {"overwrite": True, "seed": seed, "to": [], "backend": "serial"}
            chosen = fewer.select(pool.folder, f"labels={labels}", out=out, method=method, features=features, **again)
            rows = [int(Path(asked.name).stem) for asked in chosen.chosen]
            found = judge(rows, pool, other, numbers)
            told = [seed, count, labels, method, features, *found]
            fresh = not OUT.exists()
            with OUT.open("a", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerows([HEAD] if fresh else [])
                table.writerow(told)
            print(*told, flush=True)


def judge(rows: list[int], pool: Simulated, other: Simulated, numbers: np.ndarray) -> list[str]:
    """Families that are seen, evenness of the opinions, and what can be learnt from the chosen images."""
    truths: list[Truth] = [pool.truths[row] for row in rows]
    families = {one.family for truth in truths for one in truth.applied}
    opinions = np.array([overall_level(truth) for truth in truths])
    shares = np.bincount(np.clip(np.rint(opinions), 1, 5).astype(int), minlength=6)[1:] / len(rows)
    entropy = -float((shares[shares > 0] * np.log(shares[shares > 0])).sum() / np.log(5))
    head = RegressionHead(100.0).fit(numbers[rows], opinions)
    scores = head.predict(numbers[len(pool.truths) :])
    srcc = spearman(scores, np.array([overall_level(truth) for truth in other.truths]))
    return [str(len(families)), f"{entropy:.4f}", f"{srcc:.4f}"]


if __name__ == "__main__":
    main()
