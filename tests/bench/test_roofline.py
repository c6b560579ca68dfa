"""Peaks of matrix products, measured."""

from __future__ import annotations

import time

import torch

from fewer.bench import roofline


def test_a_product_without_a_fast_form_ends_the_search(monkeypatch):
    seen = []

    def multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append(len(a))
        time.sleep(0.002 * len(a) / 16)
        return a @ b

    monkeypatch.setattr(roofline, "SLOW_S", 0.003)
    rate = roofline._peak(multiply, lambda n: torch.zeros(n, n), (16, 32, 64, 128))
    assert set(seen) == {16, 32}
    assert 0 < rate <= 2 * 32**3 / 0.004


def test_peaks_and_bandwidth_are_told():
    told = roofline.measure(quick=True)
    assert told["peaks"]["fp32"] > 1e8 and told["bandwidth"] > 1e8
