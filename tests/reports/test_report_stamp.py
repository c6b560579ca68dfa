"""The environment stamp."""

from __future__ import annotations

import platform

import numpy as np

from fewer.core.stamp import cpu_name, instruction_sets
from fewer.reports import environment
from fewer.reports.compression.data import RunReport


def test_the_stamp_is_true_and_fits_into_a_report():
    stamp = environment(threads=2)
    assert stamp["python"] == platform.python_version()
    assert stamp["numpy"] == np.__version__
    assert stamp["threads"] == 2
    assert stamp["cores"] >= 1
    assert stamp["cpu"] and (stamp["isa"] is None or stamp["isa"] == stamp["isa"].strip() != "")
    assert stamp["memory_bytes"] is None or stamp["memory_bytes"] > 2**28
    report = RunReport.from_dict({"verdict": {"met": True}, "model": {"name": "m"}, "environment": stamp})
    assert report.environment == stamp


def test_a_processor_is_told_from_another_one_of_the_same_name():
    """Cloud machines call Zen 3 and Zen 4 alike, and one of them has twice the other's vectors."""
    zen3, zen4 = (
        {"model name": "AMD EPYC", "cpu family": "25", "model": model, "flags": flags}
        for model, flags in (("1", "fma avx2 vaes"), ("17", "fma avx2 avx512f avx512_vnni"))
    )
    assert cpu_name(zen3) == "AMD EPYC (family 25 model 1)" != cpu_name(zen4)
    assert instruction_sets(zen3) == ["avx2"] and instruction_sets(zen4) == ["avx2", "avx512f", "avx512_vnni"]
    assert cpu_name({"model name": "Cortex"}) == "Cortex" and instruction_sets({"Features": "asimd"}) == ["asimd"]


def test_threads_follow_the_environment_variable(monkeypatch):
    monkeypatch.setattr(
        "sys.modules", {name: module for name, module in __import__("sys").modules.items() if name != "torch"}
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment()["threads"] == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "banana")
    assert environment()["threads"] == environment()["cores"]
