"""Inverting the second moments of inputs that rounding has spoiled."""

from __future__ import annotations

import pytest
import torch

from fewer.compensate.sweep import _inverse
from fewer.core.errors import FewerError


def test_a_well_conditioned_hessian_is_inverted() -> None:
    matrix = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    hessian = matrix @ matrix.mT + torch.eye(5)
    assert torch.allclose(_inverse(hessian) @ hessian, torch.eye(5).expand(3, 5, 5), atol=1e-4)


def test_a_nearly_dead_input_does_not_stop_the_others() -> None:
    """The covariance of an input that hardly varies is all rounding: slightly indefinite, even after damping."""
    good = torch.eye(4) * 2.0
    dead = torch.diag(torch.tensor([2e-8, 1e-8, 1e-8, -1e-9]))
    inverse = _inverse(torch.stack([good, dead]))
    assert torch.isfinite(inverse).all()
    assert torch.allclose(inverse[0], torch.eye(4) / 2)
    assert (torch.linalg.eigvalsh(inverse[1].double()) > 0).all()


def test_inputs_that_are_no_numbers_are_told() -> None:
    with pytest.raises(FewerError, match="NaN"):
        _inverse(torch.full((1, 3, 3), float("nan")))


def test_a_group_that_cannot_be_factored_spoils_no_other():
    """Its factor may hold a zero on the diagonal, which some versions of torch refuse to invert."""
    good = torch.eye(2) * 4
    found = _inverse(torch.stack([good, torch.zeros(2, 2), -torch.eye(2)]))
    assert torch.equal(found[0], torch.eye(2) / 4)


@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-38, 1e-32, 1e-20])
def test_inputs_that_are_next_to_nothing_have_a_finite_inverse(size):
    from fewer.compensate.solve import damp

    assert bool(torch.isfinite(_inverse(damp(torch.full((2, 3, 3), size), 0.01))).all())
