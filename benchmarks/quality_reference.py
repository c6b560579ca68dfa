"""What metrics get of the simulated opinions: SSIM and PSNR, which know the clean photo, and BRISQUE, which does not.

SSIM and PSNR compare each distorted square with the very square before; no judge without it can be expected to do
better by much. The images are those that ``benchmarks/quality.py`` judges on. BRISQUE needs the packages ``brisque``,
``libsvm-official`` and OpenCV. Resumable; simulated opinions.

    python benchmarks/quality_reference.py --seeds 3
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
from quality import brisque, changes_tones
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from fewer.data.decode import read_image
from fewer.tasks.quality.correlation import spearman
from fewer.tasks.quality.experiment import KNOWN, photos_held
from fewer.tasks.quality.simulator import Simulated, simulate_images

OUT = Path(__file__).parent / "results" / "quality_reference.csv"
HEAD = ["seed", "images", "ssim", "psnr", "brisque", "without_tones", "brisque_without_tones"]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--judged", type=int, default=120)
    given = parser.parse_args()
    done: set[tuple[str, ...]] = set()
    if OUT.exists():
        with OUT.open() as file:
            done = {(row["seed"], row["images"]) for row in csv.DictReader(file)}
    for seed in range(given.seeds):
        if (str(seed), str(given.judged)) not in done:
            row = [seed, given.judged, *measure(seed, given.judged)]
            fresh = not OUT.exists()
            with OUT.open("a", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerows([HEAD] if fresh else [])
                table.writerow(row)
            print(*row, flush=True)


def measure(seed: int, count: int) -> list[str]:
    """SRCC of each metric with the opinions, and of BRISQUE on images whose light and colours were not changed."""
    held = photos_held(seed)
    with tempfile.TemporaryDirectory() as place:
        judge = simulate_images(held, f"{place}/judged", count, families=KNOWN, seed=seed + 1)
        with patch("fewer.tasks.quality.simulator.distort", lambda pixels, applied, seed: pixels):
            clean = simulate_images(held, f"{place}/clean", count, families=KNOWN, seed=seed + 1)
        images = [(_pixels(clean, truth.image), _pixels(judge, truth.image)) for truth in judge.truths]
    opinions = np.array(list(judge.opinions.values()))
    with np.errstate(divide="ignore"):
        psnr = np.nan_to_num([peak_signal_noise_ratio(*pair) for pair in images], posinf=200)
    told = [spearman(np.array([structural_similarity(*pair, channel_axis=2) for pair in images]), opinions)]
    told.append(spearman(psnr, opinions))
    scores = brisque([after for _, after in images])
    plain = np.array([not changes_tones(truth) for truth in judge.truths])
    rest = ["", str(int(plain.sum())), ""]
    if scores is not None:
        rest[0], rest[2] = (f"{spearman(scores[of], opinions[of]):.4f}" for of in (np.ones(count, bool), plain))
    return [*(f"{value:.4f}" for value in told), *rest]


def _pixels(group: Simulated, name: str) -> np.ndarray:
    return np.asarray(read_image(group.folder / name).convert("RGB"))


if __name__ == "__main__":
    main()
