"""Fewer levels: layers that become one compute the same, and a budget is met by what says most alike."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError, UnmetError
from fewer.private.adapt import _moved, adapt
from fewer.private.cheapen import cheapen, cost_of
from fewer.private.compile import approximate_activations, compile_circuit, pack_within
from fewer.private.degrees import leave_out, plan_degrees, sense_degrees, ways_of
from fewer.private.joint import Joint, step_rows
from fewer.private.layout import pack_stages
from fewer.private.network import Network
from fewer.private.page import steps_section
from fewer.private.polynomial import Line
from fewer.private.price import TYPICAL, typical
from fewer.private.reading import read_network
from fewer.private.shrink import shrink
from fewer.private.stages import stages_of
from fewer.private.teach import agreement_loss


def a_net() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1, stride=2), nn.ReLU(), nn.Flatten(),
        nn.Linear(64, 12), nn.GELU(), nn.Linear(12, 3),
    ).eval()  # fmt: skip
    return net, torch.randn(40, 1, 8, 8)


@pytest.mark.parametrize("gone", [("1",), ("4",), ("1", "4")])
def test_layers_around_a_straight_line_become_one_that_computes_the_same(gone: tuple[str, ...]) -> None:
    net, images = a_net()
    network = approximate_activations(read_network(net, images[:1]), images)
    keys = [key for key in network.order() if network.name_of(key) in gone]
    made = leave_out(network, images, keys)
    stages = stages_of(made)
    assert len(stages) == 3 - len(gone) and all(isinstance(made.activations[k], Line) for k in keys)
    circuit = pack_stages(stages, made.shape, 4096)
    assert np.allclose(circuit.run(images.numpy()), made(images).numpy(), atol=1e-8)


def test_two_convolutions_become_one_where_that_is_cheaper() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(32, 2)).eval()
    images = torch.randn(9, 1, 8, 8)
    network = approximate_activations(read_network(net, images[:1]), images)
    ways = ways_of(network, images, network(images))
    assert [way.name for way in ways] == ["every activation", "without activation 1"]
    assert ways[0].distortion == 0 < ways[1].distortion and len(stages_of(ways[1].network)) == 1


def test_the_degree_of_each_activation_is_an_option_of_the_plan() -> None:
    net, images = a_net()
    network = approximate_activations(read_network(net, images[:1]), images)
    wanted = net(images).detach().double()

    def costs(one: Network) -> dict[str, float]:
        circuit, parameters = pack_within(one, images)
        return cost_of(circuit, typical(parameters))

    curves = sense_degrees(network, images, wanted, costs)
    options = [[str(o) for o in c.options] for c in curves.curves]
    assert options == [["dense", "approximate:degree-1", "approximate:degree-4"]] * 2
    levels = [c.cost["levels"].tolist() for c in curves.curves]
    assert levels == [[1.0, 0.0, 2.0]] * 2 and curves.fixed["levels"] == 1
    # more levels than the network has: a degree goes up where that says more alike
    deep = plan_degrees(network, images, wanted, "levels=5", costs)[0]
    assert deep.distortion < ways_of(network, images, wanted)[0].distortion and 4 in deep.changed.values()
    assert costs(deep.network)["levels"] <= 5
    flat = plan_degrees(network, images, wanted, "levels=2", costs)[0]
    assert costs(flat.network)["levels"] <= 2 and "without activation" in flat.name


def test_a_budget_is_met_by_fewer_levels_and_the_result_is_the_best_of_what_was_taught() -> None:
    net, images = a_net()
    network = approximate_activations(read_network(net, images[:1]), images)
    found = cheapen(net, network, images, "he=0.5x", steps=5, shift=0)
    assert found.after["he"] <= 0.5 * found.before["he"] and found.after["levels"] < 3 == found.before["levels"]
    taught = [t for t in found.tried if t.loss is not None]
    assert min(taught, key=lambda t: t.loss or 0).name == found.name and len(found.tried) >= 4
    assert found.parameters.degree == 8192 and found.circuit.levels == found.after["levels"]
    assert not any(isinstance(f, Line) for f in network.activations.values())  # what was given is as it was


def test_where_no_activation_can_go_diagonals_do() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32)).eval()
    images = torch.randn(20, 1, 8, 8)
    network = approximate_activations(read_network(net, images[:1]), images)
    found = cheapen(net, network, images, "he=0.8x", steps=4)
    assert "fewer diagonals" in found.name and found.after["he"] <= 0.8 * found.before["he"]
    assert typical(found.parameters).measured is False


def test_budgets_that_no_circuit_has_or_reaches_are_told() -> None:
    net, images = a_net()
    network = approximate_activations(read_network(net, images[:1]), images)
    with pytest.raises(FewerError, match="not for 'size'"):
        cheapen(net, network, images, "size=1MB")
    with pytest.raises(FewerError, match="cannot be met"):
        cheapen(net, network, images, "he=0.001x", steps=1)


def test_a_joint_plan_tells_what_each_step_does_alone() -> None:
    net, images = a_net()
    network = approximate_activations(read_network(net, images[:1]), images)
    found = cheapen(net, network, images, "he=0.4x", steps=5, shift=0, joint=True)
    assert found.after["he"] <= 0.4 * found.before["he"]
    names = [t.name for t in found.tried if t.loss is not None]
    assert any("fewer diagonals" in n for n in names) and any("fewer diagonals" not in n for n in names)
    whole, *alone = found.steps
    assert whole.kind == "whole" and whole.ms == pytest.approx(found.before["he"])
    together = [row for row in alone if row.kind == "together"]
    assert together[-1].ms == pytest.approx(found.after["he"]) and together[-1].name.endswith("encrypted")
    assert all(row.ms is not None and row.ms < whole.ms for row in together)
    single = [row for row in alone if row.kind == "alone"]
    assert len(single) == 3 and {row.name.split(":")[0] for row in single} == {
        "only other degrees",
        "only fewer diagonals",
        "only fewer bits",
    }
    page = steps_section([asdict(row) for row in found.steps], "he=0.4x", True)
    assert len(page.tables[0].rows) == len(found.steps) and page.tables[0].rows[0][2] == "1.00"


def test_steps_alone_stand_in_the_order_in_which_they_help() -> None:
    net, images = a_net()
    network = approximate_activations(read_network(net, images[:1]), images)
    wanted = net(images).detach().numpy()
    made = pack_within(network, images)
    less = pack_within(leave_out(network, images, network.order()[:1]), images)
    plan = Joint(made, less, less, None, "without activation 1", 0.8, True, False)
    rows = step_rows(plan, images.numpy(), images.numpy(), wanted, typical)
    alone = [row for row in rows if row.kind == "alone"]
    assert [row.ms is None for row in alone] == [False, False, True] and "too many levels" in alone[-1].note
    first, second = ((r.distance - rows[0].distance) / (1 - r.ms / rows[0].ms) for r in alone[:2])  # type: ignore[operator]
    assert first <= second
    cut = next(row for row in alone if "diagonals" in row.name)
    assert cut.ms == pytest.approx(0.8 * rows[0].ms, rel=0.1) and cut.ms <= 0.8 * rows[0].ms  # type: ignore[operator]


def test_distances_of_steps_take_no_notice_of_what_a_softmax_at_the_end_takes_none_of() -> None:
    net, images = a_net()
    network = approximate_activations(read_network(nn.Sequential(net, nn.Softmax(-1)).eval(), images[:1]), images)
    assert network.left == (("softmax", 1),)
    wanted = net(images).detach().numpy()
    made = pack_within(network, images)
    plan = Joint(made, made, made, None, "", 0.8, False, False)
    moved = wanted + 7 * np.arange(len(wanted))[:, None]
    first, second = (
        step_rows(plan, images.numpy(), images.numpy(), said, typical, network.answer, network.left)
        for said in (wanted, moved)
    )
    told = [[row.distance for row in rows if row.distance is not None] for rows in (first, second)]
    assert len(told[0]) > 2 and told[0] == pytest.approx(told[1], rel=1e-6)


def test_the_deepest_cut_that_there_is_is_told_as_well() -> None:
    """Its share was rounded down to six digits, a budget that nothing meets: the whole plan was lost."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 3))
    images = torch.randn(20, 1, 8, 8)
    made = compile_circuit(net, images)
    with pytest.raises(UnmetError) as refused:
        shrink(made[0], images.numpy(), "he=0.001x")
    assert refused.value.least is not None
    found = shrink(made[0], images.numpy(), f"he={refused.value.least + 1e-6:.9f}x")
    share = found.predicted_ms / found.before_ms
    assert float(f"{share:.6f}") < share  # otherwise this shows nothing
    plan = Joint(made, made, (found.circuit, made[1]), None, "", share, False, False)
    rows = step_rows(plan, images.numpy(), images.numpy(), net(images).detach().numpy(), lambda _: TYPICAL)
    assert [row.ms for row in rows if row.name == "all steps together"] == [pytest.approx(found.predicted_ms)]


def test_fewer_bits_are_an_option_where_a_smaller_ring_is_then_enough() -> None:
    torch.manual_seed(1)
    layers = [layer for _ in range(3) for layer in (nn.Linear(16, 16), nn.GELU())]
    net = nn.Sequential(nn.Flatten(), *layers, nn.Linear(16, 3)).eval()
    images = torch.randn(40, 1, 4, 4)
    network = approximate_activations(read_network(net, images[:1]), images)
    fine, coarse = (pack_within(network, images, noise=noise)[1].degree for noise in (1e-4, 0.5))
    assert (fine, coarse) == (16384, 8192)


def test_a_short_teaching_decides_which_network_is_taught_to_the_end(monkeypatch) -> None:
    net, images = a_net()
    network = approximate_activations(read_network(net, images[:1]), images)
    taught: list[int] = []

    def learning(model, network, known, *, steps: int, **more):
        taught.append(steps)
        return adapt(model, network, known, steps=1, **more)

    monkeypatch.setattr("fewer.private.cheapen.adapt", learning)
    found = cheapen(net, network, images, "he=0.8x", prices=typical, steps=40)
    fits = [one for one in found.tried if one.loss is not None]
    # a quarter of the steps for all that meet the budget, and all of them for one
    assert len(fits) > 1 and sorted(taught) == [10] * len(fits) + [40]
    assert found.name == fits[0].name and fits[0].loss == min(one.loss for one in fits)  # type: ignore[type-var]
    # the network of the result says in the clear what its circuit says
    assert found.network is not None
    assert np.allclose(found.network(images[:5]).numpy(), found.circuit.run(images[:5].numpy()), atol=1e-8)


def test_results_are_taught_where_classes_say_nothing() -> None:
    wanted = torch.tensor([[1.0], [3.0]])
    far, near = wanted + 2, wanted + 1
    # one number has no class, and the divergence of classes is zero
    assert agreement_loss(far, wanted, 2.0) == pytest.approx(1.0) and agreement_loss(near, wanted, 2.0) == 0.25


def test_images_are_moved_each_by_itself_and_their_edges_go_on() -> None:
    images = torch.arange(64.0).reshape(4, 1, 4, 4)
    moved = _moved(images, 1, torch.Generator().manual_seed(0))
    ways = {tuple((one - first).flatten().tolist()) for one, first in zip(moved, images, strict=True)}
    assert moved.shape == images.shape and len(ways) > 1
    for one, first in zip(moved, images, strict=True):
        assert set(one.flatten().tolist()) <= set(first.flatten().tolist())
