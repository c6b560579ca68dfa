"""How much of the lost quality does training for ten minutes win back, without labels?

Each cell is what a user does: ``fewer compress MODEL --images photos/ --budget weights=30%`` and then
``fewer recover run/ --time 10min``. Beside the default stands the simple way at the same time: end-to-end distillation
of the output alone (``end to end``), and the blocks' errors without a first stage of their own (``together``). Error is
the distortion on held-out photos, which neither taught nor chose; ``won`` is the share of it that came back.

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/recover.py --work /tmp/recover     # goes on where it stopped

The compressed runs are kept in ``--work``. Photos: those that scikit-image, scikit-learn and foolbox ship, 40 files.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import torch

import fewer
from fewer.core.run import RunFolder
from fewer.data.photos import real_photos
from fewer.report import RunReport, environment
from fewer.verbs.settings import Settings

HERE = Path(__file__).parent / "results"
COLUMNS = (
    "model", "pattern", "sparsity", "seed", "method", "time", "threads", "steps", "best_step", "before", "after", "won",
    "quality_name", "quality_before", "quality_after", "seconds",
)  # fmt: skip
KEY = COLUMNS[:7]
CELLS = (
    ("fewer/dinov2-small", "block:16x4", 0.5),
    ("fewer/mobilenet-v2", "unstructured", 0.7),
    ("fewer/dinov2-small", "block:16x16", 0.5),
    ("fewer/mobilenet-v2", "block:16x4", 0.5),
    ("fewer/dinov2-small", "unstructured", 0.7),
    ("fewer/dinov2-small", "block:16x4", 0.7),
    ("fewer/dinov2-small", "block:16x16", 0.7),
)
METHODS: dict[str, dict[str, float]] = {
    "default": {},
    "end to end": {"alone": 0.0, "blocks": 0.0},
    "together": {"alone": 0.0},
}


def compressed(work: Path, model: str, pattern: str, sparsity: float) -> Path:
    """A run of this cell; its curves are sensed once for all sparsities."""
    name = f"{model.split('/')[1]}-{pattern.replace(':', '-')}"
    place, curves = work / f"{name}-{sparsity:g}", work / name
    settings = Settings(pattern=pattern, calibration=40, heldout=32, baselines=(), additivity=0)
    photos = [str(photo.path) for photo in real_photos()]
    if not RunFolder(curves).has("curves"):
        fewer.sense(model, photos, out=curves, settings=settings, resume=curves.exists())
    if not RunFolder(place).has("report_json"):
        with RunFolder.create(place, resume=True) as target, RunFolder.create(curves, resume=True) as source:
            for file in ("config", "curves"):
                target.write_bytes(file, source.file(file).read_bytes())
        fewer.apply(place, fewer.plan(curves, f"weights={1 - sparsity:.0%}"))
    return place


def row_of(report: RunReport) -> dict[str, str]:
    """What a recovery reached."""
    found = report.recovery
    assert found is not None
    return {
        "steps": str(found.steps),
        "best_step": str(found.best_step),
        "before": f"{found.before:.6g}",
        "after": f"{found.after:.6g}",
        "won": f"{found.won:.4f}",
        "quality_name": found.quality_name,
        "quality_before": f"{found.quality_before:.5f}",
        "quality_after": f"{found.quality_after:.5f}",
        "seconds": f"{found.seconds:.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("recover-work"))
    parser.add_argument("--time", default="10min")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--cells", nargs="*", type=int, default=list(range(len(CELLS))), help="numbers of settings")
    parser.add_argument("--out", type=Path, default=HERE / "recover.csv")
    args = parser.parse_args()
    if not args.out.exists():
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(",".join(COLUMNS) + "\n", "utf-8")
    with args.out.open(encoding="utf-8") as file:
        done = {tuple(row[c] for c in KEY) for row in csv.DictReader(file)}
    stamp = json.dumps(environment(threads=torch.get_num_threads()), indent=1)
    args.out.with_suffix(".json").write_text(stamp + "\n", "utf-8")
    for seed in range(args.seeds):
        for method in args.methods:
            for model, pattern, sparsity in (CELLS[index] for index in args.cells):
                values = (model, pattern, sparsity, seed, method, args.time, torch.get_num_threads())
                row = dict(zip(KEY, map(str, values), strict=True))
                if tuple(row.values()) in done:
                    continue
                run = compressed(args.work, model, pattern, sparsity)
                place = args.work / f"{run.name}-{method.replace(' ', '-')}-{args.time}-{seed}"
                found = fewer.recover(
                    run, args.time, out=place, seed=seed, course=METHODS[method], resume=place.exists()
                )
                row |= row_of(found.report)
                with args.out.open("a", encoding="utf-8") as file:
                    csv.DictWriter(file, COLUMNS).writerow(row)
                print(*row.values(), flush=True)


if __name__ == "__main__":
    main()
