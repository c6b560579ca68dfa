"""How long does choosing take on a large pool? One million vectors of 384 numbers, 1,000 picks, a memory map on disk.

Each method runs in a process of its own, so that its peak memory is its own; pages of the mapped file that the system
keeps in memory are counted too. The vectors are made up: 2,000 Gaussian heaps of uneven size, and noise. Seconds are
those on the wall; the rows were taken with two threads on two cores that other jobs shared, so compare cpu_seconds, the
processor time of all threads, imports included.

    python benchmarks/select_scale.py                    # all methods; goes on where it stopped
    python benchmarks/select_scale.py --images 100000    # smaller

The goal is 10 minutes and 4 GB on 2 cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fewer.reports import environment

HERE = Path(__file__).parent / "results"
COLUMNS = ("images", "dim", "picks", "method", "seconds", "cpu_seconds", "peak_memory_mb", "file_mb", "threads", "met")
METHODS = ("random", "coverage", "kcenter", "typiclust", "probcover", "saal-corrected", "saal", "entropy")


def make(path: Path, images: int, dim: int, seed: int = 0) -> None:
    """Write the vectors block by block."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(2000, 24)) @ rng.normal(size=(24, dim)) / 5
    share = 1 / np.arange(1, 2001) ** 0.7
    out = np.lib.format.open_memmap(path, "w+", np.float32, (images, dim))
    for start in range(0, images, 20_000):
        count = min(20_000, images - start)
        heap = rng.choice(2000, count, p=share / share.sum())
        out[start : start + count] = centres[heap] + rng.normal(0, 0.35, (count, dim))
    out.flush()


def one(path: Path, method: str, picks: int) -> dict:
    """Choose once in this process, and say what it took."""
    from fewer.selection.methods import choose
    from fewer.selection.pool import Pool

    features = np.load(path, mmap_mode="r")
    began = time.perf_counter()
    predictions = np.random.default_rng(0).dirichlet(np.ones(4), len(features)) if method == "entropy" else None
    chosen = choose(Pool(features, predictions=predictions), method, picks, seed=0)
    seconds, cpu = time.perf_counter() - began, time.process_time()
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("Vm")
    )
    peak = int(status["VmHWM"].split()[0]) / 1024
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_memory_mb": round(peak),
        "chosen": len(set(chosen.rows.tolist())),
    }


def main() -> None:
    """Run what has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--picks", type=int, default=1000)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--out", type=Path, default=HERE / "select_scale.csv")
    parser.add_argument("--one", nargs=2, metavar=("FILE", "METHOD"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(Path(args.one[0]), args.one[1], args.picks)))
        return
    done: list[dict] = list(csv.DictReader(args.out.open())) if args.out.exists() else []
    key = (str(args.images), str(args.dim), str(args.picks))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        for method in args.methods:
            if any((r["images"], r["dim"], r["picks"]) == key and r["method"] == method for r in done):
                continue
            if not path.exists():
                make(path, args.images, args.dim)
            words = [sys.executable, __file__, "--picks", str(args.picks), "--one", str(path), method]
            told = subprocess.run(words, capture_output=True, text=True, check=False)
            if told.returncode:
                print(method, f"failed ({told.returncode}):", *told.stderr.strip().splitlines()[-1:])
                continue
            got = json.loads(told.stdout.strip().splitlines()[-1])
            row = dict(
                zip(COLUMNS, (*key, method, got["seconds"], got["cpu_seconds"], got["peak_memory_mb"]), strict=False)
            )
            row |= {
                "file_mb": round(args.images * args.dim * 4 / 2**20),
                "threads": environment()["threads"],
                "met": "yes" if got["seconds"] <= 600 and got["peak_memory_mb"] <= 4096 else "no",
            }
            done.append(row)
            with args.out.open("w", newline="") as file:
                table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                table.writeheader()
                table.writerows(done)
            print(*row.values(), flush=True)
    (args.out.with_suffix(".json")).write_text(json.dumps(environment(), indent=1) + "\n")


if __name__ == "__main__":
    main()
