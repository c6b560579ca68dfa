"""From a plan that cuts weights: accuracy after the cut, after recovery without labels, after training with labels.

    python benchmarks/pruned_training.py cifar10/ --start-steps 1600 --budget weights=30%
    python benchmarks/pruned_training.py cifar10/ --small
    python benchmarks/pruned_training.py cifar10/ --small --network resnet20 --init resnet20.th --start-steps 60

The network is trained in fp32, and ``fewer compress`` cuts it (unstructured; 64 images calibrate). ``--ways`` says how:
by our plan or by the ratios of others, always with our repair; ``lamp-alone`` is LAMP by magnitude without any repair.
Our plan is ``auto``, which is what a user gets, or ``dp``, whose curves take less time. Recovery sees images without
labels. The trainings with labels start from the cut network, whose masks stay, in fp32 and, for our plan, in 8 bits.

With ``--rounds`` the budget is reached in equal factors: cut, train, cut again what was trained, train again. The steps
are shared out among the rounds, so that every row has the same number, and each round is one cycle of the rate. The
dense network goes through the same training beside them. All rows are judged on the same images; the cuts see
training images alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from lowbit_common import arguments, opened, options_of, part_of, recipe, started, trained, unlabelled
from tables import Table

import fewer
from fewer.tasks.classify.evaluate import evaluate
from fewer.tasks.classify.settings import TrainSettings
from fewer.tasks.classify.training import train
from fewer.tasks.demos import PLAN

COLUMNS = (
    "network", "budget", "row", "rounds", "seed", "start", "steps", "batch", "rate", "images", "judged", "accuracy",
    "cpu_seconds",
)  # fmt: skip
OURS = ("auto", "dp")
LADDER = (0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)
"""Fine enough that no way of allocation loses by the steps between options."""
SMALL: dict[str, Any] = {
    "network": "resnet8", "budget": "weights=10%", "ways": "dp,uniform,erk,lamp,global_magnitude,lamp-alone",
    "rounds": 2, "start_steps": 600, "start_rate": 0.1, "steps": 100, "rate": 0.03, "images": 10_000, "judged": 2000,
    "seeds": 1, "one_shot": False,
}  # fmt: skip


def main() -> None:
    """Cut once for each way of allocation, then judge and train what the table lacks."""
    parser = arguments(str(__doc__), 200)
    parser.add_argument("--budget", default="weights=30%", help="a share of the weights")
    parser.add_argument("--recovery-steps", type=int, default=100)
    parser.add_argument("--ways", default="dp")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--one-shot", action=argparse.BooleanOptionalAction, default=True)
    options = options_of(parser, **SMALL)
    torch.set_num_threads(1)
    path = options.out or Path(__file__).parent / "results" / "pruned_training.csv"
    table = Table(path, COLUMNS, 11)
    data = part_of(options.data, Path("build") / "benchmarks", options.images, options.judged)
    dense = started(data, options)["init"]
    row = {"network": options.network, "budget": options.budget, "start": options.start_steps}
    row |= {"batch": options.batch, "images": options.images, "judged": options.judged}
    ways = options.ways.split(",")
    once(table, row | {"rounds": 0, "seed": 0, "steps": 0, "rate": ""}, data, dense, ways, options)
    row |= {"rounds": options.rounds, "steps": options.steps, "rate": options.rate}
    for seed in range(options.seeds):
        for way in ("dense", *ways):
            for bits in (None, "w8a8") if way in OURS and options.rounds == 1 else (None,):
                name = "dense, labels" if way == "dense" else f"{way}: cut, labels"
                entry = row | {"row": name + (f", {bits}" if bits else ""), "seed": seed}
                if entry not in table:
                    accuracy, seconds = in_rounds(data, dense, way, seed, bits, options)
                    table.add(entry | {"accuracy": f"{accuracy:.4f}", "cpu_seconds": seconds})


def once(
    table: Table, row: dict[str, Any], data: Path, dense: str, ways: list[str], options: argparse.Namespace
) -> None:
    """Rows without labels: the dense network, and what is left after one cut and after a recovery."""
    runs: dict[str, tuple[Any, int]] = {"dense": (lambda: dense, 0)}
    for way in ways if options.one_shot else ():
        runs[f"{way}: cut"] = (lambda way=way: cut_of(data, dense, way, options.budget, options), 0)
        if way in OURS:
            runs[f"{way}: recovered"] = (lambda way=way: recovered(data, dense, way, options), options.recovery_steps)
    for name, (run, steps) in runs.items():
        entry = row | {"row": name, "steps": steps}
        if entry not in table:
            table.add(entry | {"accuracy": f"{evaluate(run(), str(data)).top1:.4f}"})


def in_rounds(
    data: Path, dense: str, way: str, seed: int, bits: str | None, options: argparse.Namespace
) -> tuple[float, int]:
    """Accuracy after all rounds of cutting and training, and processor time of the last training."""
    share, rounds = float(options.budget.removeprefix("weights=").rstrip("%")) / 100, options.rounds
    how: dict[str, Any] = recipe(options, options.steps // rounds, seed) | {"network": "auto"}
    run, more = dense, dict[str, Any]()
    for number in range(1, rounds + 1):
        if way != "dense":
            budget = f"weights={100 * share ** (number / rounds):.4g}%" if number < rounds else options.budget
            run = str(cut_of(data, run, way, budget, options))
        more = {"init": run} | ({"bits": bits, "quantiser": "ste"} if bits else {})
        if number < rounds:
            after = data.parent / f"{Path(run).name}-trained-{options.steps // rounds}-{options.rate:g}-{seed}"
            if not (after / "report.json").exists():
                train(opened(data), out=after, settings=TrainSettings(**how | more), overwrite=after.exists())
            run = str(after)
    return trained(data, how | more)


def cut_of(data: Path, run: str, way: str, budget: str, options: argparse.Namespace) -> Path:
    """The run that one way of allocation leaves of another run, made once."""
    cut = data.parent / f"{Path(run).name}-{way}-{budget.removeprefix('weights=')}"
    if not (cut / "report.json").exists():
        # the ratios of others come from weights alone: curves of theirs would be measured and never looked at
        how: dict[str, Any] = {"baselines": ()} if way == "auto" else {**PLAN, "sparsities": LADDER}
        how |= {"allocator": way.removesuffix("-alone")}
        if way.endswith("-alone"):
            how |= {"score": "magnitude", "compensation": "none", "correction": 0.0}
        settings = fewer.Settings.of({**how, "calibration": 64, "heldout": 32, "backend": "serial", "workers": 1})
        fewer.compress(run, str(unlabelled(data)), budget, out=cut, settings=settings, overwrite=cut.exists())
    return cut


def recovered(data: Path, dense: str, way: str, options: argparse.Namespace) -> Path:
    """The run that a recovery without labels leaves, made once."""
    cut = cut_of(data, dense, way, options.budget, options)
    back = cut.with_name(f"{cut.name}-recovered")
    if not (back / "report.json").exists():
        fewer.recover(cut, None, out=back, steps=options.recovery_steps, overwrite=back.exists())
    return back


if __name__ == "__main__":
    main()
