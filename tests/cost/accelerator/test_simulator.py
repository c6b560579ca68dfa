"""Closed forms against the simulator SCALE-Sim itself, in an environment of its own: FEWER_SCALESIM is its Python.

Its packages do not go together with ours, so that it is run as another program:
``python -m venv sim && sim/bin/pip install scalesim "numpy<2.3" && FEWER_SCALESIM=sim/bin/python pytest THIS_FILE``.
"""

from __future__ import annotations

import csv
import os
import subprocess
from pathlib import Path

import pytest

from fewer.core.option import Option
from fewer.cost.accelerator.machine import Machine, work_of
from fewer.cost.accelerator.systolic import Array, Product, cycles

PYTHON = os.environ.get("FEWER_SCALESIM")
LAYERS = [(49, 100, 70), (64, 40, 50), (7, 5, 3), (33, 65, 31)]
CONFIG = """[general]
run_name = check

[architecture_presets]
ArrayHeight: {rows}
ArrayWidth: {columns}
IfmapSramSzkB: 1024
FilterSramSzkB: 1024
OfmapSramSzkB: 1024
IfmapOffset: 0
FilterOffset: 10000000
OfmapOffset: 20000000
Dataflow: {dataflow}
Bandwidth: 100
ReadRequestBuffer: 64
WriteRequestBuffer: 64

[layout]
IfmapCustomLayout: False
IfmapSRAMBankBandwidth: 10
IfmapSRAMBankNum: 10
IfmapSRAMBankPort: 2
FilterCustomLayout: False
FilterSRAMBankBandwidth: 10
FilterSRAMBankNum: 10
FilterSRAMBankPort: 2

[sparsity]
SparsitySupport: false
SparseRep: ellpack_block
OptimizedMapping: false
BlockSize: 8
RandomNumberGeneratorSeed: 40

[run_presets]
InterfaceBandwidth: CALC
UseRamulatorTrace: False
"""


def simulated(folder: Path, rows: int, columns: int, dataflow: str) -> list[int]:
    """Cycles of each layer."""
    assert PYTHON is not None
    (folder / "machine.cfg").write_text(CONFIG.format(rows=rows, columns=columns, dataflow=dataflow[0] + "s"))
    lines = [f"l{i}, {m}, {n}, {k}, 1:1," for i, (m, n, k) in enumerate(LAYERS)]
    (folder / "layers.csv").write_text("\n".join(["Layer, M, N, K, Sparsity,", *lines]) + "\n")
    rows_of = [f"l{i}, " + ", ".join(["1"] * 20) + "," for i in range(len(LAYERS))]
    (folder / "layout.csv").write_text("\n".join(["Layer,", *rows_of]) + "\n")
    words = ["-c", "machine.cfg", "-t", "layers.csv", "-l", "layout.csv", "-p", "out", "-i", "gemm"]
    done = subprocess.run(
        [PYTHON, "-m", "scalesim.scale", *words], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    found = next((folder / "out").rglob("COMPUTE_REPORT.csv"), None)
    assert found is not None, done.stderr[-2000:]
    with found.open() as file:
        table = list(csv.reader(file))
    at = next(i for i, name in enumerate(table[0]) if name.strip() == "Total Cycles")
    return [round(float(row[at])) for row in table[1:] if len(row) > at]


@pytest.mark.skipif(PYTHON is None, reason="FEWER_SCALESIM names no Python with SCALE-Sim")
@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (12, 14), (16, 8)])
@pytest.mark.parametrize("dataflow", ["weight", "input", "output"])
def test_cycles_are_those_of_the_simulator(tmp_path: Path, rows: int, columns: int, dataflow: str) -> None:
    array, machine = Array(rows, columns, dataflow), Machine("m", rows=rows, columns=columns, dataflow=dataflow)
    printed = simulated(tmp_path, rows, columns, dataflow)
    assert [cycles(Product(*sizes), array) - 1 for sizes in LAYERS] == printed
    whole = Option("dense", precision="int8")
    assert [work_of(Product(*sizes), machine, whole).compute - 1 for sizes in LAYERS] == printed
