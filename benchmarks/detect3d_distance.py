"""Which weights of the distortion `detection` order detectors as their average precision does, on simulated scans.

Detectors between the dense one and compressed ones are made by taking each layer, with the norm behind it, from one of
them at random. So some err in confidence and others in places, by little or by much. Each is run on scans that neither
trained nor calibrated, and two things are noted: the AP of cars that it loses, and by how much each value of the raw
head tensors moves (mean square over the cells, weighted by the dense detector's confidence). The first table is kept;
the second says how well the AP that is lost goes together with sums of these numbers (Spearman's rank correlation), in
the forms that are compared. Half of the detectors choose, the other half judge.

    python benchmarks/detect3d.py --work /tmp/detect3d --methods ours dm3d          # compressed detectors to mix
    python benchmarks/detect3d_distance.py --work /tmp/detect3d
"""

from __future__ import annotations

import argparse
import copy
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detect3d_weights import streets
from scipy.stats import spearmanr
from torch import Tensor, nn

from fewer.distortion.detection import DetectionDistance
from fewer.models.running import evaluating
from fewer.models.spec import load_model
from fewer.tasks.detect3d.dataset import open_data
from fewer.tasks.detect3d.demo import trained_detector
from fewer.tasks.detect3d.evaluation import score_detections
from fewer.tasks.detect3d.loaded import detector_of, scan_tensor

RESULTS = Path(__file__).parent / "results"
SEEN_BY = 4
"""Seed of the streets that all detectors are run on."""
VALUES = ("x", "y", "z", "length", "width", "height", "yaw")
OVERLAP = (16.0, 16.0, 4.0, 1.0, 1.0, 1.0, 2.0)
"""Squared loss of overlap of a car by each value of the code, for a small change of it: 2 d / side for a move by d."""


def groups(model: nn.Module) -> list[list[str]]:
    """Names of layers, each with the norm behind it: they were changed together."""
    found: list[list[str]] = []
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            found.append([name])
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and found:
            found[-1].append(name)
    return found


def mixed(dense: nn.Module, others: list[nn.Module], rng: np.random.Generator) -> nn.Module:
    """A detector each of whose layers is the dense one's or another's."""
    made, share = copy.deepcopy(dense), rng.uniform(0.1, 1.0)
    other = others[rng.integers(len(others))]
    own, theirs = dict(made.named_modules()), dict(other.named_modules())
    for names in groups(dense):
        if rng.random() < share:
            for name in names:
                own[name].load_state_dict(theirs[name].state_dict())
    return made


def seen(model: Any, scans: list[Tensor]) -> tuple[list[dict[str, Tensor]], list[Any]]:
    """Raw head tensors and boxes of each scan."""
    outputs, boxes = [], []
    with evaluating(model):
        for scan in scans:
            raw, more = model._run((scan,))
            outputs.append(raw)
            boxes.append(model.objects(raw, more, 0.05)[0])
    return outputs, boxes


def moves(distance: DetectionDistance, outputs: list[dict[str, Tensor]]) -> dict[str, float]:
    """Mean squared change of each value of the heads over cells, weighted as the distance weighs cells."""
    sums: dict[str, list[float]] = {}
    for one, dense, weights in zip(outputs, distance.dense, distance.weights, strict=True):
        for name, before in dense.items():
            change = (one[name] - before).square()
            weight = weights[name].expand_as(change)
            last = name.rpartition(".")[2]
            values = 7 if last in ("box_preds", "rcnn_reg") else 1
            folded = change.view(len(change), -1, values, *change.shape[2:])
            heavy = weight.view_as(folded)
            for k in range(values):
                key = f"{name} {VALUES[k]}" if values == 7 else name
                part = sums.setdefault(key, [0.0, 0.0])
                part[0] += float((folded[:, :, k] * heavy[:, :, k]).sum())
                part[1] += float(heavy[:, :, k].sum())
    return {key: top / max(bottom, 1e-12) for key, (top, bottom) in sums.items()}


def rows_of(work: Path, count: int, scans: int) -> list[dict[str, Any]]:
    """Each detector's AP, and what moved."""
    data = open_data(streets(work, SEEN_BY, scans, 1.0))
    names = data.names[:scans]
    dense = detector_of(load_model(str(trained_detector())))
    others = [p.parent for p in sorted(work.glob("pointpillars-*-*-*-*/recipe.json"))]
    models: list[Any] = [load_model(str(place)).model for place in others]
    tensors = [scan_tensor(data.points(name), dense.config) for name in names]
    truths = [data.everything(name) for name in names]
    before, boxes = seen(dense, tensors)
    distance = DetectionDistance(before)

    def ap(found: list[Any]) -> float:
        return score_detections(truths, found, ("Car",), score=0.3, reach=dense.config.reach).ap("Car") or 0.0

    first, rng, rows = ap(boxes), np.random.default_rng(0), []
    for number in range(count):
        model = models[number] if number < len(models) else mixed(dense, models, rng)
        outputs, boxes = seen(model, tensors)
        facts = {"detector": others[number].name if number < len(models) else f"mixed {number}"}
        changed = sum(float(distance.change(i, one).sum()) for i, one in enumerate(outputs)) / distance.samples
        facts |= {"ap_dense": round(first, 2), "ap": round(ap(boxes), 2), "distortion": f"{changed:.5g}"}
        rows.append(facts | {key: f"{value:.5g}" for key, value in moves(distance, outputs).items()})
        print(*rows[-1].values(), flush=True)
    variance = variances(distance)
    return [{"detector": "variance of the dense one", **{k: f"{v:.5g}" for k, v in variance.items()}}, *rows]


def variances(distance: DetectionDistance) -> dict[str, float]:
    """Variance of each value of the dense heads, over the same cells with the same weights."""
    held = copy.copy(distance)
    first = moves(_at(held, 0.0), distance.dense)
    means = {}
    for key in first:
        name, _, value = key.partition(" ")
        stacked = [
            (one[name], w[name].expand_as(one[name])) for one, w in zip(distance.dense, distance.weights, strict=True)
        ]
        k, step = (VALUES.index(value), 7) if value else (0, 1)
        top = sum(float((t[:, k::step] * w[:, k::step]).sum()) for t, w in stacked)
        means[key] = top / max(sum(float(w[:, k::step].sum()) for _, w in stacked), 1e-12)
    return {key: first[key] - means[key] ** 2 for key in first}


def _at(distance: DetectionDistance, value: float) -> DetectionDistance:
    """The same weights about a constant in place of the dense outputs."""
    distance.dense = [{name: torch.full_like(t, value) for name, t in one.items()} for one in distance.dense]
    return distance


def forms(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """How well each form orders the detectors by the AP that they lose."""
    variance, made = rows[0], rows[1:]
    lost = np.array([float(r["ap_dense"]) - float(r["ap"]) for r in made])
    keys = [k for k in variance if k not in ("detector", "ap_dense", "ap", "distortion")]
    read = {key: np.array([float(r[key]) for r in made]) for key in keys}
    scale = {key: float(variance[key]) for key in keys}
    boxes = [f"box_preds {value}" for value in VALUES]

    def weighted(weights: dict[str, float]) -> np.ndarray:
        top = sum(weights[k] * read[k] for k in boxes)
        return np.asarray(top) / sum(weights[k] * scale[k] for k in boxes)

    places = {
        "box on one scale": weighted(dict.fromkeys(boxes, 1.0)),
        "each value on its own scale": weighted({k: 1 / scale[k] for k in boxes}),
        "values by what they do to the overlap": weighted(dict(zip(boxes, OVERLAP, strict=True))),
    }
    confident, facing = read["cls_preds"] / scale["cls_preds"], read["dir_cls_preds"] / scale["dir_cls_preds"]
    tried = {
        f"{kind}, {weight:g} of it, {direction:g} direction": (1 - weight) * confident
        + weight * part
        + direction * facing
        for kind, part in places.items()
        for weight in (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
        for direction in (0.0, 0.05, 0.5)
    }
    tried = {"as measured": np.array([float(r["distortion"]) for r in made])} | tried
    odd = np.arange(len(lost)) % 2 == 1
    parts = {"chooses": odd, "judges": ~odd, "all": odd | ~odd, "small losses": lost < 15}
    return [
        {"form": name, **{k: round(float(spearmanr(v[m], lost[m]).statistic), 3) for k, m in parts.items()}}
        for name, v in tried.items()
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """A table, as a whole."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n", restval="")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    """Make the detectors unless they are there, and compare the forms."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--detectors", type=int, default=60)
    parser.add_argument("--scans", type=int, default=40)
    parser.add_argument("--out", type=Path, default=RESULTS / "detect3d_distance.csv")
    parser.add_argument("--again", action="store_true", help="run the detectors again")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.again or not args.out.exists():
        write(args.out, rows_of(args.work, args.detectors, args.scans))
    with args.out.open() as file:
        found = forms(list(csv.DictReader(file)))
    write(args.out.with_name(args.out.stem + "_forms.csv"), found)
    for row in found:
        print(*row.values())


if __name__ == "__main__":
    main()
