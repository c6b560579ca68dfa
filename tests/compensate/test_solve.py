"""Refit against dense least squares of every row."""

import pytest
import torch

from fewer.compensate.solve import damp, refit


def problem(groups: int, rows: int, d: int, seed: int) -> tuple[torch.Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(groups, 4 * d, d, generator=g) @ torch.randn(groups, d, d, generator=g)
    hessian = damp(x.transpose(1, 2) @ x / (4 * d), 0.01)
    weight = torch.randn(groups, rows, d, generator=g)
    mask = torch.rand(groups, rows, d, generator=g) < 0.5
    return hessian, weight, mask


@pytest.mark.parametrize(("groups", "rows", "d"), [(1, 5, 8), (3, 4, 6), (6, 1, 9), (1, 7, 1)])
def test_refit_is_least_squares_on_every_row(groups, rows, d):
    hessian, weight, mask = problem(groups, rows, d, seed=d)
    mask[0, 0] = False  # a row that keeps nothing
    mask[-1, -1] = True  # and one that keeps everything
    target = weight @ hessian
    found = refit(weight * mask, mask, hessian, target, iterations=500, tolerance=1e-7)
    wanted = torch.zeros_like(weight)
    for g in range(groups):
        for r in range(rows):
            s = mask[g, r].nonzero().flatten()
            if len(s):
                wanted[g, r, s] = torch.linalg.solve(hessian[g][s][:, s].double(), target[g, r, s].double()).float()
    torch.testing.assert_close(found, wanted, rtol=2e-3, atol=2e-3)
    assert bool((found[~mask] == 0).all())


def test_every_iteration_lowers_the_objective():
    hessian, weight, mask = problem(2, 5, 10, seed=1)
    target = weight @ hessian

    def objective(w: torch.Tensor) -> torch.Tensor:
        return ((w @ hessian) * w).sum(-1) - 2 * (w * target).sum(-1)

    before = objective(weight * mask)
    for steps in (1, 2, 4, 8):
        after = objective(refit(weight * mask, mask, hessian, target, iterations=steps))
        assert bool((after <= before + 1e-4 * before.abs()).all())
        before = after


def test_the_optimum_stays_where_it_is():
    hessian, weight, mask = problem(2, 3, 6, seed=2)
    everything = torch.ones_like(mask)
    assert torch.equal(refit(weight, everything, hessian, weight @ hessian), weight)


def test_damping_makes_a_dead_input_solvable():
    damped = damp(torch.zeros(2, 3, 3), 0.01)
    assert torch.equal(damped, torch.eye(3).expand(2, 3, 3))
    assert torch.linalg.cholesky_ex(damp(torch.ones(1, 3, 3), 0.01)).info.item() == 0
