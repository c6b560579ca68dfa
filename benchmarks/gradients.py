"""Gradients in few bits on CIFAR-10: every rounding, and hypernetworks on top of them.

    python benchmarks/gradients.py cifar10/ --bits w8a8 --network resnet20 --steps 4000
    python benchmarks/gradients.py cifar10/ --bits w4a4 --network vgg16-bn --steps 4000
    python benchmarks/gradients.py cifar10/ --small

Every row is trained with the same seeds, images and rates; ``--rates`` tries several and each row counts at its best
one. The first and last layer have 8 bits in every row, and no layer is kept in floating point. Interrupted, it goes on:
a row that the table has is not trained again. A full run (50,000 images, 3 seeds) takes days on two cores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lowbit_common import COLUMNS, KEYS, arguments, options_of, part_of, plot, started, train_row
from tables import Table

ROUNDINGS = (
    "nearest",
    "nearest-sample",
    "stochastic",
    "stochastic-sample",
    "stochastic-block",
    "luq",
    "lbt",
    "hadamard",
    "unbiased-scale",
)
SMALL: dict[str, Any] = {
    "network": "vgg16-bn-narrow", "start_steps": 300, "start_rate": 0.1, "steps": 60, "rate": 0.02, "images": 10_000,
    "judged": 2000, "gradient_bits": "4", "seeds": 1, "rows": "nearest,nearest-sample,stochastic-sample,luq,"
    "scalar-gain+nearest,metagrad+nearest,metagrad+stochastic-sample",
}  # fmt: skip
HYPER = ("scalar-gain+nearest", "metagrad+nearest", "metagrad+stochastic-sample")


def main() -> None:
    """Train what the table lacks, row by row."""
    parser = arguments(str(__doc__), 600)
    parser.add_argument("--bits", default="w8a8", help="of weights and inputs")
    parser.add_argument("--gradient-bits", default="8,4,3")
    parser.add_argument("--rates", default="")
    options = options_of(parser, **SMALL)
    path = options.out or Path(__file__).parent / "results" / "gradients.csv"
    table = Table(path, COLUMNS, KEYS)
    data = part_of(options.data, Path("build") / "benchmarks", options.images, options.judged)
    rows = options.rows.split(",") if options.rows else [*ROUNDINGS, *HYPER]
    start = started(data, options)
    for seed in range(options.seeds):
        for rate in [float(r) for r in options.rates.split(",") if r] or [options.rate]:
            options.rate = rate
            train_row(table, data, options, "fp32 gradients", seed, bits=f"{options.bits}g32", quantiser="ste", **start)
            for bits in options.gradient_bits.split(","):
                for row in rows:
                    how = {"bits": f"{options.bits}g{bits}", "quantiser": "ste", "gradients": row, **start}
                    train_row(table, data, options, row, seed, **how)
    plot(path, "Gradients in few bits, CIFAR-10")


if __name__ == "__main__":
    main()
