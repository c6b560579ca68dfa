"""Detectors of LiDAR scans at fewer FLOPs: average precision of every method on simulated scenes that it has not seen.

Everything is simulated: the scans, and so the scores. The subject ``pointpillars`` is the detector that comes with the
package (``detect3d_weights.py``); others are trained in the same way. Every method cuts them to every budget, with and
without the repair of what stays, calibrated on other scans for every seed, and none is trained again. Rows that are
there are not made again, so that it may be stopped at any time, and compressed detectors that lie in the work folder
are judged as they are. ``--vote no`` judges without the vote of boxes (see ``docs/detect3d.md``). ``--real DIR``
compares boxes of the dense and the compressed detectors on real frames (npz, one frame a file), and ``--plot`` draws
what is there.

    python benchmarks/detect3d.py --work /tmp/detect3d --networks pointpillars --seeds 0
    python benchmarks/detect3d.py --work /tmp/detect3d --recover 5min           # ours with five minutes of recovery
    python benchmarks/detect3d.py --work /tmp/detect3d --latency 0.5 0.33       # measured time and AP, own kernels
    python benchmarks/detect3d.py --work /tmp/detect3d --real kitti_lidar/
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from detect3d_weights import JUDGED_ON, streets, trained
from matplotlib.figure import Figure

import fewer
from fewer.cli.config import resolve
from fewer.core.errors import FewerError
from fewer.core.run import RunFolder
from fewer.core.stamp import environment
from fewer.distortion.outputs import Reference
from fewer.engine.settings import Settings
from fewer.models.spec import LoadedModel, load_model
from fewer.reports import RunReport
from fewer.tasks.detect3d.boxes import points_in_boxes
from fewer.tasks.detect3d.dataset import open_data
from fewer.tasks.detect3d.demo import trained_detector
from fewer.tasks.detect3d.loaded import detector_of
from fewer.tasks.detect3d.metrics.bands import agreement, count_bands
from fewer.tasks.detect3d.real_frames import kitti_frames, write_frames
from fewer.tasks.detect3d.scoring import detect_all, score_detector

RESULTS = Path(__file__).parent / "results"
KEY = ("network", "seed", "factor", "method", "repair", "recover", "vote")
COLUMNS = (
    *KEY, "scans", "flops_dense", "flops", "ap_car_dense", "ap_car", "ap_car_easy", "ap_car_hard",
    "missed_dense", "missed", "spurious_dense", "spurious", "distortion", "seconds", "told",
)  # fmt: skip
TIMES = (
    "network", "seed", "budget", "ap_car_dense", "ap_car", "ms_dense", "ms_measured", "ratio", "predicted",
    "distortion", "seconds", "load", "threads", "told",
)  # fmt: skip
DENSE: dict[Path, Any] = {}
"""Scores of the dense detectors, which all rows of a run share."""
FACTORS = (2.0, 3.0, 3.89, 5.0)
STEERED_BY = 3
"""Seed of the streets that calibrate."""
BY_MAGNITUDE = ("uniform", "erk", "lamp", "global magnitude")
PLAIN = {"pattern": "unstructured", "score": "magnitude", "search": 0, "additivity": 0, "baselines": ()}
METHODS: dict[str, dict[str, Any]] = {
    "uniform": {**PLAIN, "allocator": "uniform"},
    "erk": {**PLAIN, "allocator": "erk"},
    "lamp": {**PLAIN, "allocator": "lamp"},
    "global magnitude": {**PLAIN, "allocator": "global_magnitude"},
    "output mse + dp": {**PLAIN, "allocator": "dp", "estimator": "measured", "reduction": "max"},
    "dm3d": {"preset": "dm3d"},
    "ours": {"additivity": 0, "baselines": ()},
}


def subject(work: Path, network: str, args: argparse.Namespace) -> Path:
    """The run folder of a trained detector."""
    return trained_detector() if network == "pointpillars" else trained(work, network, args.scans, args.steps)


def settings_of(method: str, repair: bool, args: argparse.Namespace, seed: int) -> Settings:
    """The settings of a method."""
    chosen = dict(METHODS[method])
    preset = chosen.pop("preset", None)
    chosen |= {"compensation": "obs" if repair else "none", "seed": seed, "calibration": args.calibration}
    chosen |= {"sensing": args.sensing, "heldout": args.heldout, "batch": 4}
    if not repair and method != "output mse + dp":
        chosen["correction"] = 0.0
    if args.estimator and "estimator" not in chosen and preset is None:
        chosen["estimator"] = args.estimator
    return resolve(chosen, preset=preset)[0] if preset else Settings.of(chosen)


def place(work: Path, network: str, seed: int | str, factor: float | str, method: str, repair: bool) -> Path:
    """Where a compressed detector is kept."""
    kind = "repair" if repair else "plain"
    return work / f"{network}-{float(factor):g}-{method.replace(' ', '')}-{kind}-{seed}"


def voting(loaded: LoadedModel, args: argparse.Namespace) -> Any:
    """A detector whose boxes vote or not, whatever its run says."""
    detector = detector_of(loaded)
    detector.config = detector.config.model_copy(update={"vote": 0.6 if args.vote == "yes" else None})
    return detector


def row_of(run: Path, out: Path, factor: float, method: str, repair: bool, args: argparse.Namespace, seed: int) -> dict:
    """Compress and judge."""
    scans, judged = streets(args.work, STEERED_BY, 120, 0.25), open_data(streets(args.work, JUDGED_ON, 100, 1.0))
    names = judged.names[: args.judge]
    if run not in DENSE:
        DENSE[run] = score_detector(voting(load_model(str(run)), args), judged, names)[0]
    before = DENSE[run]
    began = time.perf_counter()
    more = {"distance": Reference} if method == "output mse + dp" else {}
    try:
        if not (out / "report.json").exists():
            fewer.compress(
                str(run), str(scans), f"flops={1 / factor:.4f}x", out=out, overwrite=True,
                settings=settings_of(method, repair, args, seed), **more,
            )  # fmt: skip
        if args.recover:
            fewer.recover(str(out), args.recover, overwrite=True)
    except FewerError as error:
        return {"told": str(error)}
    seconds = time.perf_counter() - began
    report, plan = RunReport.from_json((out / "report.json").read_text()), RunFolder.open(out).read_plan()
    after = score_detector(voting(load_model(str(out)), args), judged, names)[0]
    first, second = before.measures(), after.measures()

    def total(values: dict[str, float], kind: str) -> int:
        return int(sum(v for k, v in values.items() if k.startswith(kind)))

    return {
        "scans": len(names),
        "flops_dense": f"{plan.dense['flops']:.4g}",
        "flops": f"{plan.cost['flops']:.4g}",
        "ap_car_dense": round(first["AP Car"], 2),
        "ap_car": round(second["AP Car"], 2),
        "ap_car_easy": round(after.ap("Car", "easy") or 0, 2),
        "ap_car_hard": round(after.ap("Car", "hard") or 0, 2),
        "missed_dense": total(first, "missed"),
        "missed": total(second, "missed"),
        "spurious_dense": total(first, "spurious"),
        "spurious": total(second, "spurious"),
        "distortion": f"{report.verdict.distortion:.4g}",
        "seconds": round(seconds, 1) if seconds > 1 else "",  # made earlier
    }


def cells(args: argparse.Namespace) -> Iterator[tuple[str, int, float, str, bool]]:
    """Everything that is to have a row."""
    for network in args.networks:
        for seed in args.seeds:
            for factor in args.factors:
                for method in args.methods:
                    # the published method repairs nothing; the row with repair shows what that alone brings
                    for repair in {"both": (False, True), "no": (False,), "yes": (True,)}[args.repair]:
                        if args.recover and (method != "ours" or not repair):
                            continue
                        # plain magnitudes do not depend on the scans: one row stands for all seeds
                        if method not in BY_MAGNITUDE or repair or seed == args.seeds[0]:
                            yield network, seed, factor, method, repair


def real_frames(runs: dict[str, Path], frames: Path, args: argparse.Namespace, out: Path) -> None:
    """Boxes of the dense and the compressed detectors on real frames, and labelled cars of 50 points or more."""
    work = args.work
    root = work / "real"
    write_frames(kitti_frames(frames), root)
    data_ = open_data(root)
    rows = []
    for name, run in runs.items():
        dense = voting(load_model(str(run)), args)
        truths = {n: data_.objects(n) for n in data_.labelled()}
        found, _ = detect_all(dense, data_, data_.names)
        big = {n: t.take(points_in_boxes(data_.points(n), t.boxes).sum(1) >= 50) for n, t in truths.items()}
        some = [n for n in big if n in found]
        bands = count_bands([big[n] for n in some], [found[n] for n in some], "Car")
        for band in bands:
            facts = {"run": name, "against": "labels of 50 points or more", "band": band.name}
            rows.append(facts | {"boxes": band.objects, "again": band.found, "lost": band.missed, "new": ""})
        for other in sorted(work.glob(f"{name}-*-*-*-*")):
            if (other / "recipe.json").exists():
                cheap, _ = detect_all(voting(load_model(str(other)), args), data_, list(found))
                for band in agreement(list(found.values()), [cheap[n] for n in found], "Car"):
                    facts = {"run": other.name.removeprefix(f"{name}-"), "against": name, "band": band.name}
                    counts = {"boxes": band.objects, "again": band.found, "lost": band.missed, "new": band.spurious}
                    rows.append(facts | counts)
    write(out, tuple(rows[0]), rows)


def write(path: Path, columns: tuple[str, ...], rows: list[dict]) -> None:
    """A table, as a whole."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def in_time(args: argparse.Namespace, runs: dict[str, Path], out: Path) -> None:
    """AP and measured time at budgets in time, the whole detector on one scan, in turns with the dense one in torch."""
    known = list(csv.DictReader(out.open())) if out.exists() else []
    rows: list[dict[str, Any]] = list(known)
    there = {(row["network"], row["seed"], row["budget"]) for row in known}
    scans, judged = streets(args.work, STEERED_BY, 120, 0.25), open_data(streets(args.work, JUDGED_ON, 100, 1.0))
    for network, run in runs.items():
        before = score_detector(detector_of(load_model(str(run))), judged, judged.names[: args.judge])[0]
        for seed in args.seeds:
            for share in args.latency:
                if (network, str(seed), f"{share:g}") in there:
                    continue
                facts = {"network": network, "seed": seed, "budget": f"{share:g}", "told": ""}
                settings = settings_of("ours", True, args, seed).model_copy(update={"threads": args.threads})
                began = time.process_time()
                place_ = args.work / f"{network}-latency-{share:g}-{seed}"
                try:
                    done = fewer.compress(
                        str(run), str(scans), f"latency={share}x", out=place_, overwrite=True, settings=settings
                    )
                except FewerError as error:
                    rows.append(dict.fromkeys(TIMES, "") | facts | {"told": str(error)})
                    write(out, TIMES, rows)
                    print(*rows[-1].values(), flush=True)
                    continue
                after = score_detector(done.model, judged, judged.names[: args.judge])[0]
                seen: Any = done.report.latency
                facts |= {"ap_car_dense": round(before.ap("Car") or 0, 2), "ap_car": round(after.ap("Car") or 0, 2)}
                facts |= {"ms_dense": round(seen.dense_ms, 2), "ms_measured": round(seen.measured_ms, 2)}
                facts |= {"ratio": round(seen.measured_ms / seen.dense_ms, 3)}
                facts |= {"predicted": round(seen.predicted_ms / seen.dense_ms, 3)}
                facts |= {"distortion": f"{done.report.verdict.distortion:.4g}"}
                facts |= {"seconds": round(time.process_time() - began, 1), "load": round(os.getloadavg()[0], 1)}
                rows.append(facts | {"threads": args.threads})
                write(out, TIMES, rows)
                print(*rows[-1].values(), flush=True)


def plot(path: Path) -> None:
    """AP against the factor, each method without and with repair; the band is that of the seeds."""
    rows = [r for r in csv.DictReader(path.open()) if r["ap_car"] and not r["recover"] and r["vote"] == "yes"]
    networks = sorted({row["network"] for row in rows})
    figure = Figure(figsize=(9, 3.6 * len(networks)), layout="constrained")
    for line, network in enumerate(networks):
        for column, repair in enumerate(("False", "True")):
            axes = figure.add_subplot(len(networks), 2, 2 * line + column + 1)
            own = [row for row in rows if row["network"] == network and row["repair"] == repair]
            for method in METHODS:
                found: dict[float, list[float]] = {}
                for row in own:
                    if row["method"] == method:
                        found.setdefault(float(row["factor"]), []).append(float(row["ap_car"]))
                if found:
                    x = sorted(found)
                    (drawn,) = axes.plot(x, [sum(found[f]) / len(found[f]) for f in x], "o-", label=method)
                    low, high = [min(found[f]) for f in x], [max(found[f]) for f in x]
                    axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.15)
            if own:
                axes.axhline(float(own[0]["ap_car_dense"]), color="black", linestyle=":", label="dense")
            axes.set(xlabel="times fewer FLOPs", ylabel="AP of cars, moderate, R40", ylim=(0, 100))
            axes.set_title(f"{network}, {'with' if repair == 'True' else 'without'} repair (simulated)")
            axes.legend(fontsize=7)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def main() -> None:
    """Make what has no row yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--networks", nargs="+", default=["pointpillars"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--factors", nargs="+", type=float, default=list(FACTORS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--scans", type=int, default=320, help="that train, of other networks than the one kept")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--calibration", type=int, default=24)
    parser.add_argument("--sensing", type=int, default=8)
    parser.add_argument("--heldout", type=int, default=8)
    parser.add_argument("--repair", choices=("both", "no", "yes"), default="both")
    parser.add_argument("--vote", choices=("yes", "no"), default="yes")
    parser.add_argument("--judge", type=int, default=None, help="scans that judge at most")
    parser.add_argument("--estimator", default="taylor", help="of methods that do not fix it")
    parser.add_argument("--recover", default="", help="such as 5min: only ours with repair, then recovered")
    parser.add_argument("--latency", nargs="+", type=float, help="shares of the time: compress to them and stop")
    parser.add_argument("--real", type=Path, help="folder of stored real frames: compare boxes there and stop")
    parser.add_argument("--plot", action="store_true", help="draw what is there and stop")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "detect3d.csv")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    if args.plot:
        return plot(args.out)
    runs = {network: subject(args.work, network, args) for network in args.networks}
    if args.real is not None:
        return real_frames(runs, args.real, args, args.out.with_name(args.out.stem + "_real.csv"))
    if args.latency:
        return in_time(args, runs, args.out.with_name(args.out.stem + "_latency.csv"))
    rows = list(csv.DictReader(args.out.open())) if args.out.exists() else []
    known = {tuple(row[c] for c in KEY) for row in rows}
    for network, seed, factor, method, repair in cells(args):
        key = (network, str(seed), f"{factor:g}", method, str(repair), args.recover, args.vote)
        if key in known:
            continue
        out = place(args.work, network, seed, factor, method, repair)
        found = row_of(runs[network], out, factor, method, repair, args, seed)
        rows.append(dict.fromkeys(COLUMNS, "") | dict(zip(KEY, key, strict=True)) | found)
        write(args.out, COLUMNS, rows)
        print(*rows[-1].values(), flush=True)
    args.out.with_suffix(".json").write_text(json.dumps(environment(), indent=1) + "\n")


if __name__ == "__main__":
    main()
