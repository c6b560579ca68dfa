"""What rounding with feedback gives: every layer dense, in int8 (weights and activations) or int4 (weights alone).

``nearest``: each weight to its nearest integer. ``feedback``: later weights of a row make up for the errors of earlier
ones (``fewer.quantize.feedback``), and layers for those before them, as the repair of ``fewer compress`` does it. int8
has 64 levels on either side of zero, so that processors without VNNI can sum products of bytes in 16 bits; ``nearest,
127 levels`` is without that limit. Nothing is cut or smoothed. Depthwise and grouped convolutions stay as they are at
int8, as in the kernels; at int4 they are rounded to the nearest. Errors on held-out photos; a seed draws the crops.

    OMP_NUM_THREADS=1 python benchmarks/rounding.py       # goes on where it stopped
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path

import torch
from tables import Table
from torch import nn

from fewer.core.option import Option
from fewer.data.photos import real_photos
from fewer.engine.apply import apply_options
from fewer.engine.judge import Judge
from fewer.engine.prepare import Prepared, prepare
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.formats.integers import rounded
from fewer.quantize.activations import rounding_inputs_of
from fewer.reports import environment

HERE = Path(__file__).parent / "results"
COLUMNS = ("model", "precision", "rounding", "seed", "error", "median", "quality_name", "quality")
WAYS = (
    ("int8", "nearest, 127 levels"),
    ("int8", "nearest"),
    ("int8", "feedback"),
    ("int4", "nearest"),
    ("int4", "feedback"),
)


def rounded_model(prepared: Prepared, settings: Settings, precision: str, rounding: str) -> tuple[nn.Module, list[str]]:
    """The model with all weights in a precision, and the names of the layers."""
    names = [u.name for u in prepared.matched.units if precision == "int4" or u.groups == 1]
    if rounding == "feedback":
        chosen = {u.name: Option("dense", 0, precision if u.name in names else "fp32") for u in prepared.matched.units}
        options = {name: [Option(), option] for name, option in chosen.items()}
        return apply_options(Work(prepared, settings), options, chosen)[0], names
    model = copy.deepcopy(prepared.model)
    for name in names:
        weight = model.get_submodule(name).weight.data
        matrix = weight.flatten(1)
        if rounding.endswith("127 levels"):
            scale = (matrix.abs().amax(1, keepdim=True) / 127).clamp_min(1e-30)
            matrix = (matrix / scale).round() * scale
        else:
            matrix = rounded(matrix, precision, "mse" if precision == "int4" else "min-max")
        weight.copy_(matrix.view_as(weight))
    return model, names


@torch.no_grad()
def measure(table: Table, name: str, seed: int) -> None:
    rows = [{"model": name, "precision": p, "rounding": r, "seed": seed} for p, r in WAYS]
    if all(row in table for row in rows):
        return
    settings = Settings(calibration=64, sensing=8, heldout=32, seed=seed)
    prepared = prepare(name, [photo.path for photo in real_photos()], settings)
    judge = Judge(prepared.model, prepared.heldout, task=prepared.loaded.task)
    for row in rows:
        if row in table:
            continue
        model, names = rounded_model(prepared, settings, row["precision"], row["rounding"])
        layers = [model.get_submodule(n) for n in names]
        with rounding_inputs_of({"int8": layers} if row["precision"] == "int8" else {}):
            found = judge.judge(model)
        measured = {"error": f"{found.distortion:.6g}", "median": f"{found.median:.6g}"}
        table.add({**row, **measured, "quality_name": found.name, "quality": f"{found.value:.6f}"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["fewer/mobilenet-v2", "fewer/dinov2-small"])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=HERE / "rounding.csv")
    args = parser.parse_args()
    table = Table(args.out, COLUMNS, 4)
    stamp = json.dumps(environment(threads=torch.get_num_threads()), indent=1)
    args.out.with_suffix(".json").write_text(stamp + "\n", "utf-8")
    for model in args.models:
        for seed in args.seeds:
            measure(table, model, seed)


if __name__ == "__main__":
    main()
