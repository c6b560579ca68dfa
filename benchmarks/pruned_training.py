"""From a plan that cuts weights: accuracy after the cut, after recovery without labels, after training with labels.

    python benchmarks/pruned_training.py cifar10/ --start-steps 1600 --budget weights=30%
    python benchmarks/pruned_training.py cifar10/ --start-steps 1600 --budget weights=10% --allocators auto,erk,lamp

The network is trained in fp32, and ``fewer compress`` cuts it (unstructured; 64 images calibrate), by our plan or by
the ratios of others, always with our repair. Our plan is ``auto``, which is what a user gets, or ``dp``, whose curves
take less time. Recovery sees images without labels. The trainings with labels start from the cut network, whose masks
stay, in fp32 and, for our plan, in 8 bits; the dense network goes through the same training beside them. All rows are
judged on the same images.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from lowbit_common import arguments, opened, part_of, recipe, started
from tables import Table

import fewer
from fewer.tasks.classify.evaluate import evaluate
from fewer.tasks.classify.settings import TrainSettings
from fewer.tasks.classify.training import train
from fewer.tasks.demos import PLAN

COLUMNS = ("network", "budget", "row", "seed", "steps", "rate", "accuracy", "judged", "start")
OURS = ("auto", "dp")
LADDER = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98)


def main() -> None:
    """Cut once for each way of allocation, then judge and train what the table lacks."""
    parser = arguments(str(__doc__), 200)
    parser.add_argument("--budget", default="weights=30%")
    parser.add_argument("--recovery-steps", type=int, default=100)
    parser.add_argument("--allocators", default="dp")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out or Path(__file__).parent / "results" / "pruned_training.csv"
    table = Table(path, COLUMNS, 6)
    data = part_of(options.data, Path("build") / "benchmarks", options.images, options.judged)
    dense = started(data, options)["init"]
    runs: dict[str, tuple[str, int]] = {"dense": (dense, 0)}
    trainings: dict[str, dict[str, Any]] = {"dense, labels": {"init": dense}}
    for name in options.allocators.split(","):
        cut = _cut(data, dense, name, options)
        runs[f"{name}: cut"] = (str(cut), 0)
        trainings[f"{name}: cut, labels"] = {"init": str(cut)}
        if name in OURS:
            runs[f"{name}: recovered"] = (str(_recovered(cut, options)), options.recovery_steps)
            trainings[f"{name}: cut, labels, w8a8"] = {"init": str(cut), "bits": "w8a8", "quantiser": "ste"}
    row = {"network": options.network, "budget": options.budget, "seed": 0}
    row |= {"judged": options.judged, "start": options.start_steps}
    for name, (run, steps) in runs.items():
        entry = row | {"row": name, "steps": steps, "rate": ""}
        if entry not in table:
            table.add(entry | {"accuracy": f"{evaluate(run, str(data)).top1:.4f}"})
    for seed in range(options.seeds):
        for name, more in trainings.items():
            entry = row | {"row": name, "seed": seed, "steps": options.steps, "rate": options.rate}
            if entry not in table:
                done = train(opened(data), settings=TrainSettings(**recipe(options, options.steps, seed) | more))
                assert done.evaluation is not None
                table.add(entry | {"accuracy": f"{done.evaluation.top1:.4f}"})


def _cut(data: Path, dense: str, allocator: str, options: argparse.Namespace) -> Path:
    """The run that one way of allocation leaves, made once."""
    cut = data.parent / f"cut-{Path(dense).name}-{allocator}-{options.budget}"
    if not (cut / "report.json").exists():
        # the ratios of others come from weights alone: curves of theirs would be measured and never looked at
        how = {"baselines": ()} if allocator == "auto" else {**PLAN, "sparsities": LADDER}
        settings = fewer.Settings.of({**how, "calibration": 64, "heldout": 32, "allocator": allocator})
        fewer.compress(dense, str(data), options.budget, out=cut, settings=settings, overwrite=cut.exists())
    return cut


def _recovered(cut: Path, options: argparse.Namespace) -> Path:
    back = cut.with_name(cut.name.replace("cut-", "recovered-"))
    if not (back / "report.json").exists():
        fewer.recover(cut, None, out=back, steps=options.recovery_steps, overwrite=back.exists())
    return back


if __name__ == "__main__":
    main()
