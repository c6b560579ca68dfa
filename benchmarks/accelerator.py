"""LPViT's dedicated-hardware figure on paper: DeiT-B on a systolic array that skips pruned blocks. All modelled.

    python benchmarks/accelerator.py [--networks]

The paper (ECCV 2024) says "up to 3.93x on dedicated hardware" for DeiT-B without naming the sparsity, the array or its
dataflow in the parts that are public. This prints what the closed forms of ``fewer.cost.accelerator`` give at the
shares of GFLOPs that its tables list (50, 45 and 29 %), and which density would be needed for 3.93x.
Writes benchmarks/results/accelerator.csv.

With --networks: DINOv2 ViT-S and MobileNetV2 at 224 px on every machine that comes with the library, all layers with
one option each: int8, int4, and half of the weights gone in blocks, 2:4 or one by one. Writes accelerator_networks.csv.
Products of two activations, softmax, GELU and norms are not in these numbers.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import torch

from fewer.core.option import Option
from fewer.cost.accelerator.machine import load_machine, machine_names, option_work
from fewer.cost.accelerator.systolic import DATAFLOWS, Array, Product, cycles, energy
from fewer.models.matching import match
from fewer.models.spec import load_model

RESULTS = Path(__file__).parent / "results" / "accelerator.csv"
PAPER = 3.93
TOKENS, WIDTH, HIDDEN, HEADS, BLOCKS = 197, 768, 3072, 12, 12


def deit_b(density: float, block: tuple[int, int]) -> list[tuple[Product, int]]:
    """Every product of DeiT-B at 224 px, with how often it occurs; attention's own products stay dense."""
    head = WIDTH // HEADS

    def layer(tokens: int, n: int, k: int) -> Product:
        return Product(tokens, n, k, density, block)

    return [
        (layer(TOKENS - 1, WIDTH, 3 * 16 * 16), 1),
        (layer(TOKENS, 3 * WIDTH, WIDTH), BLOCKS),
        (Product(TOKENS, TOKENS, head), BLOCKS * HEADS),
        (Product(TOKENS, head, TOKENS), BLOCKS * HEADS),
        (layer(TOKENS, WIDTH, WIDTH), BLOCKS),
        (layer(TOKENS, HIDDEN, WIDTH), BLOCKS),
        (layer(TOKENS, WIDTH, HIDDEN), BLOCKS),
        (Product(1, 1000, WIDTH), 1),
    ]


def totals(density: float, array: Array, block: tuple[int, int]) -> tuple[int, float]:
    """Cycles and joules of one image."""
    products = deit_b(density, block)
    return sum(cycles(p, array) * n for p, n in products), sum(energy(p, array) * n for p, n in products)


def density_for(speedup: float, array: Array, block: tuple[int, int]) -> float | None:
    """The largest density that reaches a speed-up, or None when even empty layers do not."""
    dense = totals(1.0, array, block)[0]
    if dense / totals(0.0, array, block)[0] < speedup:
        return None
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if dense / totals(middle, array, block)[0] >= speedup else (low, middle)
    return low


OPTIONS = {
    "int8": Option("dense", precision="int8"),
    "int4": Option("dense", precision="int4"),
    "int8, half in blocks of 16x16": Option("block:16x16", 0.5, "int8"),
    "int8, 2:4": Option("nm:2:4", 0.5, "int8"),
    "int8, half one by one": Option("unstructured", 0.5, "int8"),
}


def network_rows(name: str) -> list[dict[str, object]]:
    """All matched layers of a network with one option, on every machine."""
    loaded = load_model(f"fewer/{name}")
    example = torch.zeros(1, *loaded.preprocess.input_size)
    units = match(loaded.model, example).units
    rows: list[dict[str, object]] = []
    for machine in map(load_machine, machine_names()):
        base: tuple[float, float] | None = None
        for label, option in OPTIONS.items():
            works = [option_work(unit, [option], machine)[0] for unit in units]
            cycles_, joules = sum(w.cycles for w in works), sum(w.joules for w in works)
            base = base or (cycles_, joules)
            memory = sum(w.cycles for w in works if w.bound == "memory") / cycles_
            rows.append(
                {
                    "what": "modelled",
                    "network": name,
                    "machine": machine.name,
                    "option": label,
                    "layers": len(works),
                    "cycles": round(cycles_),
                    "ms": round(1e3 * cycles_ / machine.clock, 3),
                    "millijoules": round(1e3 * joules, 4),
                    "cycles_ratio": round(cycles_ / base[0], 3),
                    "energy_ratio": round(joules / base[1], 3),
                    "share_bound_by_memory": round(memory, 3),
                }
            )
    return rows


def write_networks() -> None:
    rows = [row for name in ("dinov2-small", "mobilenet-v2") for row in network_rows(name)]
    with (RESULTS.parent / "accelerator_networks.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*row.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", action="store_true")
    if parser.parse_args().networks:
        write_networks()
        return
    rows = []
    for size in (16, 32):
        for dataflow in DATAFLOWS:
            for packs in (True, False):
                for block in ((32, 32), (32, 64)):
                    array = Array(size, size, dataflow, packs)
                    dense = totals(1.0, array, block)
                    needed = density_for(PAPER, array, block)
                    for density in (0.5, 0.45, 0.29, 0.2):
                        found = totals(density, array, block)
                        rows.append(
                            {
                                "what": "modelled",
                                "array": f"{size}x{size}",
                                "dataflow": f"{dataflow} stationary",
                                "blocks_packed": packs,
                                "block": f"{block[0]}x{block[1]}",
                                "density": density,
                                "dense_cycles": dense[0],
                                "cycles": found[0],
                                "speedup": round(dense[0] / found[0], 3),
                                "energy_ratio": round(dense[1] / found[1], 3),
                                "paper_speedup_up_to": PAPER,
                                "density_for_paper": "" if needed is None else round(needed, 3),
                            }
                        )
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        if row["block"] == "32x32" and row["array"] == "32x32":
            print({k: row[k] for k in ("dataflow", "blocks_packed", "density", "speedup", "density_for_paper")})


if __name__ == "__main__":
    main()
