"""What does a warm-up without labels add? One choice of labels, trained from random and from warmed weights.

800 *simulated* skin lesions at 64 x 64 pixels. For each seed three quarters are the pool; 10 or 20 images of it are
chosen by ``coverage`` over DINOv2-small vectors, as in ``cold_start.py``. Then the same small U-Net is trained on them
for the same 300 steps with the same seed: from random weights, after 600 steps of restoration on all images of the
pool, or after 200 steps of contrast on them (each of which sees 32 views, eight times as many as one of restoration).
Score: mean Dice of the held-out quarter. Intervals are 95 % (Student's t) of the paired difference over seeds.

    python benchmarks/warm_up.py              # goes on where it stopped
    python benchmarks/warm_up.py --summary    # only the table, from the CSV
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import numpy as np
from cold_start import CACHE, RESULTS, lesion_pictures, lesion_vectors
from cold_start_unet import Trainer, settings

from fewer.reports import environment
from fewer.selection.methods import choose
from fewer.selection.pool import Pool

COLUMNS = ("start", "budget", "seed", "score", "second", "warm_up_seconds", "seconds")
STEPS = {"restoration": 600, "contrastive": 200}
BUDGETS = (10, 20)


def warmed(kind: str, trainer: Trainer, rows: np.ndarray, seed: int) -> tuple[Path, float]:
    """Folder of a network that was warmed up on rows of the pool, and the seconds that took."""
    from fewer.tasks.segment.dataset import image_pool
    from fewer.tasks.segment.warmup import warm_network

    folder, began = CACHE / f"warm-{kind}-{seed}", time.perf_counter()
    pool = image_pool([trainer.data.cases[row].images[0] for row in rows])
    steps = {"warm_up_steps": STEPS[kind], "every": 100}
    warm_network(pool, settings(seed, warm_up=kind, **steps)).save(folder)
    return folder, time.perf_counter() - began


def summarise(rows: list[dict]) -> list[dict]:
    """Mean Dice, and the paired difference from random weights with its interval."""
    from scipy.stats import t as student

    table = {(r["start"], int(r["budget"]), int(r["seed"])): float(r["score"]) for r in rows}
    summary = []
    for start in ("random weights", *STEPS):
        for budget in BUDGETS:
            seeds = [s for n, b, s in table if (n, b) == (start, budget) and ("random weights", budget, s) in table]
            score = np.array([table[start, budget, s] for s in seeds])
            if len(seeds) < 2:
                continue
            gain = score - np.array([table["random weights", budget, s] for s in seeds])
            half = student.ppf(0.975, len(seeds) - 1) * gain.std(ddof=1) / np.sqrt(len(seeds))
            summary.append(
                {
                    "start": start,
                    "budget": budget,
                    "seeds": len(seeds),
                    "score": round(float(score.mean()), 4),
                    "gain": round(float(gain.mean()), 4),
                    "gain_interval": round(float(half), 4),
                }
            )
    return summary


def main() -> None:
    """Run what has no row yet, then summarise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--kinds", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--out", type=Path, default=RESULTS / "warm_up.csv")
    parser.add_argument("--summary", action="store_true")
    args = parser.parse_args()
    rows = list(csv.DictReader(args.out.open())) if args.out.exists() else []
    if not rows:
        args.out.write_text(",".join(COLUMNS) + "\n")
    known = {(r["start"], r["budget"], r["seed"]) for r in rows}
    trainer = None
    for kind, seed in [(k, s) for k in args.kinds for s in range(args.seeds)] if not args.summary else ():
        wanted = [(n, b) for n in ("random weights", kind) for b in BUDGETS if (n, str(b), str(seed)) not in known]
        if not wanted:
            continue
        trainer = trainer or Trainer(CACHE / "lesions-64", lesion_pictures)
        tokens, _, share = lesion_vectors()
        order = np.random.default_rng([seed, 11]).permutation(len(share))  # the split of cold_start.py
        here, test = np.sort(order[: len(order) * 3 // 4]), np.sort(order[len(order) * 3 // 4 :])
        pool = Pool(np.asarray(tokens[here, 0], np.float32), foreground=share[here])
        folder, spent = warmed(kind, trainer, here, seed)
        for start, budget in wanted:
            chosen = here[choose(pool, "coverage", budget, seed=seed * 3).rows]
            more, began = {"init": str(folder)} if start == kind else {}, time.perf_counter()
            score, second = trainer(chosen, test, seed, **more)
            row = dict(zip(COLUMNS[:3], (start, str(budget), str(seed)), strict=True))
            row |= {"score": f"{score:.5f}", "second": f"{second:.5f}"}
            row |= {"warm_up_seconds": f"{spent if more else 0:.1f}", "seconds": f"{time.perf_counter() - began:.1f}"}
            rows.append(row)
            known.add((start, str(budget), str(seed)))
            with args.out.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(row)
            print(*row.values(), flush=True)
    summary = summarise(rows)
    with args.out.with_name("warm_up_summary.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(summary[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(summary)
    args.out.with_suffix(".json").write_text(json.dumps(environment(), indent=1) + "\n")
    for row in summary:
        print(*row.values())


if __name__ == "__main__":
    main()
