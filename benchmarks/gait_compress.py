"""Trained gait networks through ``fewer compress``: rank-1 before and after a budget, and the time that was measured.

Everything is simulated: the walkers, and so every score. Networks are trained as ``fewer train`` does it; persons that
judge did not train. ``ours`` is the library's default; ``uniform`` and ``lamp`` are the rows of its report, under the
same budget and with the same repair. A rule that cannot follow where a budget in time is corrected by what was timed
gets the budget as predicted, and its row says so; ``ours, as predicted`` is our plan under that very budget, so that
like is compared with like. ``ours, plain distance`` plans by the relative squared change of embeddings
(``--distance plain``). Rows that are there are not made again, so that it may be stopped at any time.
Times are those of this machine while it does whatever else it does: the ratio to the dense model counts.

    python benchmarks/gait_compress.py --work /tmp/gait --motion walkers.npz
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path
from typing import Any

import torch

import fewer
from fewer.core.errors import FewerError
from fewer.core.stamp import environment
from fewer.engine.settings import Settings
from fewer.tasks.gait.settings import TrainSettings
from fewer.tasks.gait.simulator import Walkers
from fewer.tasks.gait.training import train

OUT = Path(__file__).parent / "results" / "gait_compress.csv"
KEY = ("network", "tpa", "size", "seed", "budget", "method")
COLUMNS = (
    *KEY, "rank1_dense", "rank1", "nm", "bg", "cl", "distortion", "share", "ms_dense", "ms_measured", "ratio",
    "predicted_ratio", "runtime", "steps", "test_people", "calibration", "seconds", "load", "threads", "processor",
    "date", "told",
)  # fmt: skip
RIVALS = ("uniform", "lamp")
OURS = {"task": "ours", "plain": "ours, plain distance"}
KINDS = ("nm-01", "nm-02", "nm-05", "nm-06", "bg-01", "bg-02", "cl-01", "cl-02")
VIEWS = ("036", "072", "108", "144")


def walkers(args: argparse.Namespace) -> Path:
    """The simulated set, written once."""
    root = args.work / f"walkers-{args.people}-{args.frames}"
    if not (root / "partition.json").exists():
        made = Walkers(seed=0, motion=args.motion)
        made.write(root, args.people, train=args.people - args.test, kinds=KINDS, views=VIEWS, frames=args.frames)
    return root


def trained(args: argparse.Namespace, network: str, tpa: str, seed: int) -> Path:
    """A run folder; a training that was stopped goes on."""
    run = args.work / f"{network}-{tpa}-{args.size}-{args.steps}-{seed}"
    if not (run / "report.json").exists():
        settings = TrainSettings(
            network=network, tpa=tpa, size=args.size, steps=args.steps, every=args.steps, seed=seed, batch=12, each=2,
            frames=24, skip=0, validate_share=0.0, learning_rate=1e-2,
        )  # type: ignore[arg-type]  # fmt: skip
        train(walkers(args), out=run, settings=settings, resume=run.exists())
    return run


def rows_of(args: argparse.Namespace, run: Path, budget: str, common: dict[str, Any]) -> list[dict[str, Any]]:
    """Compress and judge: a row for ours and one for each rival of the report."""
    began = time.process_time()
    settings = Settings(
        calibration=args.calibration, heldout=16, additivity=0, threads=torch.get_num_threads(), seed=common["seed"],
        baselines=RIVALS, runtime=args.runtime, distance=args.distance,
    )  # fmt: skip
    data = str(walkers(args))
    out = run.with_name(f"{run.name}-{budget.replace('=', '')}")
    try:
        done = fewer.compress(str(run), data, budget, out=out, overwrite=True, settings=settings, quality=data)
    except FewerError as error:
        return [{**common, "method": OURS[args.distance], "told": str(error)}]
    report = done.report
    labelled = {entry.name: entry for entry in report.verdict.quality}
    metric = budget.partition("=")[0]
    ours = {
        **common, "method": OURS[args.distance],
        "rank1_dense": labelled["rank-1"].dense, "rank1": labelled["rank-1"].value,
        **{name.lower(): labelled[name].value for name in ("NM", "BG", "CL") if name in labelled},
        "distortion": report.verdict.distortion, "seconds": round(time.process_time() - began, 1),
        "share": round(done.plan.cost[metric] / done.plan.dense[metric], 3), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    if (seen := report.latency) is not None:
        ours |= {"ms_dense": round(seen.dense_ms, 3), "ms_measured": round(seen.measured_ms, 3)}
        ours |= {"ratio": round(seen.measured_ms / seen.dense_ms, 3)}
        told = done.curves.meta.get("device") or {}
        ours |= {"predicted_ratio": round(seen.predicted_ms / seen.dense_ms, 3), "runtime": told.get("runtime", "")}
    rivals = [
        {
            **common, "method": row.name, "rank1_dense": ours["rank1_dense"], "rank1": row.quality.get("rank-1", ""),
            **{name.lower(): row.quality.get(name, "") for name in ("NM", "BG", "CL")}, "distortion": row.distortion,
        }
        for row in report.baselines
        if not row.ours
    ]  # fmt: skip
    there = {row["method"] for row in rivals}
    missing = [name for name in RIVALS if name not in there and name not in done.plan.method]
    return [ours, *rivals, *(loosened(args, out, missing, budget, common) if missing else [])]


def loosened(
    args: argparse.Namespace, out: Path, missing: list[str], budget: str, common: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rules that cannot follow where time is corrected by what was measured: they get the budget as predicted."""
    first, *others = reversed(missing)  # the plan of one is applied, the others are rows of its report
    try:
        plan = fewer.plan(str(out), budget, allocator=first)
    except FewerError as error:
        return [{**common, "method": name, "told": str(error)} for name in missing]
    told = "the budget as predicted: this rule has no plan where time is corrected by what was measured"
    row, done = applied(out, plan, first, {**common, "told": told})
    rows = {entry.name: entry for entry in done.report.baselines if entry.name in others}
    ours, _ = applied(out, fewer.plan(str(out), budget), "ours, as predicted", {**common, "told": "beside such rules"})
    return [
        row,
        ours,
        *(
            {
                **common, "method": name, "rank1_dense": row["rank1_dense"], "distortion": entry.distortion,
                "rank1": entry.quality.get("rank-1", ""), "told": told,
                **{key.lower(): entry.quality.get(key, "") for key in ("NM", "BG", "CL")},
            }
            for name, entry in rows.items()
        ),
    ]  # fmt: skip


def applied(out: Path, plan: Any, name: str, common: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Apply a plan and time it: a row, and the run."""
    done = fewer.apply(str(out), plan, out=out.with_name(f"{out.name}-{name.replace(', ', '-')}"), overwrite=True)
    labelled = {entry.name: entry for entry in done.report.verdict.quality}
    metric = common["budget"].partition("=")[0]
    row = {
        **common, "method": name, "rank1_dense": labelled["rank-1"].dense, "rank1": labelled["rank-1"].value,
        **{key.lower(): labelled[key].value for key in ("NM", "BG", "CL") if key in labelled},
        "distortion": done.report.verdict.distortion, "share": round(plan.cost[metric] / plan.dense[metric], 3),
        "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip
    if (seen := done.report.latency) is not None:
        row |= {"ms_dense": round(seen.dense_ms, 3), "ms_measured": round(seen.measured_ms, 3)}
        row |= {"ratio": round(seen.measured_ms / seen.dense_ms, 3)}
    return row, done


def main() -> None:
    """Make what has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--motion", type=Path, default=None, help="motion capture; else a model of joint angles")
    parser.add_argument(
        "--networks", nargs="+", default=["gaitbase:moments", "gaitbase:off", "gaitset:off", "gaitgl:off"]
    )
    parser.add_argument("--budgets", nargs="+", default=["latency=0.5x"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--size", default="tiny")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--people", type=int, default=70)
    parser.add_argument("--test", type=int, default=30)
    parser.add_argument("--frames", type=int, default=44)
    parser.add_argument("--calibration", type=int, default=24)
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--distance", default="task", choices=list(OURS), help="what plans keep small")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    rows = list(csv.DictReader(args.out.open(newline=""))) if args.out.exists() else []
    known = {tuple(row[c] for c in KEY[:-1]) for row in rows if row["method"] == OURS[args.distance]}
    having = {tuple(row[c] for c in KEY) for row in rows}
    stamp = {"threads": args.threads, "processor": environment().get("cpu", ""), "date": time.strftime("%Y-%m-%d")}
    stamp |= {"steps": args.steps, "test_people": args.test, "calibration": args.calibration}
    for seed in args.seeds:
        for one in args.networks:
            network, _, tpa = one.partition(":")
            for budget in args.budgets:
                common = {"network": network, "tpa": tpa, "size": args.size, "seed": seed, "budget": budget}
                key = tuple(map(str, common.values()))
                missing = [name for name in RIVALS if (*key, name) not in having]
                run = args.work / f"{network}-{tpa}-{args.size}-{args.steps}-{seed}"
                out = run.with_name(f"{run.name}-{budget.replace('=', '')}")
                if key in known and not (missing and (out / "curves.npz").exists()):
                    continue
                if key in known:  # rivals alone are missing, and the run is there
                    found = loosened(args, out, missing, budget, common)
                else:
                    found = rows_of(args, trained(args, network, tpa, seed), budget, common)
                rows += [dict.fromkeys(COLUMNS, "") | stamp | row for row in found]
                args.out.parent.mkdir(parents=True, exist_ok=True)
                with args.out.open("w", newline="") as file:
                    table = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    table.writeheader()
                    table.writerows({k: round(v, 5) if isinstance(v, float) else v for k, v in r.items()} for r in rows)
                for row in found:
                    print({k: row.get(k, "") for k in (*KEY, "rank1_dense", "rank1", "ratio", "told")}, flush=True)


if __name__ == "__main__":
    main()
