"""Named optimisers, groups and rates."""

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.training.optimise import OPTIMISERS, Group, Optimiser, make_optimiser, optimiser_of, set_rates
from fewer.training.settings import LoopSettings


def _net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_every_optimiser_lowers_a_loss(name: str) -> None:
    torch.manual_seed(0)
    net, x = _net(), torch.randn(16, 3)
    made = make_optimiser(net, Optimiser(name, 0.01, momentum=0.9))
    first = float(net(x).square().mean().detach())
    for _ in range(20):
        set_rates(made, 1.0)
        net(x).square().mean().backward()
        made.step()
        made.zero_grad()
    assert float(net(x).square().mean().detach()) < 0.7 * first


def test_groups_have_their_own_rate_and_decay_and_the_first_match_counts() -> None:
    net = _net()
    groups = (Group("*.bias", decay=0.0), Group("2.*", rate=10.0), Group("1.*", rate=0.0))
    made = make_optimiser(net, Optimiser(rate=0.1, decay=0.5, groups=groups))
    set_rates(made, 0.5)
    found = {id(p): (group["lr"], group["weight_decay"]) for group in made.param_groups for p in group["params"]}
    wanted = {"0.weight": (0.05, 0.5), "0.bias": (0.05, 0.0), "1.weight": (0.0, 0.5), "2.weight": (0.5, 0.5)}
    assert {name: found[id(net.get_parameter(name))] for name in wanted} == wanted
    set_rates(made, 1.0)
    assert made.param_groups[0]["lr"] == 0.1, "the factor is that of the schedule, not of the last step"


def test_relative_steps_have_the_size_of_the_parameter() -> None:
    net = nn.Linear(64, 64, bias=False)
    net.weight.data.normal_(0, 5.0)
    made, before = make_optimiser(net, Optimiser("relative-adam", 0.01, decay=0.0)), net.weight.detach().clone()
    set_rates(made, 1.0)
    net.weight.grad = torch.randn(64, 64)
    made.step()
    # the first step of Adam is the rate, for every weight
    assert float((net.weight.detach() - before).abs().mean()) == pytest.approx(0.01 * 5.0, rel=0.05)


def test_only_what_asks_for_a_gradient_learns() -> None:
    net = _net()
    net[0].requires_grad_(False)
    made = make_optimiser(net, Optimiser())
    assert sum(len(group["params"]) for group in made.param_groups) == 4 and not net[0].weight.requires_grad
    with pytest.raises(FewerError, match="no parameter"):
        make_optimiser(net.requires_grad_(False), Optimiser())


@pytest.mark.parametrize(
    ("how", "words"),
    [(Optimiser("adamm"), "did you mean 'adam"), (Optimiser(groups=(Group("head.*"),)), "no parameter is called")],
)
def test_wrong_names_are_told(how: Optimiser, words: str) -> None:
    with pytest.raises(FewerError, match=words):
        make_optimiser(_net(), how)


def test_settings_name_every_optimiser() -> None:
    names = LoopSettings.model_fields["optimiser"].annotation.__args__
    assert set(names) == set(OPTIMISERS)
    assert optimiser_of(LoopSettings(optimiser="sgd", momentum=0.5, clip=None)) == Optimiser("sgd", momentum=0.5)
