"""LPViT where its accuracy comes from: a small ViT is cut in blocks, and trained with its dense self as teacher.

    python benchmarks/lpvit_training.py cifar10/ --network vit-small --start-steps 5000 --start-rate 1e-3 --rate 3e-4
    python benchmarks/lpvit_training.py cifar10/ --small

The network is trained in fp32 and cut in blocks of 16 x 16 to shares of its weights: by LPViT's method, by ours (exact
allocation, weights repaired) and by ours with the same share everywhere. All are then trained alike, with labels and
with soft labels of the dense network, which goes through the same training beside them. *Power* is LPViT's linear count
of what is left, a model; *time* is that of an image on the native kernels over that of the dense network on them,
processor time, measured in turns. Compressions see training images alone. Seeds change the order of the training; the
start and the cuts are the same for all of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
import torch
from lowbit_common import arguments, options_of, part_of, recipe, started, trained, unlabelled
from tables import Table

import fewer
from fewer.engine.rivals import rival_settings
from fewer.models.artefact import RECIPE, load_masks
from fewer.models.recipe import read_recipe
from fewer.tasks.classify.evaluate import evaluate

COLUMNS = (
    "network", "budget", "row", "seed", "start", "steps", "batch", "rate", "images", "judged", "accuracy", "power",
    "time", "cpu_seconds",
)  # fmt: skip
CUTS = ("lpvit", "ours", "uniform")
SMALL: dict[str, Any] = {
    "network": "vit-nano", "start_steps": 600, "start_rate": 1e-3, "steps": 120, "rate": 3e-4, "seeds": 1,
    "images": 10_000, "judged": 2000,
}  # fmt: skip


def main() -> None:
    """Cut once for each way and budget, then judge and train what the table lacks."""
    parser = arguments(str(__doc__), 200)
    parser.add_argument("--budgets", default="weights=50%,weights=30%")
    options = options_of(parser, **SMALL)
    torch.set_num_threads(1)
    table = Table(options.out or Path(__file__).parent / "results" / "lpvit_training.csv", COLUMNS, 10)
    data = part_of(options.data, Path("build") / "benchmarks", options.images, options.judged)
    dense = started(data, options)["init"]
    runs = {("dense", "dense"): dense}
    for budget in options.budgets.split(","):
        runs |= {(budget, name): str(cut_of(data, dense, name, budget, options)) for name in CUTS}
    common = {"network": options.network, "start": options.start_steps, "batch": options.batch}
    common |= {"images": options.images, "judged": options.judged}
    for (budget, name), run in runs.items():
        entry = common | {"budget": budget, "row": name, "seed": 0, "steps": 0, "rate": ""}
        if entry not in table:
            told = {} if run == dense else {"power": f"{power_left(run):.3f}", "time": f"{time_over(run, dense):.3f}"}
            table.add(entry | {"accuracy": f"{evaluate(run, str(data)).top1:.4f}"} | told)
    for seed in range(options.seeds):
        for (budget, name), run in runs.items():
            entry = common | {"budget": budget, "row": f"{name}, taught", "seed": seed}
            entry |= {"steps": options.steps, "rate": options.rate}
            if entry not in table:
                how: dict[str, Any] = recipe(options, options.steps, seed) | {"network": "auto", "init": run}
                accuracy, seconds = trained(data, how | {"teacher": dense, "distill": "kd"})
                table.add(entry | {"accuracy": f"{accuracy:.4f}", "cpu_seconds": seconds})


def cut_of(data: Path, dense: str, name: str, budget: str, options: argparse.Namespace) -> Path:
    """The run that one way leaves within a budget, made once."""
    cut = data.parent / f"{Path(dense).name}-blocks-{name}-{budget.removeprefix('weights=')}"
    if not (cut / "report.json").exists():
        ladder = tuple(round(0.1 * i, 1) for i in range(1, 10))
        common = {"calibration": 64, "heldout": 32, "backend": "serial", "workers": 1, "baselines": ()}
        settings = fewer.Settings.from_preset("lpvit", sparsities=ladder, **common)
        if name != "lpvit":
            settings = rival_settings("default", settings)
        if name == "uniform":
            settings = settings.model_copy(update={"allocator": "uniform"})
        fewer.compress(dense, str(unlabelled(data)), budget, out=cut, settings=settings, overwrite=cut.exists())
    return cut


def power_left(run: str) -> float:
    """LPViT's linear count: connections that are left, each once for each input of its layer, as a share."""
    masks, drawn, whole = load_masks(run), 0.0, 0.0
    for unit in read_recipe(Path(run) / RECIPE).units:
        columns = int(np.prod(unit.shape[1:]))
        count = unit.shape[0] * columns**2
        mask = masks.get(unit.name)
        whole, drawn = whole + count, drawn + count * (1.0 if mask is None else float(mask.float().mean()))
    return drawn / whole


def time_over(run: str, dense: str, rounds: int = 100) -> float:
    """Median time of an image over that of the dense network, both on the native kernels."""
    image = torch.randn(1, 3, 32, 32)
    nets = [fewer.load(name, accelerated=True, threads=1) for name in (run, dense)]
    times: list[list[float]] = [[], []]
    with torch.inference_mode():
        for _ in range(rounds):
            for net, spent in zip(nets, times, strict=True):
                began = thread_time()
                net(image)
                spent.append(thread_time() - began)
    return float(np.median(times[0]) / np.median(times[1]))


if __name__ == "__main__":
    main()
