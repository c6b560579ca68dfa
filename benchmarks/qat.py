"""Quantization-aware training on CIFAR-10: W8A8, W4A4, W2A4 and ternary weights beside fp32, for every quantiser.

    python benchmarks/qat.py cifar10/ --init run/ --rate 0.01

``--init`` is a run of the same network in fp32 (``fewer train``), or of ``fewer compress`` on it, whose masks and
precisions then stay. Interrupted, it goes on.
"""

from __future__ import annotations

from pathlib import Path

from lowbit_common import COLUMNS, KEYS, arguments, part_of, plot, started, train_row
from tables import Table

BITS = ("w8a8", "w4a4", "w2a4", "wta4")
QUANTISERS = ("auto", "lsq", "lsq+", "ste", "pact", "dorefa", "ewgs")


def main() -> None:
    """Train what the table lacks, row by row."""
    parser = arguments(str(__doc__), 600)
    parser.add_argument("--bits", default=",".join(BITS))
    parser.add_argument("--teacher", help="run folder of a network in fp32 that teaches beside the labels (kd)")
    options = parser.parse_args()
    path = options.out or Path(__file__).parent / "results" / "qat.csv"
    table = Table(path, COLUMNS, KEYS)
    data = part_of(options.data, Path("build") / "benchmarks", options.images, options.judged)
    rows = options.rows.split(",") if options.rows else list(QUANTISERS)
    start = started(data, options)
    for seed in range(options.seeds):
        train_row(table, data, options, "fp32", seed, **start)
        for bits in options.bits.split(","):
            for row in rows:
                name = f"{row}, taught by fp32" if options.teacher else row
                more = {"teacher": options.teacher, "distill": "kd"} if options.teacher else {}
                train_row(table, data, options, name, seed, bits=bits, quantiser=row, **start, **more)
    plot(path, "Quantization-aware training, CIFAR-10")


if __name__ == "__main__":
    main()
