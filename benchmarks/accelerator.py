"""LPViT's dedicated-hardware figure on paper: DeiT-B on a systolic array that skips pruned blocks. All modelled.

    python benchmarks/accelerator.py [--networks | --planned]

The paper (ECCV 2024) says "up to 3.93x on dedicated hardware" for DeiT-B without naming the sparsity, the array or its
dataflow in the parts that are public. This prints what the closed forms of ``fewer.cost.accelerator`` give at the
shares of GFLOPs that its tables list (50, 45 and 29 %), and which density would be needed for 3.93x.
Writes benchmarks/results/accelerator.csv.

With --networks: DINOv2 ViT-S and MobileNetV2 at 224 px on every machine that comes with the library, all layers with
one option each: int8, int4, and half of the weights gone in blocks, 2:4 or one by one. Writes accelerator_networks.csv.
Products of two activations, softmax, GELU and norms are not in these numbers.

With --planned: DeiT-B with the sparsity of each layer that the preset ``lpvit`` plans. No weights of DeiT-B come with
any package, so that curves are sensed on DINOv2 ViT-S (real weights, real photos), which has the same twelve blocks at
half of the width: its plans in blocks of 16 x 16 are carried over to the layers of DeiT-B in blocks of 32 x 32, of
which a layer has as many. Writes accelerator_planned.csv.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.cost.accelerator.machine import load_machine, machine_names, option_work
from fewer.cost.accelerator.systolic import DATAFLOWS, Array, Product, cycles, energy
from fewer.models.matching import match
from fewer.models.spec import load_model

RESULTS = Path(__file__).parent / "results" / "accelerator.csv"
PAPER = 3.93
TOKENS, WIDTH, HIDDEN, HEADS, BLOCKS = 197, 768, 3072, 12, 12


def deit_b(density: float | Mapping[str, float], block: tuple[int, int]) -> list[tuple[Product, int]]:
    """Every product of DeiT-B at 224 px, with how often it occurs; attention's own products stay dense.

    ``density`` is one share of weights for all layers, or one for each by its name.
    """
    head = WIDTH // HEADS

    def layer(name: str, tokens: int, n: int, k: int) -> tuple[Product, int]:
        share = density.get(name, 1.0) if isinstance(density, Mapping) else density
        return Product(tokens, n, k, share, block), 1

    found = [layer("patch_embed.proj", TOKENS - 1, WIDTH, 3 * 16 * 16), (layer_of_classes(density, block), 1)]
    for i in range(BLOCKS):
        found.append(layer(f"blocks.{i}.attn.qkv", TOKENS, 3 * WIDTH, WIDTH))
        found.append((Product(TOKENS, TOKENS, head), HEADS))
        found.append((Product(TOKENS, head, TOKENS), HEADS))
        found.append(layer(f"blocks.{i}.attn.proj", TOKENS, WIDTH, WIDTH))
        found.append(layer(f"blocks.{i}.mlp.fc1", TOKENS, HIDDEN, WIDTH))
        found.append(layer(f"blocks.{i}.mlp.fc2", TOKENS, WIDTH, HIDDEN))
    return found


def layer_of_classes(density: float | Mapping[str, float], block: tuple[int, int]) -> Product:
    """The classifier, which DINOv2 does not have: dense in its plans."""
    return Product(1, 1000, WIDTH, 1.0 if isinstance(density, Mapping) else density, block)


def totals(density: float | Mapping[str, float], array: Array, block: tuple[int, int]) -> tuple[int, float]:
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


def write(name: str, rows: list[dict[str, object]]) -> None:
    with (RESULTS.parent / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print(*row.values())


PLANNED = (0.5, 0.45, 0.29, 0.25)
"""Shares of DeiT-B's FLOPs: the smallest of the paper's tables is 0.29."""


def plans(calibration: int = 8) -> Callable[[float, float], dict[str, float]]:
    """Densities by layer for a share of the FLOPs and a weight of the power term, of the preset ``lpvit``."""
    from fewer.core.allocation.allocate import allocate
    from fewer.core.allocation.power import with_power
    from fewer.core.budget import Budget
    from fewer.data.photos import real_photos
    from fewer.engine.prepare import prepare
    from fewer.engine.sense import resolved, sense_curves
    from fewer.engine.settings import Settings
    from fewer.engine.work import Work

    settings = Settings.from_preset("lpvit", seed=0, backend="serial", workers=1, calibration=calibration, heldout=8)
    prepared = prepare("fewer/dinov2-small", [photo.path for photo in real_photos()], settings)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Path(folder) / "ledger.jsonl"
        curves = sense_curves(Work(prepared, resolved(prepared, settings)), ledger_path=ledger, store=None).curves

    def plan(share: float, power: float) -> dict[str, float]:
        told = with_power(curves, "flops", power) if power else curves
        choice = allocate(told, [Budget("flops", share, True)]).choice
        return {c.unit.name: 1 - c.options[int(k)].sparsity for c, k in zip(curves.curves, choice, strict=True)}

    return plan


def flops_share(density: Mapping[str, float]) -> float:
    """Of DeiT-B: its attention takes another part of all products than that of DINOv2 does."""
    left, dense = (
        sum(p.m * p.n * p.k * p.density * n for p, n in deit_b(d, (32, 32))) for d in (density, dict[str, float]())
    )
    return left / dense


def plan_for(plan: Callable[[float, float], dict[str, float]], share: float, power: float) -> dict[str, float]:
    """The plan that leaves a share of DeiT-B's FLOPs, or the nearest below."""
    low, high = 0.9 * share, min(1.0, 1.4 * share)
    for _ in range(5):
        middle = (low + high) / 2
        try:
            fits = flops_share(plan(middle, power)) <= share
        except FewerError:  # less than any plan can reach
            fits = True
        low, high = (middle, high) if fits else (low, middle)
    return plan(low, power)


def write_planned() -> None:
    plan, rows = plans(), []
    for share in PLANNED:
        density = plan_for(plan, share, 1.0)
        kinds = ("qkv", "attn.proj", "fc1", "fc2")
        means = {k: [d for name, d in density.items() if name.endswith(k)] for k in kinds}
        for size, dataflow in itertools.product((16, 32), DATAFLOWS):
            array = Array(size, size, dataflow, True)
            dense, found = totals({}, array, (32, 32)), totals(density, array, (32, 32))
            rows.append(
                {
                    "what": "modelled",
                    "array": f"{size}x{size}",
                    "dataflow": f"{dataflow} stationary",
                    "flops_share": round(flops_share(density), 3),
                    "power": 1.0,
                    **{f"density_{k}": round(sum(v) / len(v), 3) for k, v in means.items()},
                    "dense_cycles": dense[0],
                    "cycles": found[0],
                    "speedup": round(dense[0] / found[0], 3),
                    "energy_ratio": round(dense[1] / found[1], 3),
                    "paper_speedup_up_to": PAPER,
                }
            )
    write("accelerator_planned.csv", rows)


def write_networks() -> None:
    rows = [row for name in ("dinov2-small", "mobilenet-v2") for row in network_rows(name)]
    write("accelerator_networks.csv", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", action="store_true")
    parser.add_argument("--planned", action="store_true")
    args = parser.parse_args()
    if args.networks or args.planned:
        write_planned() if args.planned else write_networks()
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
