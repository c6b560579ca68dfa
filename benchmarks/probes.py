"""Do the features still work? Linear probes on a compressed DINOv2, beside the dense one and SparseGPT-uniform.

Features of MNIST digits and of elpv solar cells (real images, 224 px) under the dense model, ours (the exact DP's plan
and LAMP's, repaired in execution order), and SparseGPT and Wanda with a uniform ratio; a logistic regression is trained
on each network's own features. MNIST: accuracy on test digits; elpv: area under the ROC curve for cells that are
defective for certain or probably. Nothing in the compression has seen either data set. Features are computed in bf16
where the processor is quick at it, which changes those of the dense model by 6e-5 of their energy.

    OMP_NUM_THREADS=1 python benchmarks/probes.py        # results/probes.csv, goes on where it stopped
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from rivals import uniform_in_order
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tables import Table
from torch import Tensor, nn

from fewer.core.budget import Budget
from fewer.data.photos import real_photos
from fewer.distillation.recover import has_fast_bf16
from fewer.engine.apply import apply_options
from fewer.engine.plan import choose
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.sense import sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.reports import environment
from fewer.tasks.classify.sets import load_elpv, load_mnist

RESULTS = Path(__file__).parent / "results"
MODEL = "fewer/dinov2-small"
COLUMNS = ("model", "pattern", "sparsity", "seed", "method", "data", "train", "test", "metric", "value")
DATA = ("mnist", "elpv")
RIVALS = ("sparsegpt", "wanda")


@torch.no_grad()
def features(model: nn.Module, images: Tensor, bf16: bool = False) -> Tensor:
    """First token of every image."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outs = [model(x).float() for x in images.split(8)]
    return torch.cat([out[:, 0] if out.ndim == 3 else out for out in outs])


def probe(model: nn.Module, data: str, count: int, prepared: Prepared, bf16: bool = False) -> tuple[str, float]:
    load = {"mnist": load_mnist, "elpv": load_elpv}[data]
    train, test = (load(part, count, seed=0, preprocess=prepared.loaded.preprocess) for part in ("train", "test"))
    a, b = (features(model, part.images, bf16) for part in (train, test))
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    if data == "mnist":
        return "accuracy", float(classifier.fit(a, train.labels).score(b, test.labels))
    classifier.fit(a, train.labels >= 2)
    return "AUC", float(roc_auc_score(test.labels >= 2, classifier.predict_proba(b)[:, 1]))


def run(table: Table, pattern: str, seed: int, args: argparse.Namespace) -> None:
    common = {"model": MODEL, "pattern": pattern, "seed": seed, "train": args.count, "test": args.count}
    wanted = [("dense", 0.0), *((method, sparsity) for sparsity in args.sparsities for method in args.methods)]
    todo = {
        (m, s): [d for d in DATA if common | {"method": m, "sparsity": s, "data": d} not in table] for m, s in wanted
    }
    if not any(todo.values()):
        return
    settings = Settings(pattern=pattern, calibration=args.calibration, sensing=16, heldout=4, seed=seed)
    prepared = prepare(MODEL, [p.path for p in real_photos()], settings)
    sensed = cache(lambda: sense_curves(Work(prepared, settings)))
    for (method, sparsity), missing in todo.items():
        if not missing:
            continue
        model = prepared.model
        if method in RIVALS:
            model = uniform_in_order(prepared, method, pattern, sparsity)
        elif method != "dense":
            plan = choose(sensed().curves, [Budget("weights", 1 - sparsity, True)], method)
            model, _ = apply_options(Work(prepared, settings), sensed().options, sensed().chosen(plan.choice))
        for data in missing:
            metric, value = probe(model, data, args.count, prepared, bf16=has_fast_bf16())
            named = {"method": method, "sparsity": sparsity, "data": data, "metric": metric, "value": f"{value:.4f}"}
            table.add(common | named)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patterns", nargs="*", default=["unstructured", "block:16x16"])
    parser.add_argument("--sparsities", nargs="*", type=float, default=[0.5, 0.7])
    parser.add_argument("--methods", nargs="*", default=["dp", "lamp", *RIVALS])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--calibration", type=int, default=64)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--fresh", action="store_true")
    args = parser.parse_args(arguments)
    table = Table(RESULTS / "probes.csv", COLUMNS, 6, args.fresh)
    stamp = json.dumps(environment(threads=torch.get_num_threads()), indent=1)
    (RESULTS / "probes.json").write_text(stamp + "\n", "utf-8")
    for seed in args.seeds:
        for pattern in args.patterns:
            run(table, pattern, seed, args)


if __name__ == "__main__":
    main()
