"""Does it help to put inner channels in order before blocks are cut?

Every layer of a network loses the same share of its blocks and is repaired in order, as ``fewer compress`` does it;
the channels inside MLPs (and, in one arm, inside attention heads) are first put in an order in which alike ones stand
together (``fewer.models.reorder``), which does not change what the network computes. Error on held-out photos.

    OMP_NUM_THREADS=1 python benchmarks/reorder.py       # goes on where it stopped
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from tables import Table

from fewer.core.option import Option
from fewer.data.photos import real_photos
from fewer.engine.apply import apply_options
from fewer.engine.judge import Judge
from fewer.engine.prepare import prepare
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.models.reorder import reordered
from fewer.models.spec import load_model
from fewer.reports import environment

HERE = Path(__file__).parent / "results"
COLUMNS = ("model", "option", "order", "seed", "error", "median", "quality_name", "quality", "cpu_seconds")
ORDERS = ("as it came", "mlp", "mlp and heads")
OPTIONS = ("block:16x16@0.5", "block:16x4@0.5")


def measure(model: str, option: str, order: str, seed: int, calibration: int) -> dict[str, str]:
    wanted, files = Option.parse(option), [photo.path for photo in real_photos()]
    settings = Settings(pattern=wanted.pattern, calibration=calibration, heldout=32, seed=seed, reorder=False)
    loaded, began = load_model(model), time.process_time()
    prepared = prepare(loaded, files, settings)
    if order != "as it came":
        heads = order == "mlp and heads"
        net, _ = reordered(prepared.model, prepared.matched.units, prepared.calibration, heads=heads)
        prepared = prepare(replace(loaded, model=net), files, settings)
    names = [unit.name for unit in prepared.matched.units]
    ladder = (Option(), Option(wanted.pattern, wanted.sparsity / 2), wanted)
    net, _ = apply_options(Work(prepared, settings), dict.fromkeys(names, ladder), dict.fromkeys(names, wanted))
    seconds = time.process_time() - began
    found = Judge(prepared.model, prepared.heldout, task=loaded.task).judge(net)
    return {
        "error": f"{found.distortion:.5f}",
        "median": f"{found.median:.5f}",
        "quality_name": found.name,
        "quality": f"{found.value:.5f}",
        "cpu_seconds": f"{seconds:.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=["fewer/dinov2-small"])
    parser.add_argument("--options", nargs="*", default=list(OPTIONS))
    parser.add_argument("--orders", nargs="*", default=list(ORDERS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--calibration", type=int, default=40)
    parser.add_argument("--out", type=Path, default=HERE / "reorder.csv")
    args = parser.parse_args()
    table = Table(args.out, COLUMNS, 4)
    stamp = json.dumps(environment(threads=torch.get_num_threads()), indent=1)
    args.out.with_suffix(".json").write_text(stamp + "\n", "utf-8")
    for option in args.options:
        for seed in args.seeds:
            for model in args.models:
                for order in args.orders:
                    row = {"model": model, "option": option, "order": order, "seed": seed}
                    if row not in table:
                        table.add(row | measure(model, option, order, seed, args.calibration))


if __name__ == "__main__":
    main()
