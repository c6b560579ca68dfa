"""Losses and weights against loops and closed forms."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from fewer.adaptation.le_uda import self_information
from fewer.adaptation.learn import consistency, ramp
from fewer.adaptation.translate.losses import patch_nce
from fewer.training.average import Average


def test_patch_nce_equals_the_loop() -> None:
    torch.manual_seed(0)
    queries = [F.normalize(torch.randn(2, 5, 3), dim=-1) for _ in range(2)]
    keys = [F.normalize(torch.randn(2, 5, 3), dim=-1) for _ in range(2)]
    tau, losses = 0.07, []
    for q, k in zip(queries, keys, strict=True):
        one = []
        for b in range(2):
            for s in range(5):
                scores = [math.exp(float(q[b, s] @ k[b, j]) / tau) for j in range(5)]
                one.append(-math.log(scores[s] / sum(scores)))
        losses.append(sum(one) / len(one))
    assert math.isclose(float(patch_nce(queries, keys)), sum(losses) / 2, rel_tol=1e-5)


def test_the_teacher_is_the_analytic_moving_average_and_averages_buffers() -> None:
    net = nn.BatchNorm1d(1)
    average = Average(net, decay=0.5)
    teacher = average.teacher()
    want = net.weight.item()
    for step in range(1, 6):
        net.weight.data.fill_(float(step))
        net.running_mean.fill_(10.0 * step)
        average.follow(step)
        alpha = min(1 - 1 / step, 0.5)
        want = alpha * want + (1 - alpha) * step
        assert math.isclose(float(teacher.weight), want, rel_tol=1e-6)
    assert math.isclose(float(teacher.running_mean), 10 * want, rel_tol=1e-5)


def test_the_weight_of_the_consistency_ramps_as_stated() -> None:
    assert all(math.isclose(ramp(p), math.exp(-5 * (1 - p) ** 2)) for p in (0.0, 0.25, 0.5, 1.0))
    assert ramp(2.0) == 1.0


def test_consistency_equals_the_loop() -> None:
    torch.manual_seed(0)
    a, b = [torch.randn(2, 3, 4, 4), torch.randn(2, 3, 2, 2)], [torch.randn(2, 3, 4, 4), torch.randn(2, 3, 2, 2)]
    want = sum(w * float(((x.softmax(1) - y.softmax(1)) ** 2).mean()) for w, x, y in zip((0.7, 0.3), a, b, strict=True))
    assert math.isclose(float(consistency(a, b, (0.7, 0.3))), want, rel_tol=1e-5)


def test_self_information_of_a_sure_pixel_is_zero() -> None:
    sure = torch.tensor([[[100.0], [-100.0]]])
    assert float(self_information(sure).abs().max()) < 1e-5
