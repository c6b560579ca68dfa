"""Every rounding of gradients: few values, the mean is the gradient unless the row says else, nothing explodes."""

from __future__ import annotations

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.formats.gradients import BIASED, GRADIENTS, _uniform


def signal(seed: int = 0) -> torch.Tensor:
    """Heavy tails, as gradients have."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(4, 40, generator=draw) * torch.randn(4, 40, generator=draw).exp()


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("name", GRADIENTS)
def test_the_mean_is_the_gradient_unless_the_row_says_else(name: str, bits: int) -> None:
    torch.manual_seed(0)
    g, count = signal(), 600
    state = torch.full((1,), 0.3) if name == "lbt" else torch.ones(1)
    drawn = torch.stack([GRADIENTS[name].run(g, bits, state.clone()) for _ in range(count)])
    bias = (drawn.mean(0) - g).norm() / g.norm()
    # what would be left of the noise in a mean of so many draws, if there were no bias
    noise = (drawn.std(0) / count**0.5).norm() / g.norm()
    if name == "unbiased-scale":
        assert bias < 2 * noise + 0.01  # see its docstring: a small bias stays
    elif name in BIASED:
        assert bias > 2 * noise or bits == 8
    else:
        assert bias < 1.3 * noise + 1e-6


@pytest.mark.parametrize("name", GRADIENTS)
def test_more_bits_make_less_error(name: str) -> None:
    torch.manual_seed(0)
    g = signal()
    errors = [
        torch.stack([(GRADIENTS[name].run(g, bits, torch.ones(1)) - g).square().mean() for _ in range(30)]).mean()
        for bits in (2, 4, 8)
    ]
    # the finest power of two is no nearer to a large value than a coarse one
    assert errors[0] > errors[1] and (errors[1] > errors[2] or name == "luq")


@pytest.mark.parametrize("name", GRADIENTS)
def test_zeros_shapes_and_bits(name: str) -> None:
    run = GRADIENTS[name].run
    for shape in ((3,), (2, 5), (2, 3, 4, 4)):
        assert torch.equal(run(torch.zeros(shape), 4, torch.ones(1)), torch.zeros(shape))
        assert run(torch.randn(shape), 4, torch.ones(1)).shape == shape
    with pytest.raises(FewerError, match="gradients of 9 bits"):
        run(torch.ones(2, 2), 9, torch.ones(1))


@pytest.mark.parametrize("name", ["nearest", "stochastic", "stochastic-sample", "stochastic-block", "luq", "lbt"])
def test_values_of_a_group_are_few(name: str) -> None:
    torch.manual_seed(0)
    got = GRADIENTS[name].run(torch.randn(1, 32), 3, torch.ones(1))
    assert len(got.unique()) <= 2**3 - 1


def test_outliers_cost_a_scale_per_tensor_more() -> None:
    torch.manual_seed(0)
    g = signal()
    g[0, 0] = 50 * g.abs().max()

    def error(name: str) -> float:
        draws = [GRADIENTS[name].run(g, 4, torch.ones(1)) for _ in range(50)]
        return float(torch.stack([(d - g)[1:].square().mean() for d in draws]).mean())

    assert error("stochastic-sample") < 0.1 * error("stochastic")
    assert error("stochastic-block") < error("stochastic-sample")


def test_the_clip_of_lbt_moves_to_its_share() -> None:
    torch.manual_seed(0)
    g = torch.randn(200, 200)  # 2.7 of these may be clipped
    for clip, after in ((0.99, 0.989), (0.5, 0.501)):
        state = torch.full((1,), clip)
        GRADIENTS["lbt"].run(g, 4, state)
        assert float(state) == pytest.approx(after)


def test_random_numbers_of_rounding_are_even_from_0_to_below_1() -> None:
    torch.manual_seed(0)
    draws = _uniform(torch.empty(3, 50_001))
    assert draws.shape == (3, 50_001) and float(draws.min()) >= 0 and float(draws.max()) < 1
    shares = torch.histc(draws, 16, 0, 1) / draws.numel()
    assert float((shares * 16 - 1).abs().max()) < 0.05 and abs(float(draws.mean()) - 0.5) < 0.003
    neighbours = draws.flatten()[: 2 * 75_000].reshape(-1, 2)  # two numbers come from one draw of 64 bits
    assert abs(float(torch.corrcoef(neighbours.T)[0, 1])) < 0.02
    torch.manual_seed(0)
    assert torch.equal(draws, _uniform(torch.empty(3, 50_001)))


def test_the_clip_of_lbt_starts_where_its_share_is_clipped() -> None:
    g, state = torch.randn(4, 50_000, generator=torch.Generator().manual_seed(0)).pow(3), torch.ones(1)
    GRADIENTS["lbt"].run(g, 4, state)
    share = float((g.abs() > float(state) * g.abs().max()).float().mean())
    assert float(state) < 0.9 and share == pytest.approx(1e-3 / 15, rel=0.6)
