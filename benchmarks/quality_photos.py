"""How many clean photos the encoder of quality needs: SRCC and accuracy on other photos, by the photos that it saw.

The linear layers of the encoder alone are judged, without a language model, on the photos that
``benchmarks/quality.py`` judges on as well. ``--more FOLDER`` adds photos of one's own to those of the installed
packages. SSIM and PSNR know the photo as it was before: what they get is what sight of the difference alone tells of
the simulated opinions. Resumable; the mechanism on simulated opinions.

    python benchmarks/quality_photos.py --seeds 3 --more wallpapers/
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from pathlib import Path
from time import process_time
from unittest.mock import patch

import numpy as np
import torch

from fewer.data.decode import read_image
from fewer.data.distortions.truth import family
from fewer.data.images import list_images
from fewer.data.photos import real_photos
from fewer.tasks.quality.correlation import spearman
from fewer.tasks.quality.encoders import StatisticsEncoder
from fewer.tasks.quality.experiment import KNOWN, UNSEEN, photos_held
from fewer.tasks.quality.perception import score_answers
from fewer.tasks.quality.pretraining import Reader, pretrain
from fewer.tasks.quality.simulator import Simulated, simulate_images, true_questions

OUT = Path(__file__).parent / "results" / "quality_photos.csv"
HEAD = ["seed", "photos", "distorted", "srcc_seen", "srcc_without_tones", "srcc_unseen", "srcc_trained_photos"]
HEAD += ["ssim_seen", "psnr_seen", "accuracy", "chance", "cpu_seconds"]
TONES = ("exposure", "contrast", "colour")


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--distorted", default="4000")
    parser.add_argument("--judged", type=int, default=120)
    parser.add_argument("--more", default="", help="folder of further clean photos")
    given = parser.parse_args()
    more = list_images(given.more) if given.more else []
    done: set[tuple[str, ...]] = set()
    if OUT.exists():
        with OUT.open() as file:
            done = {tuple(row[key] for key in HEAD[:3]) for row in csv.DictReader(file)}
    for seed in range(given.seeds):
        held = photos_held(seed)
        own = [photo.path for photo in real_photos() if photo.path not in set(held)]
        order = np.random.default_rng([seed, 33]).permutation(len(own))
        own = [own[int(i)] for i in order]
        for photos in (own[:8], own[:15], own, *([[*own, *more]] if more else [])):
            for distorted in map(int, given.distorted.split(",")):
                if (str(seed), str(len(photos)), str(distorted)) not in done:
                    row = [seed, len(photos), distorted, *measure(photos, held, distorted, given.judged, seed)]
                    fresh = not OUT.exists()
                    with OUT.open("a", newline="") as file:
                        table = csv.writer(file, lineterminator="\n")
                        table.writerows([HEAD] if fresh else [])
                        table.writerow(row)
                    print(*row, flush=True)


def measure(photos: list[Path], held: list[Path], distorted: int, judged: int, seed: int) -> list[str]:
    """One encoder, judged on photos that it never saw, and on those that it did."""
    began = process_time()
    torch.manual_seed(seed)
    reader = pretrain(StatisticsEncoder(), photos, distorted, families=KNOWN, seed=seed)
    with tempfile.TemporaryDirectory() as place:
        judge = simulate_images(held, f"{place}/judged", judged, families=KNOWN, seed=seed + 1)
        unseen = simulate_images(held, f"{place}/unseen", judged, families=UNSEEN, seed=seed + 2, most=1)
        same = simulate_images(photos, f"{place}/same", judged, families=KNOWN, seed=seed + 3)
        plain = [t.image for t in judge.truths if not any(family(a.family).aspect in TONES for a in t.applied)]
        numbers = [_srcc(reader, judge), _srcc(reader, judge, plain), _srcc(reader, unseen), _srcc(reader, same)]
        numbers += _with_reference(held, judge, f"{place}/clean", judged, seed)
        questions = true_questions(judge.truths, seed)
        scored = score_answers(
            questions, reader.choose(questions, {t.image: _pixels(judge, t.image) for t in judge.truths})
        )
    told = [*numbers, scored.accuracy, float(scored.rows["all"]["chance"] or 0)]
    return [*(f"{value:.4f}" for value in told), f"{process_time() - began:.0f}"]


def _pixels(group: Simulated, name: str) -> np.ndarray:
    return np.asarray(read_image(group.folder / name).convert("RGB"))


def _with_reference(held: list[Path], judge: Simulated, folder: str, count: int, seed: int) -> list[float]:
    """SRCC of SSIM and of PSNR, which compare each image with the very square before it was distorted."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    with patch("fewer.tasks.quality.simulator.distort", lambda pixels, applied, seed: pixels):
        clean = simulate_images(held, folder, count, families=KNOWN, seed=seed + 1)
    found = []
    for truth in judge.truths:
        before, after = _pixels(clean, truth.image), _pixels(judge, truth.image)
        with np.errstate(divide="ignore"):
            found.append((structural_similarity(before, after, channel_axis=2), peak_signal_noise_ratio(before, after)))
    opinions = np.array(list(judge.opinions.values()))
    return [spearman(np.nan_to_num(np.array(scores), posinf=200), opinions) for scores in zip(*found, strict=True)]


def _srcc(reader: Reader, group: Simulated, names: list[str] | None = None) -> float:
    names = list(group.opinions) if names is None else names
    levels = reader.levels([_pixels(group, name) for name in names])
    return spearman(levels, np.array([group.opinions[name] for name in names]))


if __name__ == "__main__":
    main()
