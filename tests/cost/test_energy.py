"""Modelled energy adds up and falls where it must; meters count joules and say None where there is no sensor."""

from __future__ import annotations

import itertools

import pytest

from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.cost.energy import HOROWITZ_45NM, EnergyTable, option_joules
from fewer.cost.meters import RaplMeter, find_meter, measure_energy

UNIT = Unit("fc", "linear", (64, 32), positions=10)


def test_the_dense_layer_is_its_operations_and_bytes_by_hand():
    table = EnergyTable("toy", {"fp32": 2.0, "int8": 1.0}, onchip_byte=3.0, dram_byte=5.0)
    dense, int8 = option_joules(UNIT, [Option(), Option("dense", 0, "int8")], table=table)
    macs, moved = 64 * 32 * 10, 10 * (64 + 32)
    assert dense == pytest.approx(1e-12 * (2 * macs + 5 * 4 * 64 * 32 + 3 * 4 * moved))
    scales = 64 * 4 + 96
    assert int8 == pytest.approx(1e-12 * (macs + 5 * (64 * 32 + scales) + 3 * moved))
    # a batch reads the weights once
    twice = option_joules(UNIT, [Option()], batch=2, table=table)[0]
    assert twice == pytest.approx(2 * dense - 1e-12 * 5 * 4 * 64 * 32)


def test_energy_falls_with_sparsity_and_precision():
    for precision in ("fp32", "bf16", "int8"):
        row = option_joules(UNIT, [Option("block:16x4", s, precision) for s in (0.25, 0.5, 0.75)])
        assert row == sorted(row, reverse=True)
    by_precision = option_joules(UNIT, [Option("block:16x4", 0.5, p) for p in ("fp32", "bf16", "int8")])
    assert by_precision == sorted(by_precision, reverse=True)
    unstructured, block = option_joules(UNIT, [Option("unstructured", 0.5), Option("block:16x4", 0.5)])
    assert block < unstructured < option_joules(UNIT, [Option()])[0]
    assert HOROWITZ_45NM.name == "45nm-horowitz"


@pytest.fixture
def counters(tmp_path):
    """Two packages and a sub-domain, as Linux shows them."""
    for name, value in (("intel-rapl:0", 900.0), ("intel-rapl:1", 50.0), ("intel-rapl:0:0", 1.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value:.0f}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000\n")
    return tmp_path


def test_rapl_counts_packages_and_survives_the_wrap(counters):
    meter = RaplMeter(counters)
    (counters / "intel-rapl:0" / "energy_uj").write_text("100\n")  # 900 -> 1000 -> 100
    (counters / "intel-rapl:1" / "energy_uj").write_text("80\n")
    (counters / "intel-rapl:0:0" / "energy_uj").write_text("500\n")
    assert meter.read() == pytest.approx((200 + 30) / 1e6)
    assert meter.read() == pytest.approx((200 + 30) / 1e6)
    assert isinstance(find_meter("cpu", counters), RaplMeter)


def test_without_a_sensor_there_is_no_number(tmp_path):
    assert find_meter("cpu", tmp_path) is None
    (tmp_path / "intel-rapl:0").mkdir()
    assert find_meter("cpu", tmp_path) is None


def test_idle_power_is_taken_off():
    class Machine:
        name, now, joules = "made up", 0.0, 0.0

        def spend(self, seconds, watts):
            self.now += seconds
            self.joules += seconds * watts

        def read(self):
            return self.joules

    machine = Machine()
    seconds = itertools.cycle([0.1])
    found = measure_energy(
        lambda: machine.spend(next(seconds), 30.0),
        machine,
        seconds=1.0,
        clock=lambda: machine.now,
        sleep=lambda s: machine.spend(s, 10.0),
    )
    assert found.idle_watts == pytest.approx(10.0)
    assert found.net == pytest.approx(2.0) and found.gross == pytest.approx(3.0)
    assert found.spread == pytest.approx(0.0, abs=1e-9)
