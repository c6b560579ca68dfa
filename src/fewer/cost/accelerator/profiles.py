"""Named energy profiles: picojoules by technology, each with its source. Replace them by your own."""

from __future__ import annotations

from fewer.core.methods import Method, MethodTable
from fewer.cost.energy import HOROWITZ_45NM, EnergyTable

__all__ = ["PROFILES"]

PROFILES: MethodTable[EnergyTable] = MethodTable(
    "energy profile",
    [
        Method(
            "45nm-horowitz",
            HOROWITZ_45NM,
            "45 nm at 0.9 V, on-chip memory of 1 MB, DRAM of 20 pJ a bit",
            "Horowitz (ISSCC 2014); EIE (ISCA 2016)",
        ),
        Method(
            "45nm-small-sram",
            EnergyTable("45nm-small-sram", HOROWITZ_45NM.mac, onchip_byte=20 / 8, dram_byte=2600 / 8),
            "45 nm with on-chip memory of 32 kB and slow DRAM, as in small edge devices",
            "Horowitz (ISSCC 2014)",
        ),
        Method(
            "45nm-fast-dram",
            EnergyTable("45nm-fast-dram", HOROWITZ_45NM.mac, onchip_byte=100 / 8, dram_byte=1300 / 8),
            "45 nm with the cheapest DRAM of the same table",
            "Horowitz (ISSCC 2014)",
        ),
    ],
)
"""Every profile; ``run`` of a row is the table of numbers itself."""
