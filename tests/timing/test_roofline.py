"""Peaks of matrix products, measured."""

from __future__ import annotations

import torch

from fewer.timing import roofline


def test_a_product_without_a_fast_form_ends_the_search(monkeypatch):
    seen = []

    def rate(_multiply: object, a: torch.Tensor, _b: torch.Tensor, work: float) -> float:
        seen.append(len(a))
        return work / {16: 0.1, 32: 0.4}[len(a)]  # seconds

    monkeypatch.setattr(roofline, "_rate", rate)
    peak = roofline._peak(torch.mm, lambda n: torch.zeros(n, n), (16, 32, 64, 128))
    assert seen == [16, 32]  # 0.4 s is slow: the larger ones are left out
    assert peak == 2 * 32**3 / 0.4


def test_peaks_and_bandwidth_are_told():
    told = roofline.measure(quick=True)
    assert told["peaks"]["fp32"] > 1e8 and told["bandwidth"] > 1e8
