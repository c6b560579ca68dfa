"""Machines against what the simulator SCALE-Sim v3 prints, and against the laws that they are made of."""

from __future__ import annotations

import pytest

from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.cost.accelerator.machine import Machine, load_machine, machine_names, option_work, unit_products, work_of
from fewer.cost.accelerator.profiles import PROFILES
from fewer.cost.accelerator.systolic import Array, Product, cycles, utilisation

INT8 = Option("dense", precision="int8")
SIMULATED = {  # what SCALE-Sim v3 prints on 32 x 32, which is one less than the closed form
    ("weight", (1024, 16, 144)): 5589,
    ("output", (1024, 16, 144)): 6591,
    ("input", (1024, 16, 144)): 17599,
    ("weight", (256, 32, 288)): 3149,
    ("output", (256, 32, 288)): 2799,
    ("input", (256, 32, 288)): 9071,
}


@pytest.mark.parametrize(("dataflow", "sizes"), SIMULATED)
def test_dataflows_agree_with_the_simulator(dataflow: str, sizes: tuple[int, int, int]) -> None:
    product = Product(*sizes)
    assert cycles(product, Array(dataflow=dataflow)) - 1 == SIMULATED[dataflow, sizes]
    assert work_of(product, Machine("m", dataflow=dataflow), INT8).compute - 1 == SIMULATED[dataflow, sizes]


def test_utilisation_agrees_with_the_simulator() -> None:
    assert round(100 * utilisation(Product(1024, 16, 144), Array()), 2) == 41.22
    assert round(100 * utilisation(Product(256, 32, 288), Array()), 2) in (73.14, 73.17)


LARGE = Product(197, 768, 768)


def compute(option: Option, **machine) -> float:
    return (
        work_of(LARGE, Machine("m", **machine), option).compute / work_of(LARGE, Machine("m", **machine), INT8).compute
    )


def test_bits_help_as_the_machine_can_use_them() -> None:
    int4 = Option("dense", precision="int4")
    assert compute(int4, precision="parallel") == 1
    assert work_of(LARGE, Machine("m", precision="fusion"), int4, activation_bits=8).compute == pytest.approx(
        work_of(LARGE, Machine("m"), INT8).compute / 2
    )
    both = work_of(LARGE, Machine("m", precision="serial-both"), int4, activation_bits=4).compute
    assert both == pytest.approx(work_of(LARGE, Machine("m"), INT8).compute / 4)
    assert work_of(LARGE, Machine("m"), int4).joules < work_of(LARGE, Machine("m"), INT8).joules


def test_zeros_help_only_where_they_are_skipped() -> None:
    block, nm, any_ = (
        Option("block:16x4", 0.5, "int8"),
        Option("nm:2:4", precision="int8"),
        Option("unstructured", 0.5, "int8"),
    )
    assert [compute(o) for o in (block, nm, any_)] == [1, 1, 1]
    assert compute(block, sparsity="blocks") == pytest.approx(0.5, abs=0.01) and compute(nm, sparsity="blocks") == 1
    assert compute(nm, sparsity="n:m") == pytest.approx(0.5, abs=0.01) and compute(any_, sparsity="n:m") == 1
    # zeros one by one leave some multipliers without work
    assert compute(any_, sparsity="weights", balance=0.7) == pytest.approx(0.5 / 0.7, abs=0.01)
    sparse = work_of(LARGE, Machine("m", sparsity="two-sided"), any_, density=0.5).compute
    assert sparse == pytest.approx(work_of(LARGE, Machine("m"), INT8).compute * 0.25 / 0.7, rel=0.02)


def test_a_mask_pays_off_only_below_its_own_density() -> None:
    """One bit for each weight of b bits: bytes fall below dense where the density is under 1 - 1/b."""
    for bits, name in ((8, "int8"), (4, "int4")):
        dense = work_of(LARGE, Machine("m"), Option("dense", precision=name)).dram_bytes
        just = 1 - (1 - 1 / bits)
        less = work_of(LARGE, Machine("m"), Option("unstructured", just + 0.02, name)).dram_bytes
        more = work_of(LARGE, Machine("m"), Option("unstructured", just - 0.02, name)).dram_bytes
        assert less < dense < more


def test_small_memories_bound_by_bytes() -> None:
    slow = Machine("m", dram_bytes_per_second=1e6)
    work = work_of(LARGE, slow, INT8)
    assert work.bound == "memory" and work.cycles == work.memory > work.compute
    assert work_of(LARGE, Machine("m", sram_bytes=1e3), INT8).dram_bytes > work_of(LARGE, Machine("m"), INT8).dram_bytes


@pytest.mark.parametrize("name", machine_names())
def test_every_machine_loads_and_says_where_it_is_from(name: str) -> None:
    machine = load_machine(name)
    assert machine.source and machine.note and machine.profile in PROFILES
    unit = Unit("a", "linear", (768, 768), positions=197)
    dense, half = option_work(unit, [INT8, Option("block:16x16", 0.5, "int8")], machine)
    assert half.cycles <= dense.cycles and half.joules < dense.joules
    assert unit_products(unit) == Product(197, 768, 768)


def test_wrong_machines_are_told(tmp_path) -> None:
    with pytest.raises(FewerError, match="did you mean 'edge-npu'"):
        load_machine("edge_npu")
    (tmp_path / "mine.toml").write_text("row = 3\n")
    with pytest.raises(FewerError, match="unknown key 'row'; did you mean 'rows'"):
        load_machine(tmp_path / "mine.toml")
    with pytest.raises(FewerError, match="unknown way to skip zeros"):
        Machine("m", sparsity="blocs")
    (tmp_path / "ours.toml").write_text("rows = 8\ncolumns = 4\nsource = 'mine'\n")
    assert load_machine(tmp_path / "ours.toml").rows == 8


def test_channels_of_a_depthwise_convolution_do_not_share_the_array() -> None:
    machine = load_machine("datacentre")
    depthwise = Unit("d", "conv2d", (96, 1, 3, 3), groups=96, positions=784)
    one = Unit("o", "conv2d", (1, 1, 3, 3), positions=784)
    whole, single = (option_work(unit, [Option("dense", precision="int8")], machine)[0] for unit in (depthwise, one))
    assert whole.compute == 96 * single.compute and whole.dram_bytes == 96 * single.dram_bytes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('rows = "32"', "rows is a whole number, not '32'"),
        ("rows = 32.5", "rows is a whole number, not 32.5"),
        ("vector_lanes = true", "vector_lanes is a whole number, not True"),
        ("clock = nan", "clock is a finite number, not nan"),
        ("sram_bytes = nan", "sram_bytes is a number, not nan"),
        ("dataflow = 3", "dataflow is text, not 3"),
        ('sparsity = ["blocks"]', "sparsity is text"),
        ("balance = 1.5", "balance is a share"),
        ('profile = "7nm"', "energy profile"),
        ("rows = 0", "is none"),
        ("colums = 3", "did you mean 'columns'"),
        ("name = 3", "name is text, not 3"),
    ],
)
def test_a_machine_of_ones_own_with_a_mistake_is_told(tmp_path, line: str, words: str) -> None:
    (tmp_path / "mine.toml").write_text(line)
    with pytest.raises(FewerError, match=words):
        load_machine(tmp_path / "mine.toml")


def test_a_memory_without_bounds_leaves_arithmetic_alone(tmp_path) -> None:
    (tmp_path / "mine.toml").write_text("dram_bytes_per_second = inf\nsram_bytes = inf\nclock = 700_000_000")
    work = work_of(LARGE, load_machine(tmp_path / "mine.toml"), INT8)
    assert work.memory == 0 and work.bound == "compute" and work.cycles == work.compute


def test_a_machine_may_say_its_name_and_a_file_that_is_no_text_is_told(tmp_path) -> None:
    (tmp_path / "mine.toml").write_text('name = "my array"\nrows = 8')
    assert load_machine(tmp_path / "mine.toml").name == "my array"
    (tmp_path / "mine.toml").write_bytes(b"rows = 8\n\xff")
    with pytest.raises(FewerError, match=r"mine\.toml"):
        load_machine(tmp_path / "mine.toml")


@pytest.mark.parametrize("dataflow", ["weight", "input", "output"])
@pytest.mark.parametrize("sizes", [(5, 3, 7), (1, 1, 1), (9, 8, 4), (17, 6, 13)])
def test_cycles_are_those_of_an_array_that_is_run_clock_by_clock(dataflow: str, sizes: tuple[int, int, int]) -> None:
    from fewer.cost.accelerator.systolic import Array, Product, cycles

    m, n, k = sizes
    rows, columns = 4, 3
    down, across, stream = {"weight": (k, n, m), "input": (k, m, n), "output": (m, n, k)}[dataflow]
    clock = 0
    for _ in range(0, down, rows):
        for _ in range(0, across, columns):
            # what stays is loaded row by row; then a number reaches the element (r, c) r + c clocks after the first one
            clock += rows if dataflow != "output" else 0
            clock += 1 + max(s + r + c for s in range(stream) for r in range(rows) for c in range(columns))
    assert cycles(Product(m, n, k), Array(rows, columns, dataflow)) == clock
