"""Means and variances of outputs after a cut: computed from outputs, they are those of the input's moments."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewer.compensate.balance import balanced
from fewer.compensate.moments import Moments, add_input
from fewer.compensate.sweep import Repair, Sweep
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.patterns import to_matrix


@pytest.mark.parametrize("layer", (nn.Linear(12, 5), nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(4, 6, 3, groups=2)))
@pytest.mark.parametrize("option", (Option("unstructured", 0.5), Option("unstructured", 0.5, "int8"), Option()))
@pytest.mark.parametrize("centred", (True, False))
def test_they_are_those_of_the_moments(layer, option, centred):
    torch.manual_seed(0)
    shape = (40, 12) if isinstance(layer, nn.Linear) else (6, 4, 8, 8)
    x = torch.randn(shape) + 0.5
    moments = Moments(getattr(layer, "groups", 1), layer.weight[0].numel())
    add_input(moments, layer, x)
    weight = to_matrix(layer.weight.detach())
    (expected,) = Sweep(weight, moments, Repair("bias", "magnitude"), centred=centred).run([option])
    (bare,) = Sweep(weight, moments, Repair("none", "magnitude"), centred=centred).run([option])
    found = balanced(bare, weight, layer, [x], centred=centred, name="layer")
    assert torch.equal(found.weight, expected.weight) and torch.equal(found.mask, expected.mask)
    torch.testing.assert_close(found.shift, expected.shift, rtol=1e-4, atol=1e-5)
    if expected.spread is not None:
        torch.testing.assert_close(found.spread, expected.spread, rtol=1e-3, atol=1e-4)


def test_an_input_that_is_no_number_is_named():
    weight = torch.ones(2, 3)
    (bare,) = Sweep(weight, Moments(1, 3), Repair("none", "magnitude")).run([Option()])
    with pytest.raises(FewerError, match="'fc' holds NaN"):
        balanced(bare, weight, nn.Linear(3, 2), [torch.full((1, 3), float("nan"))], centred=True, name="fc")
