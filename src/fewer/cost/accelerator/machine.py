"""Whole machines: an array, how it uses few bits and zeros, its memories, and units for what is no product."""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from fewer.core.errors import FewerError, near_match
from fewer.core.option import Option
from fewer.core.reading import read_text
from fewer.core.toml import load_toml
from fewer.core.unit import Unit
from fewer.cost.accelerator.profiles import PROFILES
from fewer.cost.accelerator.systolic import Array, Product, cycles

__all__ = ["Machine", "Work", "load_machine", "machine_names", "option_work", "unit_products", "work_of"]

PRECISIONS = ("parallel", "serial", "serial-both", "fusion")
_WHOLE = ("rows", "columns", "bits", "vector_lanes")
_MEMORY = ("sram_bytes", "dram_bytes_per_second")
SPARSITIES = ("none", "blocks", "n:m", "weights", "two-sided")


@dataclass(frozen=True)
class Machine:
    """An accelerator on paper.

    Attributes
    ----------
    name, note, source
        What it is like, and where its numbers come from.
    rows, columns, dataflow
        As in :class:`~fewer.cost.accelerator.systolic.Array`.
    clock
        Hz.
    bits
        Of one multiplier's operands.
    precision
        How fewer bits help: ``parallel`` (cycles stay, energy falls), ``serial`` (cycles in proportion to the bits of
        activations, as Stripes), ``serial-both`` (of both operands, as Loom), ``fusion`` (bricks of 2 bits join, as Bit
        Fusion: cycles in proportion to the product of both, rounded up to powers of two).
    sparsity
        Which zeros are skipped: ``none``, ``blocks`` (folds without weights), ``n:m``, ``weights`` (any, with an index)
        or ``two-sided`` (weights and activations).
    balance
        Share of multipliers that find work when zeros are skipped one by one, 0.5 to 0.8 in published machines.
    sram_bytes
        On-chip memory. What does not fit is read again from DRAM.
    dram_bytes_per_second
        Main memory.
    vector_lanes
        Numbers for which softmax, GELU and norms do one operation in a cycle.
    profile
        A name of :data:`~fewer.cost.accelerator.profiles.PROFILES`.
    """

    name: str
    note: str = ""
    source: str = ""
    rows: int = 32
    columns: int = 32
    dataflow: str = "weight"
    clock: float = 1e9
    bits: int = 8
    precision: str = "parallel"
    sparsity: str = "none"
    balance: float = 0.7
    sram_bytes: float = 1e6
    dram_bytes_per_second: float = 25.6e9
    vector_lanes: int = 32
    profile: str = "45nm-horowitz"

    def __post_init__(self) -> None:
        self._check_kinds()
        for value, known, what in (
            (self.precision, PRECISIONS, "way to use few bits"),
            (self.sparsity, SPARSITIES, "way to skip zeros"),
        ):
            if value not in known:
                raise FewerError(f"machine {self.name!r}: unknown {what} {value!r}{near_match(value, known)}")
        _ = PROFILES[self.profile], self.array
        if min(self.clock, self.bits, self.sram_bytes, self.dram_bytes_per_second, self.vector_lanes) <= 0:
            raise FewerError(f"machine {self.name!r}: clock, bits, memories and lanes are positive")
        if not 0 < self.balance <= 1:
            raise FewerError(f"machine {self.name!r}: the balance is a share above 0, not {self.balance}")

    def _check_kinds(self) -> None:
        """Refuse words where numbers belong, parts of elements, and numbers that are none."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "name" or isinstance(field.default, str):
                right, what = isinstance(value, str), "text"
            elif field.default is MISSING:
                continue
            elif field.name in _WHOLE:
                right, what = isinstance(value, int) and not isinstance(value, bool), "a whole number"
            else:
                number = isinstance(value, (int, float)) and not isinstance(value, bool)
                # a memory without bounds leaves arithmetic alone
                right = number and (math.isfinite(value) or (field.name in _MEMORY and value == math.inf))
                what = "a number" if field.name in _MEMORY else "a finite number"
            if not right:
                raise FewerError(f"machine {self.name!r}: {field.name} is {what}, not {value!r}")

    @property
    def mac_picojoules(self) -> float:
        """Modelled energy of one product of bytes and its addition."""
        return PROFILES[self.profile].run.mac["int8"]

    @property
    def array(self) -> Array:
        """The array, without memory bounds (they are added here, in bytes that depend on the precision)."""
        return Array(self.rows, self.columns, self.dataflow, packs=True)


@dataclass(frozen=True)
class Work:
    """Modelled cycles and joules of a layer on a machine, and what bounds it.

    Attributes
    ----------
    cycles
        The larger of ``compute`` and ``memory``.
    """

    compute: float
    memory: float
    joules: float
    dram_bytes: float

    @property
    def cycles(self) -> float:
        """Of the roofline."""
        return max(self.compute, self.memory)

    @property
    def bound(self) -> str:
        """``compute`` or ``memory``."""
        return "memory" if self.memory > self.compute else "compute"


def bit_share(machine: Machine, weight_bits: int, activation_bits: int) -> float:
    """Cycles in proportion to those at the machine's own bits.

    Examples
    --------
    >>> fusion = Machine("f", precision="fusion")
    >>> bit_share(fusion, 4, 8), bit_share(fusion, 3, 3), bit_share(Machine("s", precision="serial"), 4, 4)
    (0.5, 0.25, 0.5)
    """
    if machine.precision == "serial":
        return activation_bits / machine.bits
    if machine.precision == "serial-both":
        return weight_bits * activation_bits / machine.bits**2
    if machine.precision == "fusion":
        up = [max(2, 1 << (b - 1).bit_length()) for b in (weight_bits, activation_bits)]
        return up[0] * up[1] / machine.bits**2
    # wider operands take several passes
    return math.ceil(weight_bits / machine.bits) * math.ceil(activation_bits / machine.bits)


def index_bits(option: Option) -> float:
    """Bits of index for each weight of the dense layer.

    A mask has one bit for each weight; n of m take the logarithm of the number of choices; blocks one bit each.

    Examples
    --------
    >>> index_bits(Option("nm:2:4")), index_bits(Option("unstructured", 0.5)), index_bits(Option("block:16x4", 0.5))
    (0.75, 1.0, 0.015625)
    """
    kind, *sizes = option.pattern.replace("x", ":").split(":")
    if kind == "nm":
        n, m = int(sizes[0]), int(sizes[1])
        return math.ceil(math.log2(math.comb(m, n))) / m
    if kind == "block" and option.sparsity:
        return 1 / (int(sizes[0]) * int(sizes[1]))
    return 1.0 if kind == "unstructured" and option.sparsity else 0.0


def work_of(
    product: Product, machine: Machine, option: Option | None = None, *, activation_bits: int = 8, density: float = 1.0
) -> Work:
    """Cycles and joules of one matrix product under an option. All modelled.

    Parameters
    ----------
    product
        Sizes of the dense product.
    machine
        The accelerator.
    option
        Pattern, sparsity and bits of the weights; None for products of two activations.
    activation_bits
        Of activations.
    density
        Share of activations that are not zero; counts on a ``two-sided`` machine.

    Examples
    --------
    >>> dense = work_of(Product(1024, 16, 144), Machine("plain"), Option("dense", precision="int8"))
    >>> dense.compute
    5590.0
    >>> half = work_of(Product(197, 768, 768), Machine("n:m", sparsity="n:m"), Option("nm:2:4", precision="int8"))
    >>> 0.49 < half.compute / work_of(Product(197, 768, 768), Machine("n:m"), Option("dense", 0, "int8")).compute < 0.51
    True
    """
    option = option or Option("dense", precision=f"int{activation_bits}" if activation_bits in (4, 8) else "fp32")
    m, n, k = product.m, product.n, product.k
    kind, kept = option.pattern.partition(":")[0], 1 - option.sparsity
    one_by_one = machine.sparsity in ("weights", "two-sided")
    skips = one_by_one or (machine.sparsity == "blocks" and kind in ("block", "columns", "rows"))
    skips = skips or (machine.sparsity == "n:m" and kind == "nm") or kind in ("columns", "rows")
    share = kept if skips else 1.0
    if machine.sparsity == "two-sided":
        share *= density
    if one_by_one and share < 1:
        share = min(1.0, share / machine.balance)
    # folds (or the stream) in proportion to what is left
    compute = cycles(Product(m, n, k, share, product.block), machine.array) * bit_share(
        machine, option.bits, activation_bits
    )
    weight_bytes = n * k * (kept * option.bits + index_bits(option)) / 8 if option.sparsity else n * k * option.bits / 8
    inputs, outputs = m * k * activation_bits / 8, m * n * activation_bits / 8
    # an operand that does not fit on the chip streams again for every part of the other one
    again = max(1.0, math.ceil(min(weight_bytes, inputs) / machine.sram_bytes))
    dram = min(weight_bytes, inputs) + max(weight_bytes, inputs) * again + outputs
    folds_n, folds_k = math.ceil(n / machine.columns), math.ceil(k / machine.rows)
    onchip = {
        "weight": weight_bytes + inputs * folds_n * share + 2 * outputs * folds_k * share,
        "input": inputs + weight_bytes * math.ceil(m / machine.columns) + 2 * outputs * folds_k,
        "output": outputs + inputs * folds_n * share + weight_bytes * math.ceil(m / machine.rows),
    }[machine.dataflow]
    table = PROFILES[machine.profile].run
    mac = table.mac["int8"] * option.bits * activation_bits / 64 if option.bits <= 8 else table.mac[option.precision]
    picojoules = m * n * k * share * mac + onchip * table.onchip_byte + dram * table.dram_byte
    memory = dram / machine.dram_bytes_per_second * machine.clock
    return Work(float(compute), float(memory), 1e-12 * picojoules, float(dram))


def nonlinear_cycles(numbers: float, operations: float, machine: Machine) -> float:
    """Cycles of a softmax, activation or norm: operations of each number over the lanes of the vector unit.

    Examples
    --------
    >>> nonlinear_cycles(3200, 5, Machine("m", vector_lanes=32))
    500.0
    """
    return numbers * operations / machine.vector_lanes


def unit_products(unit: Unit, batch: int = 1) -> Product:
    """The matrix product of a layer, or of each group of a grouped one: positions by outputs by inputs of one output.

    Examples
    --------
    >>> unit_products(Unit("c", "conv2d", (16, 16, 3, 3), positions=1024))
    Product(m=1024, n=16, k=144, density=1.0, block=(16, 16))
    """
    return Product(max(1, round(unit.positions * batch)), max(1, unit.rows // unit.groups), unit.cols)


def option_work(unit: Unit, options: Sequence[Option], machine: Machine, *, batch: int = 1) -> list[Work]:
    """Modelled work of every option of a layer, for curves: ``cycles`` and ``energy`` of a machine.

    Groups of a convolution read different channels, so that one goes through the array after the other.

    Examples
    --------
    >>> one, eight = (Unit("c", "conv2d", (64, 8, 3, 3), groups=g, positions=100) for g in (1, 8))
    >>> few = option_work(one, [Option()], Machine("m"))[0].compute
    >>> option_work(eight, [Option()], Machine("m"))[0].compute > 3 * few
    True
    """
    product, found = unit_products(unit, batch), []
    for option in options:
        work = work_of(
            product, machine, option, activation_bits=min(8, option.bits) if option.bits <= 8 else option.bits
        )
        parts = (g * unit.groups for g in (work.compute, work.memory, work.joules, work.dram_bytes))
        found.append(Work(*parts))
    return found


_FOLDER = "fewer.cost.accelerator"


@lru_cache(maxsize=1)
def machine_names() -> dict[str, str]:
    """Machines that come with the library and what they are like."""
    found = {}
    for entry in sorted(importlib.resources.files(_FOLDER).joinpath("machines").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".toml"):
            found[entry.name.removesuffix(".toml")] = str(
                load_toml(entry.read_text("utf-8"), entry.name).get("note", "")
            )
    return found


def load_machine(name: str | Path) -> Machine:
    """A machine by name, or from a TOML file of one's own.

    Raises
    ------
    FewerError
        For an unknown name or key, with the nearest one.

    Examples
    --------
    >>> load_machine("eyeriss-like").rows, load_machine("eyeriss-like").columns
    (12, 14)
    """
    if str(name) in machine_names():
        text = importlib.resources.files(_FOLDER).joinpath("machines").joinpath(f"{name}.toml").read_text("utf-8")
        key = str(name)
    else:
        path = Path(name)
        if path.suffix != ".toml" or not path.is_file():
            raise FewerError(f"unknown accelerator {str(name)!r}{near_match(str(name), machine_names())}")
        text, key = read_text(path, 2**20, "machine"), path.stem
    values: dict[str, Any] = load_toml(text, f"the machine {name}")
    key = values.pop("name", key)  # a file may say how it wants to be called
    known = {f.name for f in fields(Machine)} - {"name"}
    for wrong in sorted(set(values) - known):
        raise FewerError(f"the machine {name} has the unknown key {wrong!r}{near_match(wrong, known)}")
    try:
        return Machine(name=key, **values)
    except TypeError as error:
        raise FewerError(f"the machine {name} has a value of the wrong kind ({error})") from None
