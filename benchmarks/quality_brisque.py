"""BRISQUE on the distorted squares that the benchmark of quality judges on: SRCC against the simulated opinion.

The package ``brisque`` (Apache-2.0; pip install "brisque[opencv-python-headless]") brings the published model, which
was fitted to real opinions on other distortions. It reads its normalisation by pickle, so it is no part of fewer.

    python benchmarks/quality_brisque.py --seeds 1
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path

import numpy as np

from fewer.data.decode import read_image
from fewer.data.photos import real_photos
from fewer.tasks.quality.correlation import correlations
from fewer.tasks.quality.experiment import KNOWN, UNSEEN
from fewer.tasks.quality.simulator import Simulated, simulate_images

OUT = Path(__file__).parent / "results" / "quality_brisque.csv"


def main() -> None:
    """Measure the seeds that are asked for."""
    from brisque import BRISQUE  # pyright: ignore[reportMissingImports]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judged", type=int, default=120)
    given = parser.parse_args()
    judge = BRISQUE(url=False)
    rows = []
    for seed in range(given.seeds):
        photos = [photo.path for photo in real_photos()]
        order = np.random.default_rng([seed, 8]).permutation(len(photos))
        held = [photos[i] for i in order[: max(1, len(photos) // 4)]]
        with tempfile.TemporaryDirectory() as place:
            more = {"families": UNSEEN, "seed": seed + 2, "most": 1}
            sets = {
                "seen": simulate_images(held, Path(place) / "a", given.judged, families=KNOWN, seed=seed + 1),
                "unseen": simulate_images(held, Path(place) / "b", given.judged, **more),
            }
            for name, group in sets.items():
                rows.append([seed, given.judged, name, f"{srcc(judge, group):.4f}"])
                print(*rows[-1], flush=True)
    with OUT.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([["seed", "images", "families", "srcc"], *rows])


def srcc(judge: object, group: Simulated) -> float:
    """SRCC of BRISQUE, whose scores are lower for better images."""
    images = [np.asarray(read_image(group.folder / truth.image).convert("RGB")) for truth in group.truths]
    scores = np.array([-float(judge.score(image)) for image in images])  # pyright: ignore
    return correlations(np.nan_to_num(scores, nan=-100), np.array(list(group.opinions.values())))["srcc"]


if __name__ == "__main__":
    main()
