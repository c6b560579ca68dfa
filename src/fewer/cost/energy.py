"""Modelled energy: joules of an option from its operations and the bytes that it moves. Never called measured."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.cost.profile import stored_share
from fewer.models.storage import mask_bytes, scale_bytes, value_bytes

__all__ = ["HOROWITZ_45NM", "EnergyTable", "fixed_joules", "option_joules"]

_PICO = 1e-12


@dataclass(frozen=True)
class EnergyTable:
    """Picojoules of a technology, by name; replace it by your own.

    Attributes
    ----------
    name
        Printed beside every number.
    mac
        One multiplication and addition, by precision.
    onchip_byte
        A byte read from or written to a large on-chip memory.
    dram_byte
        A byte read from main memory.

    Examples
    --------
    >>> HOROWITZ_45NM.mac["int8"] < HOROWITZ_45NM.mac["fp32"] / 10
    True
    """

    name: str
    mac: Mapping[str, float]
    onchip_byte: float
    dram_byte: float
    bits: Mapping[str, int] = field(default_factory=lambda: {"fp32": 32, "fp16": 16, "bf16": 16, "int8": 8, "int4": 8})


HOROWITZ_45NM = EnergyTable(
    "45nm-horowitz",
    # multiplication + addition: fp32 3.7 + 0.9; fp16 1.1 + 0.9 (sums in fp32); int8 0.2 + 0.1 (sums in int32)
    {"fp32": 4.6, "fp16": 2.0, "bf16": 2.0, "int8": 0.3, "int4": 0.3},
    onchip_byte=100 / 8,  # 64 bits of a 1 MB SRAM
    dram_byte=640 / 4,  # 32 bits
)
"""45 nm at 0.9 V: M. Horowitz, "Computing's energy problem", ISSCC 2014 (operations, SRAM); S. Han et al., EIE, ISCA
2016 (640 pJ for 32 bits of DRAM). Processors of today take less; ratios between precisions are what it is good for."""


def option_joules(
    unit: Unit, options: Sequence[Option], *, batch: int = 1, table: EnergyTable = HOROWITZ_45NM
) -> list[float]:
    """Modelled joules of each option of a unit, for one forward pass of a batch.

    Stored weights come from main memory once for each pass; inputs and outputs of the layer move through on-chip
    memory once; each stored weight is multiplied once for each position. Zeros inside of stored blocks cost as much
    as other weights, so an unstructured mask saves bytes but no operations.

    Parameters
    ----------
    unit
        The layer.
    options
        What to price.
    batch
        Images at once.
    table
        Constants.

    Examples
    --------
    >>> unit = Unit("a", "linear", (256, 256), positions=64)
    >>> dense, int8, sparse = option_joules(unit, [Option(), Option("dense", 0, "int8"), Option("block:16x4", 0.5)])
    >>> int8 < dense / 4, 0.4 < sparse / dense < 0.7
    (True, True)
    """
    positions = unit.positions * batch
    found = []
    for option in options:
        p = option.precision if option.precision in table.mac else "fp32"
        share, kept = 1.0, unit.numel * (1 - option.sparsity)
        if option.pattern.startswith("block:"):
            share = stored_share(unit.shape, option.pattern, option.sparsity, p)
            kept = unit.numel * share
        elif option.pattern.startswith("nm:"):
            share = 1 - option.sparsity  # hardware that knows n:m skips the zeros
        weights = value_bytes(math.ceil(kept), option.precision) + scale_bytes(unit.shape, option.precision)
        weights += mask_bytes(unit.shape, option.pattern) if option.sparsity else 0
        moved = positions * (unit.cols * unit.groups + unit.rows) * table.bits[p] / 8
        operations = unit.macs * batch * share
        found.append(_PICO * (operations * table.mac[p] + weights * table.dram_byte + moved * table.onchip_byte))
    return found


def fixed_joules(macs: float, parameters: float, *, batch: int = 1, table: EnergyTable = HOROWITZ_45NM) -> float:
    """Modelled joules of what no unit covers: attention's products and other parameters, in fp32.

    Examples
    --------
    >>> round(fixed_joules(1e9, 0) * 1e3, 3)
    4.6
    """
    return _PICO * (macs * batch * table.mac["fp32"] + 4 * parameters * table.dram_byte)
