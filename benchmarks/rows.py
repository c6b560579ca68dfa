"""Are removed channels worth it? Columns beside blocks and beside both, at equal FLOPs and at equal predicted latency.

    python benchmarks/rows.py --models fewer/mobilenet-v2,fewer/dinov2-small --metrics flops,latency --work /tmp/rows

A network is sensed once per metric with every option; ``blocks``, ``columns`` and ``both`` are planned from those
curves with some of the options left out, so that all else is equal. ``assembled`` puts every layer together as it was
repaired on its own; ``in order`` is the model that ``fewer compress`` makes. Where latency is budgeted, plans are timed
on their kernels, in turns with the dense model. Photos as in the other benchmarks, held-out files apart. One
seed. Goes on where it stopped: rows from the CSV, finished sensing tasks from ``--work``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from tables import Table

from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.data.photos import real_photos
from fewer.engine.apply import apply_options
from fewer.engine.assembly import Assembly
from fewer.engine.deploy import deploy, trial_ms
from fewer.engine.judge import Judge, Quality
from fewer.engine.plan import choose, part_of
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.sense import Sensed, sense_curves
from fewer.engine.settings import Settings
from fewer.engine.shrink import shrink
from fewer.engine.work import Work
from fewer.reports import environment

HERE = Path(__file__).parent / "results"
COLUMNS = (
    "model", "metric", "budget", "options", "how", "cost", "dense_ms", "predicted_ms", "measured_ms", "spread",
    "predicted_distortion", "distortion", "median", "quality_name", "quality", "weights", "seconds",
)  # fmt: skip
BUDGETS = {"flops": (0.9, 0.8, 0.7, 0.6, 0.5, 0.4), "latency": (0.4, 0.3, 0.5, 0.2)}
SETS = ("blocks", "columns", "both")
PATTERN = "block:16x4,columns"


def settings_for(metric: str, args: argparse.Namespace) -> Settings:
    """The same ladder for both metrics; precisions only where they have kernels that gain from them."""
    timed = (
        {"precisions": ("fp32", "bf16", "int8"), "measure": ("latency",), "threads": 1} if metric == "latency" else {}
    )
    return Settings(
        pattern=PATTERN,
        estimator="taylor",
        sparsities=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        calibration=args.calibration,
        sensing=16,
        heldout=32,
        backend="serial",
        **timed,
    )


def allowed(sensed: Sensed, options: str) -> list[np.ndarray]:
    """Indices of the options that a set may choose from."""
    keep = {
        "blocks": lambda o: o.removes is None,
        "columns": lambda o: o.removes is not None or o.is_dense,
        "both": lambda o: True,
    }[options]
    return [np.array([k for k, o in enumerate(c.options) if k == 0 or keep(o)]) for c in sensed.curves.curves]


def planned(sensed: Sensed, options: str, budget: Budget) -> np.ndarray:
    """The exact plan over the options of a set, as option numbers of the whole curves."""
    keep = allowed(sensed, options)
    limit = Budget(budget.metric, budget.limit(sensed.curves), False)
    choice = choose(part_of(sensed.curves, keep), [limit], "dp").choice
    return np.array([k[i] for k, i in zip(keep, choice, strict=True)])


def add(table: Table, row: dict, quality: Quality, sensed: Sensed, choice: np.ndarray, began: float) -> None:
    curves, metric = sensed.curves, row["metric"]
    row |= {
        "cost": f"{curves.total(metric, choice) / curves.dense(metric):.4f}",
        "predicted_distortion": f"{curves.distortion(choice):.6g}",
        "distortion": f"{quality.distortion:.6g}",
        "median": f"{quality.median:.6g}",
        "quality_name": quality.name,
        "quality": f"{quality.value:.5f}",
        "weights": f"{curves.total('weights', choice) / curves.dense('weights'):.4f}",
        "seconds": f"{time.perf_counter() - began:.1f}",
    }
    table.add(row)


def run(model: str, metric: str, args: argparse.Namespace, table: Table) -> None:
    """Everything of one network and one metric."""
    row = {"model": model, "metric": metric}
    wanted = [{**row, "budget": b, "options": o, "how": "assembled"} for b in BUDGETS[metric] for o in SETS]
    ordered = [{**row, "budget": b, "options": o, "how": "in order"} for b in args.in_order for o in SETS]
    if all(one in table for one in (*wanted, *ordered)):
        return
    settings = settings_for(metric, args)
    prepared = prepare(model, [p.path for p in real_photos()], settings)
    judge = Judge(prepared.model, prepared.heldout, task=prepared.loaded.task)
    folder = args.work / f"{model.replace('/', '-')}-{metric}"
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    sensed = sense_curves(Work(prepared, settings), ledger_path=folder / "ledger.jsonl", store=folder)
    sensed.curves.save(folder / "curves.npz")
    print(f"# sensed {model} for {metric}: {time.perf_counter() - began:.0f} s", flush=True)
    assembly = Assembly.of(prepared.model, sensed.curves, folder, prepared.calibration[:1], None)
    for one in (*wanted, *ordered):
        if one in table:
            continue
        began = time.perf_counter()
        budget = Budget(metric, float(one["budget"]), True)
        try:
            choice = planned(sensed, one["options"], budget)
        except FewerError as error:
            print(f"# {one}: {error}", flush=True)
            continue
        if one["how"] == "assembled":
            found: list[Quality] = []

            def measure(made: torch.nn.Module, found: list[Quality] = found) -> float:
                found.append(judge.judge(made))
                return found[-1].distortion

            assembly.evaluate(choice, measure)
            if metric == "latency":
                chosen = {c.unit.name: c.options[k] for c, k in zip(sensed.curves.curves, choice, strict=True)}
                predicted, dense = sensed.curves.total(metric, choice), sensed.curves.dense(metric)
                one |= {"dense_ms": f"{dense:.3f}", "predicted_ms": f"{predicted:.3f}"}
                one["measured_ms"] = f"{trial_ms(Work(prepared, settings), chosen, predicted, dense, None):.3f}"
            add(table, one, found[-1], sensed, choice, began)
        else:
            quality = in_order(prepared, settings, sensed, choice, judge, one)
            add(table, one, quality, sensed, choice, began)


def in_order(
    prepared: Prepared, settings: Settings, sensed: Sensed, choice: np.ndarray, judge: Judge, row: dict
) -> Quality:
    """The model itself; on its kernels, and timed, where latency was measured."""
    chosen = {c.unit.name: c.options[k] for c, k in zip(sensed.curves.curves, choice, strict=True)}
    model, masks = apply_options(Work(prepared, settings), sensed.options, chosen)
    small = shrink(model, masks, prepared.couplings, chosen, prepared.calibration[:2])
    for name, why in small.refused.items():
        print(f"# {name} stays masked: {why}", flush=True)
    if "latency" not in settings.measure:
        return judge.judge(small.model)
    predicted, dense = sensed.curves.total("latency", choice), sensed.curves.dense("latency")
    made = deploy(Work(prepared, settings), small.model, small.masks, chosen, predicted, dense)
    row |= {
        "dense_ms": f"{dense:.3f}",
        "predicted_ms": f"{predicted:.3f}",
        "measured_ms": f"{made.measured_ms:.3f}",
        "spread": f"{made.spread:.3f}",
    }
    return judge.judge(made.model)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="fewer/mobilenet-v2,fewer/dinov2-small", type=lambda t: t.split(","))
    parser.add_argument("--metrics", default="flops,latency", type=lambda t: t.split(","))
    parser.add_argument("--in-order", default="0.5", type=lambda t: [float(b) for b in t.split(",") if b])
    parser.add_argument("--calibration", default=64, type=int)
    parser.add_argument("--work", required=True, type=Path)
    parser.add_argument("--out", default=HERE / "rows.csv", type=Path)
    args = parser.parse_args()
    table = Table(args.out, COLUMNS, 5)
    stamp = environment(threads=torch.get_num_threads())
    args.out.with_suffix(".json").write_text(json.dumps(stamp, indent=1) + "\n", "utf-8")
    for model in args.models:
        for metric in args.metrics:
            run(model, metric, args, table)


if __name__ == "__main__":
    main()
