"""The environment stamp."""

from __future__ import annotations

import platform

import numpy as np

from fewer.report import environment
from fewer.report.data import RunReport


def test_the_stamp_is_true_and_fits_into_a_report():
    stamp = environment(threads=2)
    assert stamp["python"] == platform.python_version()
    assert stamp["numpy"] == np.__version__
    assert stamp["threads"] == 2
    assert stamp["cores"] >= 1
    assert stamp["memory_bytes"] is None or stamp["memory_bytes"] > 2**28
    report = RunReport.from_dict({"verdict": {"met": True}, "model": {"name": "m"}, "environment": stamp})
    assert report.environment == stamp


def test_threads_follow_the_environment_variable(monkeypatch):
    monkeypatch.setattr(
        "sys.modules", {name: module for name, module in __import__("sys").modules.items() if name != "torch"}
    )
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert environment()["threads"] == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "banana")
    assert environment()["threads"] == environment()["cores"]
