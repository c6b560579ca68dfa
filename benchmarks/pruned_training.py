"""From a plan that cuts weights: accuracy after the cut, after recovery without labels, after training with labels.

    python benchmarks/pruned_training.py cifar10/ --start-steps 1600 --budget weights=30%

The network is trained in fp32, and ``fewer compress`` cuts it (unstructured; 64 images calibrate). Recovery sees images
without labels. The trainings with labels start from the cut network, whose masks stay, in fp32 and in 8 bits; the dense
network goes through the same training beside them. All rows are judged on the same images.
"""

from __future__ import annotations

from pathlib import Path

import torch
from lowbit_common import arguments, opened, part_of, recipe, started
from tables import Table

import fewer
from fewer.tasks.classify.evaluate import evaluate
from fewer.tasks.classify.settings import TrainSettings
from fewer.tasks.classify.training import train
from fewer.tasks.demos import PLAN

COLUMNS = ("network", "budget", "row", "seed", "steps", "rate", "accuracy")


def main() -> None:
    """Cut once, then judge and train what the table lacks."""
    parser = arguments(str(__doc__), 200)
    parser.add_argument("--budget", default="weights=30%")
    parser.add_argument("--recovery-steps", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.out or Path(__file__).parent / "results" / "pruned_training.csv"
    table = Table(path, COLUMNS, 6)
    data = part_of(options.data, Path("build") / "benchmarks", options.images, options.judged)
    dense = started(data, options)["init"]
    cut, back = (data.parent / f"{kind}-{options.network}-{options.budget}" for kind in ("cut", "recovered"))
    if not (cut / "report.json").exists():
        settings = fewer.Settings.of({**PLAN, "calibration": 64, "heldout": 32})
        fewer.compress(dense, str(data), options.budget, out=cut, settings=settings, overwrite=cut.exists())
    if not (back / "report.json").exists():
        fewer.recover(cut, None, out=back, steps=options.recovery_steps, overwrite=back.exists())
    row = {"network": options.network, "budget": options.budget, "seed": 0}
    for name, run, steps in (("dense", dense, 0), ("cut", cut, 0), ("recovered", back, options.recovery_steps)):
        entry = row | {"row": name, "steps": steps, "rate": ""}
        if entry not in table:
            table.add(entry | {"accuracy": f"{evaluate(run, str(data)).top1:.4f}"})
    trainings = {"dense, labels": {"init": dense}, "cut, labels": {"init": str(cut)}}
    trainings["cut, labels, w8a8"] = {"init": str(cut), "bits": "w8a8", "quantiser": "ste"}
    for seed in range(options.seeds):
        for name, more in trainings.items():
            entry = row | {"row": name, "seed": seed, "steps": options.steps, "rate": options.rate}
            if entry not in table:
                done = train(opened(data), settings=TrainSettings(**recipe(options, options.steps, seed) | more))
                assert done.evaluation is not None
                table.add(entry | {"accuracy": f"{done.evaluation.top1:.4f}"})


if __name__ == "__main__":
    main()
