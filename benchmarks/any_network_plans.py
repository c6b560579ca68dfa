"""Which plan is best, and which one is taken: every plan of the contest finished, on small networks of many kinds.

Each network is calibrated on photos (``photos``: scikit-image's and scikit-learn's) or on CIFAR-10's training images
(``cifar``). Every plan that meets the budget is carried out with the same repair, rules among them, and judged on
CIFAR-10's test images (``test``) and on photos of another source than those that calibrate (``other``). ``assembled``,
``deciding`` and ``fitted`` are what the contest sees of a plan: put together, finished on the few samples that decide,
finished on the calibration samples. Where a budget is in cycles (``edge-npu``, modelled) or energy (modelled), all of
them round inputs as their precisions have it. ``crossed`` is the plan carried out on three fifths of the calibration
files and judged on the others. Smaller images are left out, so that plans differ in weights alone.

    OMP_NUM_THREADS=1 python benchmarks/any_network_plans.py --weights FOLDER  # trains what is not there
    python benchmarks/any_network_plans.py --rank      # how far off each way to choose is, from the CSV
    python benchmarks/any_network_plans.py --table     # ours beside the rules, as Markdown
    OMP_NUM_THREADS=1 python benchmarks/any_network_plans.py --runs  # whole runs with their defaults, other rivals too
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from any_network_quality import cifar
from PIL import Image
from small_networks import PREPROCESS
from small_training import small_network
from tables import Table, read
from torch import Tensor, nn
from unseen import NETWORKS

from fewer.core.budget import model_budgets
from fewer.core.errors import FewerError
from fewer.data.images import load_images
from fewer.data.photos import real_photos
from fewer.data.preprocess import Preprocess
from fewer.engine.apply import apply_options
from fewer.engine.as_used import input_rounding, model_in_use
from fewer.engine.assembly import Assembly
from fewer.engine.contest import CONTENDERS, _best, finalists_of
from fewer.engine.judge import Judge, judge_of
from fewer.engine.plan import BETWEEN, choose
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.published import prune_as_published
from fewer.engine.samples import by_file, sensing_share
from fewer.engine.sense import resolved, sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.models.spec import LoadedModel
from fewer.reports import environment
from fewer.verbs.compress import compress

HERE = Path(__file__).parent / "results"
KEYS = ("network", "calibrated_on", "seed", "budget")
COLUMNS = (*KEYS, "plan", "predicted", "assembled", "deciding", "fitted", "crossed", "test", "other", "seconds")
RUN_COLUMNS = (*KEYS, "method", "test", "other", "agreement_test", "agreement_other", "chosen", "pixels", "cpu_seconds")
TAUGHT = 25_000
"""Of CIFAR-10's training images, as many teach."""
RULES = ("lamp", "erk", "uniform", "uniform_plus", "global_magnitude")
CELLS = (
    ("resnext", "photos", "flops=0.3x"), ("vgg", "photos", "flops=0.3x"), ("gnbottle", "photos", "flops=0.5x"),
    ("embed", "photos", "flops=0.4x"), ("two", "photos", "flops=0.3x"), ("hybrid", "cifar", "flops=0.3x"),
    ("noact", "cifar", "flops=0.3x"), ("unet", "photos", "flops=0.3x"), ("regvit", "photos", "size=0.25x"),
    ("inception", "photos", "flops=0.3x"), ("shuffle", "cifar", "flops=0.4x"),
)  # fmt: skip


def judging(source: str, loaded: LoadedModel, count: int) -> dict[str, Tensor]:
    """Judging images by column: those that the network is for, and photos of another source than the calibration's."""
    apart = [p.path for p in real_photos() if source == "cifar" or p.package == "foolbox"]
    photos = load_images(apart, count // 2, 0, loaded.preprocess, crops=None).tensor
    return {"test": cifar("test", count, loaded.preprocess, seed=1)[0], "other": photos}


def calibrating(source: str, weights: Path) -> Path | list[Path]:
    """What a user would give: photos, or a folder of training images that taught none of these networks."""
    if source == "photos":
        return [p.path for p in real_photos() if p.package != "foolbox"]
    folder = weights / "calibration"
    if not folder.exists():
        folder.mkdir(parents=True)
        images = cifar("train", TAUGHT + 400, Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3), seed=0)[0][TAUGHT:]
        for i, image in enumerate((255 * images).round().byte().permute(0, 2, 3, 1).numpy()):
            Image.fromarray(image).save(folder / f"{i:04}.png")
    return folder


def part_of(prepared: Prepared, settings: Settings) -> Prepared:
    """The same model, repaired with the calibration files that measure nothing."""
    whole, near = prepared.calibration, prepared.apart[1]
    calibration, inner = whole.take(list(range(near, len(whole)))), None
    if calibration.files:
        order, inner = by_file(calibration.files)
        calibration = calibration.take(order)
    known = {k: v for k, v in prepared.shared.items() if k not in ("moments", "moments size", "places")}
    inputs = replace(prepared.inputs, calibration=calibration, near=inner)
    return replace(
        prepared, inputs=inputs, apart=sensing_share(len(calibration), settings.sensing, inner), shared=known
    )


def plans(table: Table, loaded: LoadedModel, images: Any, cell: Sequence[Any], judged: int, crossed: bool) -> None:
    """Every plan of one cell."""
    key, (_, source, seed, budget) = dict(zip(KEYS, cell, strict=True)), cell
    wanted = model_budgets(budget)
    machine = "edge-npu" if any(b.metric == "cycles" for b in wanted) else None
    settings = Settings(seed=seed, additivity=0, baselines=(), pixels="off", accelerator=machine)
    settings = settings.for_metrics(b.metric for b in wanted)
    prepared = prepare(loaded, images, settings)
    work = Work(prepared, resolved(prepared, settings))
    judges = {name: Judge(loaded.model, x, batch=50) for name, x in judging(source, loaded, judged).items()}
    judges["deciding"] = judge_of(prepared, settings, prepared.deciding)  # type: ignore[arg-type]
    judges["fitted"] = judge_of(prepared, settings, prepared.calibration)
    others = judge_of(prepared, settings, prepared.calibration[: prepared.apart[1]])
    with tempfile.TemporaryDirectory() as folder:
        sensed = sense_curves(work, store=Path(folder))
        shown = prepared.example, prepared.forward, input_rounding(work)
        together = Assembly.of(prepared.model, sensed.curves, Path(folder), *shown)
        batches = prepared.sensing_images.split(settings.batch)
        reference, seen = prepared.reference(batches), set()
        for name in CONTENDERS:
            try:
                plan = choose(sensed.curves, wanted, name)
            except FewerError as error:
                print(f"# {name}: {error}")
                continue
            if plan.choice.tobytes() in seen or {**key, "plan": name} in table:
                continue
            seen.add(plan.choice.tobytes())
            began, chosen = time.process_time(), sensed.chosen(plan.choice)
            model = model_in_use(work, sensed.curves, *apply_options(work, sensed.options, chosen), chosen)
            spent = time.process_time() - began
            numbers = {"predicted": plan.distortion}
            if crossed:
                half = apply_options(work.on(part_of(prepared, work.settings)), sensed.options, chosen)
                numbers["crossed"] = others.judge(model_in_use(work, sensed.curves, *half, chosen)).distortion
            numbers["assembled"] = together.distortion(plan.choice, batches, reference)
            numbers |= {column: judge.judge(model).distortion for column, judge in judges.items()}
            table.add({**key, "plan": name, **{k: f"{v:.5g}" for k, v in numbers.items()}, "seconds": f"{spent:.1f}"})


def runs(table: Table, loaded: LoadedModel, images: Any, cell: Sequence[Any], judged: int) -> None:
    """What ``fewer compress`` makes with its defaults, beside what else may be done for the same budget."""
    key, (_, source, seed, budget) = dict(zip(KEYS, cell, strict=True)), cell
    if {**key, "method": "ours"} in table:
        return
    settings = Settings(seed=seed, additivity=0, baselines=())
    judges = {name: Judge(loaded.model, x, batch=50) for name, x in judging(source, loaded, judged).items()}

    def add(method: str, make: Callable[[], tuple[nn.Module, dict[str, Any]]]) -> None:
        began = time.process_time()
        try:
            model, facts = make()
        except FewerError as error:
            print(f"# {method}: {error}")
            return
        spent = f"{time.process_time() - began:.1f}"
        for name, judge in judges.items():
            found = judge.judge(model)
            facts |= {name: f"{found.distortion:.5g}", f"agreement_{name}": f"{found.value:.4f}"}
        table.add({**key, "method": method, "cpu_seconds": spent, **facts})

    began = time.process_time()
    run = compress(loaded, images, budget, settings=settings)
    whole = f"{time.process_time() - began:.1f}"
    pixels = run.curves.meta.get("pixels")
    plain = run
    if pixels:
        plain = compress(loaded, images, budget, settings=settings, pixels="off", allocator="dp")
    wanted = model_budgets(budget)
    chosen_settings = settings.for_metrics(b.metric for b in wanted)
    work = Work(plain.prepared, resolved(plain.prepared, chosen_settings))
    options = {curve.unit.name: curve.options for curve in plain.curves.curves}

    def planned(rule: str) -> dict[str, Any]:
        plan = choose(plain.curves, wanted, rule)
        return {c.unit.name: c.options[i] for c, i in zip(plain.curves.curves, plan.choice, strict=True)}

    for rule in RULES:
        add(f"{rule}, our repair", lambda r=rule: (apply_options(work, options, planned(r))[0], {}))
    wanda = work.under(work.settings.model_copy(update={"score": "wanda"}))
    add("wanda uniform, our repair", lambda: (apply_options(wanda, options, planned("uniform"))[0], {}))
    for rule in ("uniform", "lamp"):
        add(f"sparsegpt {rule}", lambda r=rule: (prune_as_published(work, "sparsegpt", planned(r)), {}))
    facts = {"chosen": run.plan.method, "pixels": pixels["kept"] if pixels else "", "cpu_seconds": whole}
    add("ours", lambda: (run.model, facts))


def cells_of(rows: Sequence[dict[str, str]]) -> dict[tuple[str, ...], dict[str, dict[str, float]]]:
    """Cell -> plan -> what was measured."""
    found: dict[tuple[str, ...], dict[str, dict[str, float]]] = {}
    for row in rows:
        numbers = {c: float(row[c]) for c in COLUMNS[len(KEYS) + 1 :] if row[c]}
        found.setdefault(tuple(row[k] for k in KEYS), {})[row["plan"]] = numbers
    return found


def taken(cell: dict[str, dict[str, float]]) -> str:
    """The plan that the contest takes."""
    rows = [
        {"name": n, "measured": c["assembled"], "made": c["deciding"], "fitted": c["fitted"]} for n, c in cell.items()
    ]
    return _best(finalists_of(rows, ("uniform", "lamp")))["name"]


def before(cell: dict[str, dict[str, float]]) -> str:
    """The plan that was taken until 1 December 2026, when images of the repair told nothing."""
    low = min(c["assembled"] for c in cell.values())
    close = [n for n in sorted(cell, key=lambda n: cell[n]["assembled"]) if cell[n]["assembled"] <= 1.5 * low]
    halfway = [n for n in close if n in BETWEEN][:1]
    rules = [n for n in close if n in ("lamp", "erk", "uniform")][:1]
    ends = list(
        dict.fromkeys(
            ["dp", *(n for n in close if n == "bold"), *rules, *(n for n in ("uniform", "lamp") if n in cell)]
        )
    )

    def both(name: str) -> float:
        return cell[name]["assembled"] * cell[name]["deciding"]

    def made(name: str) -> float:
        return cell[name]["deciding"]

    lower = min(ends, key=both)
    best = lower if both(lower) < 0.9 * both("dp") else "dp"
    lowest = min([*ends, *halfway], key=made)
    if made(lowest) < 0.8 * made(best):
        return lowest
    return next((n for n in halfway if made(n) < 0.98 * made(best)), best)


def truth(numbers: dict[str, float]) -> float:
    """The geometric mean of both errors that no plan has seen."""
    return math.sqrt(numbers["test"] * numbers["other"])


def rank(path: Path) -> None:
    """How far off the best plan each way to choose ends, and how often a rule would have been better."""
    ways: dict[str, Callable[[dict[str, dict[str, float]]], str]] = {"the exact plan, always": lambda _cell: "dp"}
    products = {
        "put together": ("assembled",), "deciding samples": ("deciding",), "calibration samples": ("fitted",),
        "other files, repaired with three fifths": ("crossed",), "put together x deciding": ("assembled", "deciding"),
        "deciding x calibration": ("deciding", "fitted"), "crossed x deciding": ("crossed", "deciding"),
        "all three": ("assembled", "deciding", "fitted"),
    }  # fmt: skip
    for label, columns in products.items():
        ways[label] = lambda cell, columns=columns: min(cell, key=lambda n: math.prod(cell[n][c] for c in columns))
    ways |= {"the contest until 1 December 2026": before, "the contest": taken}
    cells = cells_of(read(path))
    print("| chosen by | times the best plan's error, mean | worst | a rule is 2 % better |\n|---|---|---|---|")
    for label, way in ways.items():
        ratios, lost = [], 0
        if "crossed" in (products.get(label) or ()) and not all(
            "crossed" in c for cell in cells.values() for c in cell.values()
        ):
            continue
        for cell in cells.values():
            best = min(truth(c) for c in cell.values())
            rule = min(truth(cell[r]) for r in RULES if r in cell)
            ratios.append(truth(cell[way(cell)]) / best)
            lost += truth(cell[way(cell)]) > 1.02 * rule
        print(f"| {label} | {np.exp(np.mean(np.log(ratios))):.3f} | {max(ratios):.2f} | {lost} of {len(cells)} |")


def show(path: Path) -> None:
    """Ours beside the rules: errors on the test images, and on photos in brackets."""
    print("| network | calibrated on | seed | budget | ours | " + " | ".join(RULES) + " |")
    print("|---" * (5 + len(RULES)) + "|")
    for key, cell in cells_of(read(path)).items():
        name = taken(cell)
        told = [
            f"{cell[n]['test']:.3g} ({cell[n]['other']:.3g})" if n in cell else "the same as another"
            for n in (name, *RULES)
        ]
        print(f"| {' | '.join(key)} | {name}: {' | '.join(told)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--weights", type=Path, default=Path("build/small_networks"))
    parser.add_argument("--cells", nargs="*", type=lambda text: tuple(text.split(":")), default=CELLS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--judged", type=int, default=300, help="test images; half as many photos")
    parser.add_argument(
        "--crossed", action="store_true", help="repair every plan with three fifths of the files as well"
    )
    parser.add_argument("--runs", action="store_true")
    parser.add_argument("--rank", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    out = args.out or HERE / ("any_network_runs.csv" if args.runs else "any_network_plans.csv")
    if args.rank or args.table:
        (rank if args.rank else show)(out)
        return
    table = Table(out, RUN_COLUMNS if args.runs else COLUMNS, 5)
    said = {k: v.name if isinstance(v, Path) else str(v) for k, v in vars(args).items()}
    facts = environment(threads=torch.get_num_threads()) | {"arguments": said}
    out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
    for name, source, budget in args.cells:
        load = NETWORKS[name].load if name in NETWORKS else partial(small_network, name, args.weights, teaching)
        loaded = load()
        cell = (name, source, args.seed, budget)
        images = calibrating(source, args.weights)
        if args.runs:
            runs(table, loaded, images, cell, args.judged)
        else:
            plans(table, loaded, images, cell, args.judged, args.crossed)


def teaching() -> tuple[Tensor, Tensor]:
    """Half of the training images."""

    from fewer.data.preprocess import Preprocess

    return cifar("train", TAUGHT, Preprocess.of(PREPROCESS, "small"), seed=0)


if __name__ == "__main__":
    main()
