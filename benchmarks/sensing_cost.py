"""What curves cost: ours, and one forward pass for each of 101 ratios, layer and image, as the ICCV 2023 paper does.

Our passes are counted and timed as ``fewer compress`` runs them, repair of every option included. The other way is
counted in full and timed on some of its layers, spread over the network: each ratio cuts the layer by magnitude and
runs every image; the time is scaled to all layers. Writes results/sensing_cost.csv.

    python benchmarks/sensing_cost.py
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import torch

from fewer.data.photos import real_photos
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.sense import resolved, sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.models.running import call, evaluating
from fewer.patterns import Pattern, select_mask
from fewer.reports import environment

RESULTS = Path(__file__).parent / "results"
RATIOS = 101
COLUMNS = (
    "model", "layers", "images", "estimator", "options", "passes", "seconds", "paper_forwards", "paper_timed_forwards",
    "paper_timed_seconds", "paper_seconds_scaled", "fewer_passes_factor", "faster_factor",
)  # fmt: skip


def paper_way(prepared: Prepared, images: int, layers: int) -> tuple[int, float]:
    """Forward passes and seconds of trying 101 ratios on some layers, one batch of all images at a time."""
    units = prepared.matched.units
    some = [units[round(i * (len(units) - 1) / max(1, layers - 1))] for i in range(layers)]
    batches = list(prepared.calibration[:images].split(4))
    began = time.perf_counter()
    with evaluating(prepared.model):
        for unit in some:
            layer = prepared.layers[unit.name]
            score = layer.matrix.square()
            with layer.borrowed():
                dense = layer.matrix.clone()
                for k in range(RATIOS):
                    mask = select_mask(score, Pattern.parse("unstructured"), k / (RATIOS - 1))
                    layer.install(dense * mask)
                    for batch in batches:
                        call(prepared.model, batch, prepared.forward)
    return RATIOS * layers * images, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["fewer/dinov2-small", "fewer/mobilenet-v2"])
    parser.add_argument("--layers", type=int, default=2, help="layers that the paper's way is timed on")
    args = parser.parse_args()
    RESULTS.mkdir(exist_ok=True)
    rows = []
    for model in args.models:
        prepared = prepare(model, [p.path for p in real_photos()], Settings(calibration=40, heldout=4))
        settings = resolved(prepared, Settings(calibration=40, heldout=4))
        images = prepared.apart[0]
        sensed = sense_curves(Work(prepared, settings))
        count, layers = sum(len(c.options) - 1 for c in sensed.curves.curves), len(sensed.curves)
        timed, seconds = paper_way(prepared, images, args.layers)
        full = RATIOS * layers * images
        scaled = seconds * full / timed
        passes, ours = sensed.facts["passes"], sensed.facts["seconds"]
        values = (
            model, layers, images, settings.estimator, count, passes, f"{ours:.1f}", full, timed, f"{seconds:.1f}",
            f"{scaled:.0f}", f"{full / passes:.1f}", f"{scaled / ours:.1f}",
        )  # fmt: skip
        rows.append(values)
        print(dict(zip(COLUMNS, values, strict=True)), flush=True)
    with (RESULTS / "sensing_cost.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows(rows)
    stamp = json.dumps(environment(threads=torch.get_num_threads()), indent=1)
    (RESULTS / "sensing_cost.json").write_text(stamp + "\n", "utf-8")


if __name__ == "__main__":
    main()
