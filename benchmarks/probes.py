"""Do the features still work? Linear probes on a compressed DINOv2, beside the dense one and SparseGPT-uniform.

Features of MNIST digits and of elpv solar cells (real images, 224 px) under the dense model, ours (exact DP, repaired
in execution order) and SparseGPT and Wanda with a uniform ratio; a logistic regression is trained on each network's own
features. MNIST: accuracy on test digits; elpv: area under the ROC curve for cells that are defective for certain or
probably. Nothing in the compression has seen either data set.

    python benchmarks/probes.py            # results/probes.csv, goes on where it stopped
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import torch
from rivals import uniform_in_order
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from fewer.core.budget import Budget
from fewer.data.photos import real_photos
from fewer.data.probes import load_elpv, load_mnist
from fewer.report import environment
from fewer.verbs.applying import apply_options
from fewer.verbs.curves import sense_curves
from fewer.verbs.planning import choose
from fewer.verbs.prepare import Prepared, prepare
from fewer.verbs.settings import Settings

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("model", "pattern", "sparsity", "seed", "method", "data", "train", "test", "metric", "value")


@torch.no_grad()
def features(model: nn.Module, images: Tensor) -> Tensor:
    """First token of every image."""
    return torch.cat([(out[:, 0] if (out := model(x)).ndim == 3 else out) for x in images.split(8)])


def probe(model: nn.Module, data: str, count: int, prepared: Prepared) -> tuple[str, float]:
    load = {"mnist": load_mnist, "elpv": load_elpv}[data]
    train, test = (load(part, count, seed=0, preprocess=prepared.loaded.preprocess) for part in ("train", "test"))
    a, b = features(model, train.images), features(model, test.images)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    if data == "mnist":
        return "accuracy", float(classifier.fit(a, train.labels).score(b, test.labels))
    classifier.fit(a, train.labels >= 2)
    return "AUC", float(roc_auc_score(test.labels >= 2, classifier.predict_proba(b)[:, 1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pattern", default="unstructured")
    parser.add_argument("--sparsities", nargs="*", type=float, default=[0.5, 0.7])
    parser.add_argument("--methods", nargs="*", default=["dp", "sparsegpt", "wanda"])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    name, path = "fewer/dinov2-small", RESULTS / "probes.csv"
    done = set()
    if path.exists():
        with path.open(encoding="utf-8") as file:
            done = {tuple(row[c] for c in COLUMNS[:6]) for row in csv.DictReader(file)}
    else:
        path.write_text(",".join(COLUMNS) + "\n", "utf-8")
    settings = Settings(pattern=args.pattern, calibration=40, heldout=4, seed=args.seed)
    prepared = prepare(name, [p.path for p in real_photos()], settings)
    sensed = None
    for sparsity in (0.0, *args.sparsities):
        for method in args.methods if sparsity else ["dense"]:
            todo = [d for d in ("mnist", "elpv")
                    if (name, args.pattern, str(sparsity), str(args.seed), method, d) not in done]  # fmt: skip
            if not todo:
                continue
            model = prepared.model
            if method == "dp":
                sensed = sensed or sense_curves(prepared, settings)
                plan = choose(sensed.curves, [Budget("weights", 1 - sparsity, True)], "dp")
                chosen = sensed.chosen(plan.choice)
                model, _ = apply_options(prepared, settings, sensed.options, chosen)
            elif method != "dense":
                model = uniform_in_order(prepared, method, args.pattern, sparsity)
            for data in todo:
                metric, value = probe(model, data, args.count, prepared)
                row = (
                    name,
                    args.pattern,
                    sparsity,
                    args.seed,
                    method,
                    data,
                    args.count,
                    args.count,
                    metric,
                    f"{value:.4f}",
                )
                with path.open("a", encoding="utf-8", newline="") as file:
                    csv.writer(file).writerow(row)
                print(*row, flush=True)
    stamp = json.dumps(environment(threads=torch.get_num_threads()), indent=1)
    path.with_suffix(".json").write_text(stamp + "\n", "utf-8")


if __name__ == "__main__":
    main()
