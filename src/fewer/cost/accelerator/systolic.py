"""A systolic array on paper: cycles and energy of a layer from closed forms, with pruned blocks skipped. Modelled."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fewer.core.errors import FewerError, near_match
from fewer.cost.energy import HOROWITZ_45NM, EnergyTable

__all__ = ["DATAFLOWS", "Array", "Product", "cycles", "energy", "utilisation"]

DATAFLOWS = ("weight", "input", "output")


@dataclass(frozen=True)
class Product:
    """A matrix product, ``m`` rows of activations (tokens or pixels) by a weight of ``n`` outputs and ``k`` inputs.

    Attributes
    ----------
    m, n, k
        Sizes.
    density
        Share of the weight's blocks that is left; 1 for products of two activations.
    block
        Outputs and inputs of a block. Only what covers whole folds of the array can be skipped in one piece; several
        blocks that lie in one fold must all be gone, unless they are packed (``Array.packs``).
    """

    m: int
    n: int
    k: int
    density: float = 1.0
    block: tuple[int, int] = (16, 16)


@dataclass(frozen=True)
class Array:
    """The hardware.

    Attributes
    ----------
    rows, columns
        Of processing elements.
    dataflow
        Which operand stays in the array: ``weight``, ``input`` or ``output``.
    packs
        Whether the blocks that are left are packed into full folds (an index for each block says which inputs feed
        it), as accelerators for block sparsity do; otherwise only folds that are empty altogether are skipped.
    bytes_per_cycle
        Of main memory; infinite for a bound by arithmetic alone.
    """

    rows: int = 32
    columns: int = 32
    dataflow: str = "weight"
    packs: bool = True
    bytes_per_cycle: float = math.inf

    def __post_init__(self) -> None:
        if self.dataflow not in DATAFLOWS:
            raise FewerError(f"unknown dataflow {self.dataflow!r}{near_match(self.dataflow, DATAFLOWS)}")
        if min(self.rows, self.columns) < 1:
            raise FewerError(f"an array of {self.rows} x {self.columns} elements is none")


def cycles(product: Product, array: Array, *, precision: str = "int8") -> int:
    """Cycles of one product, the slower of arithmetic and main memory.

    Filling, computing and draining one fold takes, on an array of R x C: ``2R + C + M - 2`` cycles for each of
    ``ceil(K/R) ceil(N/C)`` folds (weights stay), ``2R + C + N - 2`` for each of ``ceil(K/R) ceil(M/C)`` (inputs stay)
    or ``R + C + K - 2`` for each of ``ceil(M/R) ceil(N/C)`` (outputs stay). These are what the SCALE-Sim v3 simulator
    counts, plus one. Pruned blocks leave folds out (weight stationary) or shorten the stream (the others).

    Examples
    --------
    >>> [cycles(Product(1024, 16, 144), Array(dataflow=d)) for d in ("weight", "output", "input")]
    [5590, 6592, 17600]
    """
    r, c = array.rows, array.columns
    m, n, k, left = product.m, product.n, product.k, _left(product, array)
    if array.dataflow == "weight":
        folds = max(1, math.ceil(math.ceil(k / r) * math.ceil(n / c) * left)) if left else 0
        arithmetic = folds * (2 * r + c + m - 2)
    elif array.dataflow == "input":
        folds = math.ceil(k / r) * math.ceil(m / c)
        arithmetic = folds * (2 * r + c + math.ceil(n * left) - 2) if left else 0
    else:
        folds = math.ceil(m / r) * math.ceil(n / c)
        arithmetic = folds * (r + c + math.ceil(k * left) - 2) if left else 0
    size = HOROWITZ_45NM.bits[precision] / 8
    moved = size * (n * k * product.density + m * k + m * n)
    return max(arithmetic, math.ceil(moved / array.bytes_per_cycle))


def _left(product: Product, array: Array) -> float:
    """Share of folds (or of the stream) that pruning leaves."""
    if array.packs or product.density >= 1:
        return product.density
    height, width = product.block
    inside = max(1, math.ceil(array.columns / height)) * max(1, math.ceil(array.rows / width))
    return 1 - (1 - product.density) ** inside


def utilisation(product: Product, array: Array) -> float:
    """Useful multiply-accumulates over those that the array could do in the time.

    Examples
    --------
    >>> round(utilisation(Product(1024, 16, 144), Array()), 4)
    0.4122
    """
    useful = product.m * product.n * product.k * product.density
    return useful / (array.rows * array.columns * cycles(product, array))


def energy(product: Product, array: Array, *, precision: str = "int8", table: EnergyTable = HOROWITZ_45NM) -> float:
    """Modelled joules: operations, weights and activations once from main memory, operands through on-chip memory.

    The operand that stays is read once for each fold, the others once for each fold that they stream through.

    Examples
    --------
    >>> dense, half = (energy(Product(197, 768, 768, d), Array()) for d in (1.0, 0.5))
    >>> 0.45 < half / dense < 0.75
    True
    """
    size = table.bits[precision] / 8
    m, n, k, left = product.m, product.n, product.k, _left(product, array)
    weights, inputs, outputs = n * k * left * size, m * k * size, m * n * size
    folds_n, folds_k, folds_m = math.ceil(n / array.columns), math.ceil(k / array.rows), math.ceil(m / array.columns)
    if array.dataflow == "weight":
        onchip = weights + inputs * folds_n * left + 2 * outputs * folds_k * left
    elif array.dataflow == "input":
        onchip = inputs + weights * folds_m + 2 * outputs * folds_k
    else:
        onchip = outputs + inputs * folds_n * left + weights * math.ceil(m / array.rows)
    operations = m * n * k * left
    dram = n * k * product.density * size + inputs + outputs
    return 1e-12 * (operations * table.mac[precision] + onchip * table.onchip_byte + dram * table.dram_byte)
