"""Time and memory of the allocator, from 10 to 1,000 layers, beside plain textbook dynamic programmes.

Run single-threaded::

    python benchmarks/allocator_speed.py            # all sizes, a few minutes
    python benchmarks/allocator_speed.py --quick    # the small sizes

The curves are simulated: 101 sparsities per layer, distortion a noisy power of sparsity with layer-dependent scale and
exponent, whole-numbered weights and a noisy latency. Each solver gets the same arrays. Written to
``results/allocator_speed.csv`` (with an environment stamp) and ``results/allocator_speed.svg``.

Solvers
-------
allocate
    What users call: bounds, reduced table, polish; one budget (half of the dense latency).
two budgets
    The same with a second budget that also binds: 3 % fewer weights than the plan for one budget keeps.
frontier of 20
    Twenty budgets planned one after the other.
table
    Our dynamic programme alone, over all options: the worst case, when bounds rule nothing out.
textbook numpy
    Costs rounded up to buckets of the whole budget, all options of a layer at once, float64 and int64 tables.
textbook loops
    The same recursion as three nested Python loops.
"""

# ruff: noqa: E402  (threads are limited before numpy is imported)
from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import argparse
import csv
import datetime
import platform
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import fewer
from fewer.core.allocation.allocate import allocate, frontier
from fewer.core.allocation.knapsack import Table
from fewer.core.allocation.problem import Problem
from fewer.core.budget import Budget
from fewer.core.curve import Curve, CurveSet
from fewer.core.option import Option
from fewer.core.stamp import cpu_name, cpuinfo
from fewer.core.unit import Unit

BUCKETS = 10_000
OPTIONS = 101
RESULTS = Path(__file__).parent / "results"


def simulated_curves(layers: int, seed: int = 0) -> CurveSet:
    """Curves like those of a vision transformer under unstructured pruning."""
    rng = np.random.default_rng(seed)
    sparsity = np.arange(OPTIONS) / (OPTIONS - 1)
    options = (Option(), *(Option("unstructured", float(s)) for s in sparsity[1:]))
    curves = []
    for i in range(layers):
        rows, cols = int(rng.integers(64, 1024)), int(rng.integers(64, 1024))
        distortion = np.exp(rng.normal(0, 1.5)) * sparsity ** rng.uniform(2, 5) * (1 + 0.05 * rng.random(OPTIONS))
        latency = rows * cols * 1e-6 * np.clip(1.1 - sparsity + 0.02 * rng.standard_normal(OPTIONS), 0.05, None)
        cost = {"weights": np.round(rows * cols * (1 - sparsity)), "latency": latency}
        curves.append(Curve(Unit(f"layer{i}", "linear", (rows, cols)), options, cost, distortion))
    return CurveSet(tuple(curves))


def textbook_numpy(problem: Problem) -> float:
    """Per layer one (options, buckets) matrix of candidates, its minimum and its argmin; the distortion of the plan."""
    cost, distortion, room = problem.cost[0], problem.distortion, float(problem.room[0])
    taken = np.ceil(cost / (room / BUCKETS)).astype(np.int64)
    best, picks, buckets = (
        np.zeros(BUCKETS + 1),
        np.empty((len(distortion), BUCKETS + 1), dtype=np.int64),
        np.arange(BUCKETS + 1),
    )
    for i in range(len(distortion)):
        before = buckets[None, :] - taken[i][:, None]
        candidates = np.where(before >= 0, best[np.maximum(before, 0)], np.inf) + distortion[i][:, None]
        picks[i] = candidates.argmin(axis=0)
        best = candidates.min(axis=0)
    return float(best[-1])


def textbook_loops(problem: Problem) -> float:
    """Three nested loops."""
    room = float(problem.room[0])
    taken = np.ceil(problem.cost[0] / (room / BUCKETS)).astype(int).tolist()
    best = [0.0] * (BUCKETS + 1)
    picks = []
    for costs, distortions in zip(taken, problem.distortion.tolist(), strict=True):
        new, pick = [float("inf")] * (BUCKETS + 1), [0] * (BUCKETS + 1)
        for j in range(BUCKETS + 1):
            for k, (c, h) in enumerate(zip(costs, distortions, strict=True)):
                if c <= j and best[j - c] + h < new[j]:
                    new[j], pick[j] = best[j - c] + h, k
        best = new
        picks.append(pick)
    return best[-1]


def measure(work: Callable[[], Any], repeats: int) -> tuple[float, float, Any]:
    """Median seconds, peak MiB of one further run (numpy's arrays included), and the result."""
    times, result = [], None
    for _ in range(repeats):
        begin = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - begin)
    if times[0] > 20:
        return median(times), float("nan"), result
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return median(times), peak, result


def environment() -> dict[str, str]:
    """Where the numbers come from."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "cpu": cpu_name(cpuinfo()) or "unknown",
        "logical cores": str(os.cpu_count()),
        "threads used": "1",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": np.__version__,
        "fewer": fewer.__version__,
        "curves": "simulated",
        "seconds": "median of the runs; the machine was shared, load average "
        + ("unknown" if not hasattr(os, "getloadavg") else f"{os.getloadavg()[0]:.1f}"),
    }


def rows_for(layers: int, quick: bool) -> list[dict[str, Any]]:
    curves = simulated_curves(layers)
    problem = Problem.build(curves, Budget("latency", 0.5, True))
    room = float(problem.room[0])
    both = [
        Budget("latency", 0.5, True),
        Budget("weights", 0.97 * allocate(curves, "latency=0.5x").cost["weights"], False),
    ]
    work: dict[str, tuple[Callable[[], Any], int]] = {
        "allocate": (lambda: allocate(curves, "latency=0.5x", buckets=BUCKETS), 5),
        "two budgets": (
            lambda: allocate(curves, both, buckets=BUCKETS),
            1 if layers > 100 else 3,
        ),
        "frontier of 20": (lambda: frontier(curves, "latency", np.linspace(0.1, 0.95, 20).tolist()), 1),
        "table": (lambda: Table(problem.cost[0], problem.distortion, room, BUCKETS), 5),
    }
    if layers <= 300:
        work["textbook numpy"] = (lambda: textbook_numpy(problem), 1 if layers > 100 else 3)
    if layers <= (10 if quick else 54):
        work["textbook loops"] = (lambda: textbook_loops(problem), 1)
    rows, bound = [], 0.0
    for solver, (call, repeats) in work.items():
        seconds, peak, result = measure(call, repeats)
        distortion, row_bound = float("nan"), bound
        if solver in ("allocate", "two budgets"):
            distortion, row_bound = result.distortion, result.bound
            bound = result.bound if solver == "allocate" else bound
        elif solver == "table":
            distortion = float(result.distortion[min(result.bucket(room), result.size)])
        elif solver.startswith("textbook"):
            distortion = result
        row = {
            "layers": layers,
            "options": OPTIONS,
            "buckets": BUCKETS,
            "solver": solver,
            "runs": repeats,
            "seconds": f"{seconds:.4g}",
            "peak_mib": f"{peak:.3g}",
            "above_bound_percent": f"{max(100 * (distortion / row_bound - 1), 0):.3g}",
        }
        rows.append(row)
        sys.stderr.write("  ".join(f"{v}" for v in row.values()) + "\n")
    return rows


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "fewer"
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
    for solver in dict.fromkeys(r["solver"] for r in rows):
        mine = [r for r in rows if r["solver"] == solver]
        x = [int(r["layers"]) for r in mine]
        style = "o--" if solver.startswith("textbook") else "o-"
        left.loglog(x, [float(r["seconds"]) for r in mine], style, label=solver, markersize=4)
        right.loglog(x, [float(r["peak_mib"]) for r in mine], style, label=solver, markersize=4)
    left.set(xlabel="layers", ylabel="seconds, one thread", title="time")
    right.set(xlabel="layers", ylabel="peak MiB", title="memory")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    for axis in (left, right):
        axis.grid(True, which="major", alpha=0.3)
    figure.suptitle(f"Allocation of one of {OPTIONS} options per layer, {BUCKETS:,} buckets, simulated curves")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes only, nothing is written")
    quick = parser.parse_args().quick
    rows = [row for n in ((10, 54) if quick else (10, 20, 54, 100, 300, 1000)) for row in rows_for(n, quick)]
    if quick:
        return
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "allocator_speed.csv").open("w", newline="") as file:
        for key, value in environment().items():
            file.write(f"# {key}: {value}\n")
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    plot(rows, RESULTS / "allocator_speed.svg")


if __name__ == "__main__":
    main()
