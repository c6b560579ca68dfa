"""Where should weights go? Allocators beside each other on real networks and real photos.

For each network, pattern, sparsity and calibration seed: uniform, ERK, LAMP, global magnitude, the exact DP, and the
DP with local search, each with and without least-squares repair. Plans are compared on the same stored layers (every
layer pruned and repaired on its own: ``assembled``). Rows ``in order`` are whole models, pruned layer by layer on the
inputs that earlier cuts leave, as ``fewer compress`` does it: ours, SparseGPT and Wanda with a uniform ratio, and
uniform and LAMP with our repair. ``auto`` is what ``fewer compress`` takes: assembled, the plan that wins on the
sensing images; in order, the best of the close ones among them by that and as whole models on the calibration images.
``median`` is over held-out images: a mean may hang on one image. ``cpu_seconds`` are processor time of planning, repair
and judging; those of ``auto``, in order, come on top of the models that the rows before it have made.

    OMP_NUM_THREADS=1 python benchmarks/allocation.py     # goes on where it stopped; --fresh starts anew
    python benchmarks/allocation.py --plot                # only the picture, from the CSV
    python benchmarks/allocation.py --table               # whole models as a Markdown table, for the docs

Without repair, weights go by magnitude and nothing is updated, so that row is the method of the ICCV 2023 paper with a
Taylor estimate of distortion. Photos: those that scikit-image, scikit-learn and foolbox ship; crops; held-out files
apart.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from rivals import uniform_in_order
from tables import Table

from fewer.core.allocation.search import local_search
from fewer.core.budget import Budget
from fewer.data.photos import real_photos
from fewer.distortion.outputs import Reference
from fewer.engine.apply import apply_options
from fewer.engine.assembly import Assembly
from fewer.engine.contest import Made, contest, decide, final, way_of
from fewer.engine.cut import search_images
from fewer.engine.judge import Judge, Quality
from fewer.engine.plan import choose
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.sense import Sensed, sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.reports import environment

HERE = Path(__file__).parent / "results"
COLUMNS = (
    "model", "pattern", "sparsity", "seed", "method", "repair", "how", "distortion", "median", "quality_name",
    "quality", "kept", "cpu_seconds",
)  # fmt: skip
SPARSITIES = (0.5, 0.7, 0.3, 0.8)
PATTERNS = ("unstructured", "block:16x16")
SIMPLE = ("uniform", "erk", "lamp", "global_magnitude")
RIVALS = ("sparsegpt", "wanda")


def measure(table: Table, row: dict, work: Callable[[], tuple[Quality, float]]) -> None:
    """Do the work of a row that the table does not have."""
    if row in table:
        return
    began = time.process_time()
    quality, kept = work()
    table.add(
        {
            **row,
            "distortion": f"{quality.distortion:.6g}",
            "median": f"{quality.median:.6g}",
            "quality_name": quality.name,
            "quality": f"{quality.value:.5f}",
            "kept": f"{kept:.5f}",
            "cpu_seconds": f"{time.process_time() - began:.1f}",
        }
    )


def cells(args: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Seed 0 of everything first, so that an interrupted run is as wide as can be."""
    for seed in args.seeds:
        for model in args.models:
            for pattern in args.patterns:
                yield model, pattern, seed


def run_cell(table: Table, model: str, pattern: str, seed: int, args: argparse.Namespace) -> None:
    for repair in (True,) if args.whole else (True, False):
        settings = Settings(
            pattern=pattern,
            seed=seed,
            compensation="obs" if repair else "none",
            score="obs" if repair else "magnitude",
            calibration=args.calibration,
            sensing=16,
            heldout=32,
        )
        row = {"model": model, "pattern": pattern, "seed": seed, "repair": "obs" if repair else "none"}
        methods = () if args.whole else (*SIMPLE, "dp", *(("dp+search", "auto") if repair else ()))
        wanted = [{**row, "sparsity": s, "method": m, "how": "assembled"} for s in args.sparsities for m in methods]
        if repair:
            wanted += [
                {**row, "sparsity": s, "method": m, "how": "in order"}
                for s in args.sparsities
                for m in in_order_methods(s, args.whole)
            ]
        if all(w in table for w in wanted):
            continue
        prepared = prepare(model, [p.path for p in real_photos()], settings)
        judge = Judge(prepared.model, prepared.heldout, task=prepared.loaded.task)
        with tempfile.TemporaryDirectory() as folder:
            began = time.process_time()
            sensed = sense_curves(Work(prepared, settings), store=Path(folder))
            print(
                f"# sensed {model} {pattern} seed {seed} repair {repair}: {time.process_time() - began:.0f} CPU-s",
                flush=True,
            )
            assembly = Assembly.of(prepared.model, sensed.curves, Path(folder), prepared.calibration[:1], None)
            for sparsity in args.sparsities:
                for method in methods:
                    one = {**row, "sparsity": sparsity, "method": method, "how": "assembled"}
                    work = partial(
                        assembled, prepared, settings, sensed, assembly, judge, method, sparsity, args.search
                    )
                    measure(table, one, work)
                if repair:
                    wanted = in_order_methods(sparsity, args.whole)
                    in_order(table, row, prepared, settings, sensed, assembly, judge, sparsity, wanted)


def in_order_methods(sparsity: float, few: bool = False) -> tuple[str, ...]:
    """Whole models take minutes each, so of the simple allocators only the two best are compared so."""
    if few:
        return ("dp", *RIVALS, "uniform", "lamp")
    return ("dp", *RIVALS, "uniform", "lamp", *(("erk",) if sparsity == 0.8 else ()), "auto")


def assembled(
    prepared: Prepared,
    settings: Settings,
    sensed: Sensed,
    assembly: Assembly,
    judge: Judge,
    method: str,
    sparsity: float,
    evaluations: int,
) -> tuple[Quality, float]:
    budgets = [Budget("weights", 1 - sparsity, True)]
    if method == "auto":
        batches = list(prepared.sensing_images.split(settings.batch))
        with torch.no_grad():
            reference = Reference([prepared.model(b) for b in batches])
        method, _ = contest(sensed.curves, budgets, lambda plan: assembly.distortion(plan.choice, batches, reference))
    allocation = choose(sensed.curves, budgets, method.removesuffix("+search"))
    if method.endswith("+search"):
        batches, reference, _, _ = search_images(Work(prepared, settings))
        fitness = lambda choice: assembly.distortion(choice, batches, reference)  # noqa: E731
        allocation, _ = local_search(
            sensed.curves, budgets, allocation, fitness, evaluations=evaluations, seed=settings.seed
        )
    kept = allocation.cost["weights"] / sensed.curves.dense("weights")
    found: list[Quality] = []

    def measure(model: torch.nn.Module) -> float:
        found.append(judge.judge(model))
        return found[-1].distortion

    assembly.evaluate(allocation.choice, measure)
    return found[-1], kept


def in_order(
    table: Table,
    row: dict,
    prepared: Prepared,
    settings: Settings,
    sensed: Sensed,
    assembly: Assembly,
    judge: Judge,
    sparsity: float,
    methods: Sequence[str],
) -> None:
    budgets = [Budget("weights", 1 - sparsity, True)]
    made: dict[bytes, Made] = {}

    def ours(method: str) -> tuple[Quality, float]:
        if method == "auto":
            method, rows = decide(Work(prepared, settings), sensed, assembly, budgets)
            if rows:
                method, more = final(Work(prepared, settings), sensed, budgets, rows)
                made.update(more)
            print(f"# auto takes {method} of {rows}", flush=True)
        way = way_of(method)
        allocation = choose(sensed.curves, budgets, way.allocator)
        key = way.key(allocation.choice)
        if key not in made:
            chosen = sensed.chosen(allocation.choice)
            made[key] = Made(*apply_options(Work(prepared, way.settings(settings)), sensed.options, chosen), 0.0)
        masks = made[key].masks.values()
        return judge.judge(made[key].model), sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)

    def rival(method: str) -> tuple[Quality, float]:
        model = uniform_in_order(prepared, method, settings.pattern, sparsity)
        units = prepared.matched.units
        left = sum(int(model.get_submodule(u.name).weight.count_nonzero()) for u in units)
        return judge.judge(model), left / sum(u.numel for u in units)

    common = {**row, "sparsity": sparsity, "how": "in order"}
    for method in methods:
        measure(table, {**common, "method": method}, partial(rival if method in RIVALS else ours, method))


def plot(path: Path) -> None:
    """One panel per network and pattern: distortion against sparsity, mean over seeds."""
    from matplotlib.figure import Figure

    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    panels = sorted({(r["model"], r["pattern"]) for r in rows})
    if not panels:
        return
    figure = Figure(figsize=(5 * len(panels), 4.2), layout="constrained")
    lines = [
        ("uniform", "obs", "assembled"), ("erk", "obs", "assembled"), ("lamp", "obs", "assembled"),
        ("global_magnitude", "obs", "assembled"), ("dp", "none", "assembled"), ("dp", "obs", "assembled"),
        ("dp+search", "obs", "assembled"), ("wanda", "obs", "in order"), ("sparsegpt", "obs", "in order"),
        ("dp", "obs", "in order"),
    ]  # fmt: skip
    for axes, (model, pattern) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for method, repair, how in lines:
            wanted = (model, pattern, method, repair, how)
            chosen = [r for r in rows if tuple(r[c] for c in ("model", "pattern", "method", "repair", "how")) == wanted]
            points = sorted({float(r["sparsity"]) for r in chosen})
            means = [
                sum(float(r["distortion"]) for r in chosen if float(r["sparsity"]) == s)
                / sum(float(r["sparsity"]) == s for r in chosen)
                for s in points
            ]
            label = f"{method}, {how}" + (", no repair" if repair == "none" else "")
            axes.plot(
                points, means, marker="o", markersize=3, label=label, linestyle="-" if how == "in order" else "--"
            )
        axes.set(yscale="log", title=f"{model}\n{pattern}", xlabel="sparsity", ylabel="held-out distortion")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path.with_suffix(".svg"), metadata={"Date": None})


def show(path: Path) -> None:
    """Whole models: mean distortion over seeds, a line per network, pattern and sparsity."""
    with path.open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["how"] == "in order"]
    methods = {
        "wanda": "Wanda",
        "sparsegpt": "SparseGPT",
        "uniform": "uniform",
        "lamp": "LAMP",
        "dp": "DP",
        "auto": "contest",
    }
    print("| network | pattern | gone | seeds |", " | ".join(methods.values()), "| quality of the last |")
    print("|---" * (len(methods) + 5) + "|")
    for model, pattern, sparsity in sorted({(r["model"], r["pattern"], r["sparsity"]) for r in rows}):
        cell = [r for r in rows if (r["model"], r["pattern"], r["sparsity"]) == (model, pattern, sparsity)]
        found = {m: [r for r in cell if r["method"] == m] for m in methods}
        means = {m: sum(float(r["distortion"]) for r in f) / len(f) for m, f in found.items() if f}
        lowest = min(means.values())
        told = [("-" if m not in means else f"{means[m]:.3f}") for m in methods]
        told = [f"**{t}**" if means.get(m) == lowest else t for m, t in zip(methods, told, strict=True)]
        last = found["auto"] or found["dp"]
        quality = f"{last[0]['quality_name']} {sum(float(r['quality']) for r in last) / len(last):.3f}" if last else "-"
        seeds = len({r["seed"] for r in cell})
        gone = f"{100 * float(sparsity):.0f} %"
        print(f"| {model.removeprefix('fewer/')} | {pattern} | {gone} | {seeds} |", " | ".join(told), f"| {quality} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--plot", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--whole", action="store_true", help="whole models alone, and without the contest")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--models", nargs="*", default=["fewer/dinov2-small", "fewer/mobilenet-v2"])
    parser.add_argument("--patterns", nargs="*", default=list(PATTERNS))
    parser.add_argument("--sparsities", nargs="*", type=float, default=list(SPARSITIES))
    parser.add_argument("--calibration", type=int, default=64)
    parser.add_argument("--search", type=int, default=12)
    parser.add_argument("--out", type=Path, default=HERE / "allocation.csv")
    args = parser.parse_args()
    if args.table:
        show(args.out)
        return
    if not args.plot:
        table = Table(args.out, COLUMNS, 7, args.fresh)
        stamp = args.out.with_suffix(".json")
        stamp.write_text(json.dumps(environment(threads=torch.get_num_threads()), indent=1) + "\n", "utf-8")
        for model, pattern, seed in cells(args):
            run_cell(table, model, pattern, seed, args)
    plot(args.out)


if __name__ == "__main__":
    main()
