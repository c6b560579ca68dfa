"""Peak memory of ``fewer compress`` on a folder of many large photos (made up: noise that was enlarged).

    python benchmarks/large_folder.py --photos 5000 --distinct 40 --calibration 128 --out results.csv

Photos of 4000 x 3000 pixels are written once each and linked under many names, so that the disk holds few of them while
the program sees as many files as there are names. The command line runs in a process of its own, and the most memory
that it had resident is what the system says of it afterwards.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image


def make_photos(folder: Path, count: int, distinct: int) -> None:
    """``count`` names of ``distinct`` photos of 12 megapixels."""
    rng = np.random.default_rng(0)
    for index in range(distinct):
        coarse = Image.fromarray(rng.integers(0, 255, (75, 100, 3), dtype=np.uint8))
        coarse.resize((4000, 3000), Image.Resampling.BILINEAR).save(folder / f"{index:05d}.jpg", quality=80)
    for index in range(distinct, count):
        os.link(folder / f"{index % distinct:05d}.jpg", folder / f"{index:05d}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photos", type=int, default=5000)
    parser.add_argument("--distinct", type=int, default=200)
    parser.add_argument("--calibration", type=int, default=128)
    parser.add_argument("--heldout", type=int, default=32)
    parser.add_argument("--sensing", type=int, default=4)
    parser.add_argument("--model", default="fewer/mobilenet-v2")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        folder.mkdir()
        make_photos(folder, args.photos, args.distinct)
        began = time.perf_counter()
        words = [sys.executable, "-m", "fewer", "compress", args.model, "--images", str(folder)]
        words += ["--budget", "weights=50%"]
        words += ["--calibration", str(args.calibration), "--heldout", str(args.heldout)]
        words += ["--sensing", str(args.sensing), "--estimator", "taylor", "--sparsities", "0.5,0.75"]
        words += ["--allocator", "dp", "--baselines", "none", "--additivity", "0", "--backend", "serial"]
        done = subprocess.run([*words, "--out", str(Path(place) / "run")], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        row = {
            "photos": args.photos,
            "megapixels": 12,
            "distinct": args.distinct,
            "model": args.model,
            "calibration": args.calibration,
            "heldout": args.heldout,
            "peak_gb": round(peak / 1e9, 2),
            "seconds": round(time.perf_counter() - began),
        }
    print(row)
    if args.out:
        with args.out.open("w", newline="") as file:
            writer = csv.DictWriter(file, row)
            writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()
