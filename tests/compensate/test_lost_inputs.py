"""A layer that loses inputs to another layer's choice makes up for what the others tell about them."""

from __future__ import annotations

import torch

from fewer.compensate.lost_inputs import _ridge, without_inputs


def test_ridge_is_the_closed_form_of_the_strength_with_the_least_leave_one_out_error() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, 30, generator=generator).double()  # fewer samples than inputs
    y = x @ torch.randn(30, 2, generator=generator).double() * 0.3 + 0.5 * torch.randn(12, 2, generator=generator)
    x, y = x - x.mean(0), y - y.mean(0)
    scale = float(torch.linalg.eigvalsh(x @ x.T).mean())

    def fitted(rows: list[int], strength: float) -> tuple[torch.Tensor, torch.Tensor]:
        at, centre = x[rows], x[rows].mean(0)
        wanted = y[rows] - y[rows].mean(0)
        square = (at - centre).T @ (at - centre) + strength * scale * torch.eye(30).double()
        delta = torch.linalg.solve(square, (at - centre).T @ wanted).T
        return delta, y[rows].mean(0) - delta @ centre

    def left_out(strength: float) -> float:
        total = 0.0
        for i in range(12):
            delta, shift = fitted([j for j in range(12) if j != i], strength)
            total += float((y[i] - x[i] @ delta.T - shift).square().sum())
        return total

    strengths = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
    best = min(strengths, key=left_out)
    found = _ridge(x, y)
    assert found is not None
    torch.testing.assert_close(found, fitted(list(range(12)), best)[0])


def test_what_nothing_tells_is_made_up_for_by_its_mean() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 6, generator=generator) + 2
    alive = torch.tensor([True] * 3 + [False] * 3)
    weight = torch.randn(4, 6, generator=generator)
    new, shift = without_inputs(weight, x, alive)
    assert bool((new[:, ~alive] == 0).all())
    before, after = x @ weight.T, x @ new.T + shift
    torch.testing.assert_close(after.mean(0), before.mean(0), rtol=1e-4, atol=1e-4)
    plain = x @ (weight * alive).T
    assert float((after - before).square().mean()) < 0.2 * float((plain - before).square().mean())


def test_a_layer_without_a_bias_makes_up_for_the_mean_by_what_stays() -> None:
    generator = torch.Generator().manual_seed(2)
    x = 0.2 * torch.randn(40, 8, generator=generator) + 2
    alive = torch.tensor([True] * 6 + [False] * 2)
    weight = torch.rand(4, 8, generator=generator)
    new, shift = without_inputs(weight, x, alive, biased=False)
    assert bool((shift == 0).all()) and bool((new[:, ~alive] == 0).all())
    before, plain = x @ weight.T, x @ (weight * alive).T
    assert float((x @ new.T - before).square().mean()) < 0.02 * float((plain - before).square().mean())


def test_few_samples_and_silent_inputs_are_no_trouble() -> None:
    weight, alive = torch.ones(2, 3), torch.tensor([True, False, True])
    new, shift = without_inputs(weight, torch.tensor([[1.0, 2.0, 3.0]]), alive)
    assert new.tolist() == [[1, 0, 1]] * 2 and shift.tolist() == [2, 2]
    new, shift = without_inputs(weight, torch.zeros(9, 3), alive)
    assert new.tolist() == [[1, 0, 1]] * 2 and shift.tolist() == [0, 0]
