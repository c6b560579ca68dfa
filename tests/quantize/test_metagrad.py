"""The hypernetwork's gradient against a graph over two iterations, its bound, and a resume."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.quantize.metagrad import HYPERNETWORKS, MetaGrad, base_rounding, bounded, hypernetwork_of


def loss(w: Tensor, step: int) -> Tensor:
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
    return (x @ w.T - x[:, :2]).square().mean()


def run(meta: MetaGrad, w: nn.Parameter, steps: range) -> None:
    for step in steps:
        w.grad = torch.autograd.grad(loss(w, step), w)[0]
        meta.step()


def make(form: str, rate: float = 1e-2) -> tuple[MetaGrad, nn.Parameter]:
    w = nn.Parameter(torch.randn(2, 3, generator=torch.Generator().manual_seed(9)))
    return MetaGrad(torch.optim.SGD([w], 0.1, momentum=0.9), [w], form, rate=rate), w


@pytest.mark.parametrize("form", HYPERNETWORKS)
def test_the_gradient_is_that_of_a_graph_over_two_iterations(form: str) -> None:
    w = torch.randn(2, 3, generator=torch.Generator().manual_seed(9))
    parameter = nn.Parameter(w.clone())
    meta = MetaGrad(torch.optim.SGD([parameter], 0.1), [parameter], form, rate=0.0)
    for value in meta.network.parameters():  # away from zeros, where most gradients vanish
        with torch.no_grad():
            value.add_(0.05 * torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    g = torch.autograd.grad(loss(parameter, 0), parameter)[0]
    state = {"mean": torch.zeros_like(g)}
    given = bounded(meta.network(g, w, state), g)
    ahead = loss(w - 0.1 * given, 1)  # the next loss, at the point that is committed
    wanted = torch.autograd.grad(ahead, list(meta.network.parameters()), allow_unused=True)
    run(meta, parameter, range(2))
    after = (w - 0.1 * given).detach().requires_grad_()
    sizes = torch.autograd.grad(loss(after, 1), after)[0].norm() * g.norm()
    for value, one in zip(meta.network.parameters(), wanted, strict=True):
        got = torch.zeros_like(value) if value.grad is None else value.grad
        assert torch.allclose(got * 0.1 * sizes, torch.zeros_like(value) if one is None else one, atol=1e-6)


@pytest.mark.parametrize("form", ["metagrad", "metagrad-lstm", "scalar-gain"])
def test_it_begins_as_the_plain_optimiser(form: str) -> None:
    meta, w = make(form, rate=0.0)
    plain = nn.Parameter(w.detach().clone())
    sgd = torch.optim.SGD([plain], 0.1, momentum=0.9)
    run(meta, w, range(4))
    for step in range(4):
        plain.grad = torch.autograd.grad(loss(plain, step), plain)[0]
        sgd.step()
    assert torch.allclose(w, plain, atol=1e-6)


@pytest.mark.parametrize("form", HYPERNETWORKS)
def test_going_on_from_a_state_equals_never_having_stopped(form: str) -> None:
    meta, w = make(form)
    run(meta, w, range(6))
    half, v = make(form)
    run(half, v, range(3))
    again, u = make(form)
    u.data.copy_(v)
    again.load_state_dict(half.state_dict())
    run(again, u, range(3, 6))
    assert torch.equal(u, w)
    assert all(torch.equal(a, b) for a, b in zip(again.network.parameters(), meta.network.parameters(), strict=True))


@pytest.mark.parametrize("form", HYPERNETWORKS)
def test_the_gain_is_bounded_and_teaching_brings_it_near(form: str) -> None:
    meta, w = make(form, rate=0.005)
    meta.next_loss = False
    run(meta, w, range(1))
    g = meta.kept[0]["gradient"]
    before = float((meta._again(meta.kept[0]) - 1.5 * g).detach().norm())
    for _ in range(100):
        meta.teach([1.5 * g])
    given = meta._again(meta.kept[0]).detach()
    assert float((given - 1.5 * g).norm()) < 0.5 * before
    for value in meta.network.parameters():
        value.data.mul_(100)
    ratio = float(meta._again(meta.kept[0]).detach().norm() / g.norm())
    assert 0.49 < ratio < 2.01


def test_names_of_gradients() -> None:
    assert hypernetwork_of("stochastic") is None and base_rounding("metagrad") == "stochastic-sample"
    assert hypernetwork_of("scalar-gain+luq") == "scalar-gain" and base_rounding("scalar-gain+luq") == "luq"
    for wrong in ("metagrd", "metagrad+luqq"):
        with pytest.raises(FewerError, match="did you mean"):
            hypernetwork_of(wrong)
