"""Time of the backward products of a linear layer in fp32, bf16 and bytes, interleaved, on a machine that is quiet.

    python benchmarks/backward.py

Rows are shapes of 1 x 1 convolutions and linear layers. The time of bytes includes the rounding of all operands. Run it
alone on a machine: beside other work the numbers mean nothing.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from tables import write

from fewer.quantize.backward import integer_products, pays

SHAPES = ((65536, 16, 16), (16384, 32, 32), (4096, 64, 64), (1024, 512, 512), (4096, 768, 768), (4096, 3072, 768))


def main() -> None:
    """Measure every shape, and write the table."""
    rows = []
    for count, outputs, inputs in SHAPES:
        signal, x, weight = torch.randn(count, outputs), torch.randn(count, inputs), torch.randn(outputs, inputs)
        half = [t.bfloat16() for t in (signal, x, weight)]
        runs = {
            "fp32": lambda s=signal, x=x, w=weight: (s @ w, s.T @ x),
            "bf16": lambda h=half: (h[0] @ h[2], h[0].T @ h[1]),
            "int8": lambda s=signal, x=x, w=weight: integer_products(s, x, w),
        }
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(30):
            for name, run in runs.items():
                began = perf_counter()
                run()
                times[name].append(perf_counter() - began)
        row = {"rows": count, "outputs": outputs, "inputs": inputs}
        row |= {f"{name}_ms": round(1e3 * float(np.median(t)), 4) for name, t in times.items()}
        ratio = np.array(times["fp32"]) / np.array(times["int8"])
        row |= {"int8_over_fp32": round(float(np.median(ratio)), 3)}
        row |= {"used": pays(count, outputs, inputs, torch.get_num_threads())}
        rows.append(row)
        print(row, flush=True)
        write(rows, Path(__file__).parent / "results" / "backward.csv")


if __name__ == "__main__":
    main()
