"""Distillation on CIFAR-10: every method from one teacher to one student, beside the student alone.

    fewer train cifar10/ --task classify --network resnet32 --steps 20000 --out teacher
    python benchmarks/distillation.py cifar10/ --teacher teacher --network resnet20
    python benchmarks/distillation.py cifar10/ --teacher dense --network resnet20 --init cut --label "20 % of weights"
    python benchmarks/distillation.py cifar10/ --teacher teacher --small

Every method is added to the loss of the labels with the weight that its function has, which is not tuned for a pair of
networks; ``--weight`` multiplies it. ``--init`` may be a run of ``fewer compress``: its masks stay. A gain counts where
it lies outside of the interval of the student alone. Interrupted, it goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lowbit_common import COLUMNS, KEYS, arguments, options_of, part_of, plot, started, train_row
from tables import Table

SMALL: dict[str, Any] = {
    "network": "resnet8", "start_steps": 600, "start_rate": 0.1, "steps": 100, "rate": 0.03, "seeds": 1,
    "images": 10_000, "judged": 2000,
}  # fmt: skip


def main() -> None:
    """Train what the table lacks, row by row."""
    from fewer.distillation.methods import METHODS

    parser = arguments(str(__doc__), 600)
    parser.add_argument("--teacher", required=True, help="run folder, or any other classifier of the same classes")
    parser.add_argument("--label", default="", help="heads the names of the rows: what the student is")
    parser.add_argument("--weight", type=float, default=1.0, help="of the teacher's loss beside that of the labels")
    options = options_of(parser, **SMALL)
    path = options.out or Path(__file__).parent / "results" / "distillation.csv"
    table = Table(path, COLUMNS, KEYS)
    data = part_of(options.data, Path("build") / "benchmarks", options.images, options.judged)
    rows = options.rows.split(",") if options.rows else list(METHODS)
    start = started(data, options)
    head = f"{options.label}: " if options.label else ""
    for seed in range(options.seeds):
        train_row(table, data, options, f"{head}alone", seed, **start)
        for row in rows:
            teacher = {} if row == "self" else {"teacher": options.teacher}
            name = f"{head}{row}" + (f", weight {options.weight:g}" if options.weight != 1 else "")
            train_row(table, data, options, name, seed, distill=row, distill_weight=options.weight, **teacher, **start)
    plot(path, "Distillation, CIFAR-10")


if __name__ == "__main__":
    main()
