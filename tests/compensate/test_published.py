"""SparseGPT and Wanda: held against the plain definition of each, on matrices that can be checked by hand."""

from __future__ import annotations

import pytest
import torch

from fewer.compensate.moments import Moments
from fewer.compensate.published import PUBLISHED, sparsegpt, wanda
from fewer.compensate.solve import damp
from fewer.patterns import Pattern

FREE = Pattern("unstructured")


@pytest.fixture(name="case")
def _case() -> tuple[torch.Tensor, torch.Tensor]:
    make = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 6, generator=make) @ torch.randn(6, 6, generator=make)
    return torch.randn(4, 6, generator=make), inputs


def _hessian(inputs: torch.Tensor) -> torch.Tensor:
    return damp((inputs.T @ inputs / len(inputs))[None], 0.01)[0]


def test_the_update_is_that_of_optimal_brain_surgeon(case) -> None:
    """One column goes: the columns on its right take ``-w H^-1_jk / H^-1_jj`` over what is left of the matrix."""
    weight, inputs = case
    weight[:, 2] = 1e-6  # so that this column goes, in every row
    hessian = _hessian(inputs)
    pruned = sparsegpt(weight, hessian, FREE, 1 / 6)
    rest = torch.linalg.inv(hessian[2:, 2:])
    wanted = weight.clone()
    wanted[:, 2:] -= weight[:, 2:3] * (rest[0] / rest[0, 0])
    assert torch.equal(pruned[:, 2], torch.zeros(4))
    torch.testing.assert_close(pruned, wanted * (pruned != 0), atol=1e-5, rtol=1e-4)


def test_it_keeps_more_of_the_output_than_wanda(case) -> None:
    weight, inputs = case
    dense = inputs @ weight.T
    power = inputs.square().mean(0)
    errors = [
        (inputs @ pruned.T - dense).square().sum() / dense.square().sum()
        for pruned in (sparsegpt(weight, _hessian(inputs), FREE, 0.5), wanda(weight, power, FREE, 0.5))
    ]
    assert errors[0] < errors[1]


def test_wanda_compares_within_a_row(case) -> None:
    weight, inputs = case
    power = inputs.square().mean(0)
    pruned = wanda(weight, power, FREE, 0.5)
    assert ((pruned != 0).sum(1) == 3).all()
    score = weight.abs() * power.sqrt()
    for row, kept in zip(score, pruned != 0, strict=True):
        assert row[kept].min() >= row[~kept].max()
    assert torch.equal(pruned[pruned != 0], weight[pruned != 0])  # nothing is updated


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("pattern", ["unstructured", "nm:2:4", "block:2x2"])
def test_groups_are_pruned_on_inputs_of_their_own(name: str, pattern: str) -> None:
    make = torch.Generator().manual_seed(1)
    weight = torch.randn(2, 4, 8, generator=make)
    moments = Moments(2, 8)
    moments.add(torch.randn(64, 2, 8, generator=make) * torch.tensor([1.0, 1.5])[:, None])
    both = PUBLISHED[name].run(weight, moments, Pattern.parse(pattern), 0.5)
    for group in range(2):
        alone = Moments(1, 8, moments.count)
        alone.total, alone.products = moments.total[group : group + 1], [moments.products[0][group : group + 1]]
        torch.testing.assert_close(
            both[group], PUBLISHED[name].run(weight[group : group + 1], alone, Pattern.parse(pattern), 0.5)[0]
        )
    assert float((both == 0).float().mean()) == pytest.approx(0.5)
