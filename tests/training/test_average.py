"""The running mean of the weights: what it weighs, and that it only visits the model."""

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.training.average import Average
from fewer.training.constrained import Constrained, Held


def test_the_mean_weighs_late_steps_and_forgets_the_beginning():
    net = nn.Linear(1, 1, bias=False)
    average = Average(Constrained(net, {}))
    weights, steps = torch.rand(40, dtype=torch.float64), range(1, 41)
    for step, value in zip(steps, weights.tolist(), strict=True):
        net.weight.data.fill_(value)
        average.follow(step)
    # what a step adds, and what all later ones leave of it
    shares = torch.tensor([1 - (1 - 1 / s) ** 7 for s in steps], dtype=torch.float64)
    kept = torch.tensor([float((1 - shares[s:]).prod()) for s in steps], dtype=torch.float64)
    assert float((shares * kept).sum()) == pytest.approx(1.0)
    assert float(average.values[0]) == pytest.approx(float((shares * kept * weights).sum()), rel=1e-5)
    assert float((shares * kept)[-10:].sum()) > 0.85


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_model_is_cut_and_rounded_inside_and_as_before_afterwards(precision):
    torch.manual_seed(0)
    net = nn.Linear(8, 8)
    mask = torch.rand(8, 8) > 0.5
    net.weight.data.mul_(mask)
    weights = Constrained(net, {"": Held(mask, precision)})
    weights.install()
    average = Average(weights)
    with torch.no_grad():
        for parameter in weights.parameters():
            parameter += 0.1
    weights.install()
    before = net.weight.detach().clone()
    with average.installed():
        inside = net.weight.detach().clone()
        assert not torch.equal(inside, before) and bool((inside[~mask] == 0).all())
        levels = 64 * inside / inside.abs().amax(1, keepdim=True)
        assert torch.allclose(levels, levels.round(), atol=1e-3) == (precision == "int8")
    assert torch.equal(net.weight, before)


@pytest.mark.parametrize("decay", [None, 0.0, 0.7])
def test_buffers_are_averaged_as_weights_are(decay: float | None):
    net = nn.BatchNorm1d(3)
    net.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    average = Average(net, decay)
    teacher = average.teacher()
    mean, bias = net.running_mean.double(), net.bias.detach().double()
    for step in range(1, 9):
        net.running_mean.normal_()
        net.num_batches_tracked += 1
        net.bias.data.normal_()
        average.follow(step)
        share = 1 - (1 - 1 / step) ** 7 if decay is None else 1 - min(decay, 1 - 1 / step)
        mean, bias = mean + share * (net.running_mean - mean), bias + share * (net.bias.detach() - bias)
    assert torch.allclose(teacher.running_mean.double(), mean, atol=1e-5)
    assert torch.allclose(teacher.bias.double(), bias, atol=1e-5)
    assert teacher.num_batches_tracked == 8 and teacher.mask.tolist() == [0.0, -torch.inf]
    before = net.running_mean.clone()
    with average.installed():
        assert torch.allclose(net.running_mean.double(), mean, atol=1e-5)
    assert torch.equal(net.running_mean, before)


def test_a_teacher_of_constrained_weights_is_cut_and_rounded():
    torch.manual_seed(0)
    net, mask = nn.Linear(8, 8), torch.rand(8, 8) > 0.5
    weights = Constrained(net, {"": Held(mask, "int4")})
    average = Average(weights, decay=0.5)
    teacher = average.teacher()
    with torch.no_grad():
        weights.parameters()[0].add_(1.0)
    average.follow(5)
    assert bool((teacher.weight[~mask] == 0).all()) and all(len(row.unique()) <= 16 for row in teacher.weight)


def test_a_decay_of_one_is_refused():
    with pytest.raises(FewerError, match="decay"):
        Average(nn.Linear(1, 1), 1.0)
