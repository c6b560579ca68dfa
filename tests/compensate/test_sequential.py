"""A whole model, cut and repaired in execution order."""

import copy

import pytest
import torch
from torch import nn

from fewer.compensate.moments import column_blocks
from fewer.compensate.sequential import HeldOut, Layered, UnitFacts, compress_in_order
from fewer.compensate.sweep import Repair
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.models.layers import find_layers
from fewer.models.matching import match
from tests.tiny import TINY, tiny

HALF = [Option(), Option("unstructured", 0.5)]


def compress(model, x, ladder, repair=None, **kwargs):
    """Compress a copy with one ladder for all units (or one per unit); give the copy and the masks."""
    dense, target = copy.deepcopy(model), copy.deepcopy(model)
    units = match(model, x[:1]).units
    ladders = ladder if isinstance(ladder, dict) else {u.name: ladder for u in units}
    masks = compress_in_order(
        Layered(dense, find_layers(dense, units, x[:1])),
        Layered(target, find_layers(target, units, x[:1])),
        ladders,
        [x],
        repair or Repair(),
        **kwargs,
    )
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in dense.state_dict().items())
    for one in (dense, target):
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in one.modules())
        assert [m.training for m in one.modules()] == [m.training for m in model.modules()]
    return target, masks


def tensors(output):
    if isinstance(output, torch.Tensor):
        return [output]
    return [t for v in (output.values() if isinstance(output, dict) else output) for t in tensors(v)]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("correction", [0.0, 0.5])
def test_all_dense_is_bit_equal(name, correction):
    model, x = tiny(name)
    target, masks = compress(model, x, [Option()], correction=correction)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in target.state_dict().items())
    assert all(bool(m.all()) for m in masks.values())


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("compensation", ["obs", "bias", "none"])
def test_masks_are_in_the_weights_and_untouched_modes_stay(name, compensation):
    model, x = tiny(name)
    model.train()
    list(model.modules())[-1].eval()
    target, masks = compress(model, x, HALF, Repair(compensation))
    layers = find_layers(target, match(model, x[:1]).units, x[:1])
    for unit, mask in masks.items():
        assert not bool(layers[unit].matrix[~mask].any())
        assert int((~mask).sum()) == -(-mask.numel() // 2)


def error(model, target, x) -> float:
    with torch.no_grad():
        return float((target(x) - model(x)).square().sum() / model(x).square().sum())


def test_making_up_for_earlier_cuts_lowers_the_output_error():
    """Two linear layers: the second sees what the first lost, and can put part of it back."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 12), nn.Linear(12, 8)).eval()
    x = torch.randn(600, 16) @ torch.randn(16, 16)
    # a layer that nobody touches stays as it is; one that is rounded may make up for what came before
    ladders = {"0": [Option(), Option("unstructured", 0.7)], "1": [Option(precision="bf16")]}
    repair = Repair("obs", iterations=100)
    errors = [error(model, compress(model, x, ladders, repair, correction=c)[0], x) for c in (0.0, 0.5, 1.0)]
    assert errors[2] < errors[1] < errors[0]
    # with full correction the second layer, which keeps all its weights, is the least-squares answer
    target = compress(model, x, ladders, Repair("obs", iterations=400, damping=1e-6, few_rows=0.0), correction=1.0)[0]
    with torch.no_grad():
        hidden = torch.cat([target[0](x), torch.ones(600, 1)], 1)
        best = torch.linalg.lstsq(hidden.double(), model(x).double()).solution
        least = (hidden.double() @ best - model(x)).square().sum() / model(x).square().sum()
    assert error(model, target, x) == pytest.approx(float(least), rel=1e-2)


def test_repair_beats_the_bare_cut():
    model, x = tiny("conv")
    x = torch.cat([x, x.flip(-1), -x, x.roll(3, -1)])
    by = {c: error(model, compress(model, x, HALF, Repair(c, "magnitude"))[0], x) for c in ("obs", "bias", "none")}
    assert by["obs"] < by["bias"] < by["none"]


def test_a_second_round_only_takes_more_away():
    model, x = tiny("vit")
    first, masks = compress(model, x, HALF)
    units = match(model, x[:1]).units
    second = copy.deepcopy(first)
    again = compress_in_order(
        Layered(model, find_layers(model, units, x[:1])),
        Layered(second, find_layers(second, units, x[:1])),
        {u.name: [Option(), Option("unstructured", 0.75)] for u in units},
        [x],
        Repair(),
        facts=UnitFacts(alive=masks),
    )
    for name, mask in again.items():
        assert not bool((mask & ~masks[name]).any())
        assert int((~mask).sum()) == -(-mask.numel() * 3 // 4)


class TiedBackwards(nn.Module):
    """The weight's first holder is the one that runs last."""

    def __init__(self) -> None:
        super().__init__()
        self.late, self.mid, self.early = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.early.weight = self.late.weight

    def forward(self, x):
        return self.late(self.mid(self.early(x).relu()).relu())


def test_a_tied_weight_is_cut_before_its_first_use():
    torch.manual_seed(0)
    model, x = TiedBackwards().eval(), torch.randn(64, 8)
    order: list[str] = []
    target, masks = compress(model, x, HALF, done=order.append)
    assert order == ["late", "mid"]
    assert target.early.weight is target.late.weight
    assert int((target.late.weight == 0).sum()) == 32 and not bool(target.late.weight[~masks["late"]].any())


def test_scores_from_gradients_reach_the_sweep():
    model, x = tiny("dict-children")
    units = match(model, x[:1]).units
    gradients = {u.name: torch.rand(u.rows, u.cols, generator=torch.Generator().manual_seed(1)) for u in units}
    _, masks = compress(model, x, HALF, Repair("none", "taylor"), facts=UnitFacts(gradients=gradients))
    for unit in units:
        distortion = (model.get_submodule(unit.name).weight.detach() * gradients[unit.name]).abs()
        assert distortion[~masks[unit.name]].max() <= distortion[masks[unit.name]].min()


def test_nan_in_an_activation_names_the_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).eval()
    model[0].bias.data[1] = float("nan")
    with pytest.raises(FewerError, match="'1' holds NaN"):
        compress(model, torch.randn(8, 4), HALF)


def test_a_model_that_fails_on_the_way_says_so():
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x):
            y = self.a(x)
            if len(x) > 1:
                raise ValueError("too many")
            return y

    with pytest.raises(ValueError, match="too many"):
        compress(Fails(), torch.randn(8, 4), HALF)


def test_a_layer_that_nobody_touches_stays_to_the_last_bit():
    model, x = tiny("conv")
    units = match(model, x[:1]).units
    ladders = {u.name: HALF if i == 0 else [Option()] for i, u in enumerate(units)}
    target, _ = compress(model, x, ladders, correction=1.0)
    before, after = model.state_dict(), target.state_dict()
    for unit in units[1:]:
        assert torch.equal(before[f"{unit.name}.weight"], after[f"{unit.name}.weight"])


def test_blocks_of_a_wide_layer_do_not_all_make_up_for_the_same_change(monkeypatch):
    """Rounding the first layer hardly changes anything; the second, in three column blocks, must hardly move."""
    monkeypatch.setattr("fewer.compensate.moments.column_blocks", lambda n: column_blocks(n, 8))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 6)).eval()
    x = torch.randn(400, 24) + 2
    target, _ = compress(model, x, [Option(precision="bf16")], Repair(iterations=50), correction=1.0)
    moved = (target[2].weight - model[2].weight).norm() / model[2].weight.norm()
    assert float(moved) < 0.01


def test_a_repair_that_other_images_do_not_bear_out_is_not_kept():
    """More inputs than rows, and the two halves of the images have nothing in common."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 16)).eval()
    x = torch.zeros(24, 64)
    x[:12, :32], x[12:, 32:] = torch.randn(12, 32), torch.randn(12, 32)
    halves = [0] * 12 + [1] * 12
    held_out = HeldOut(halves)
    loose = Repair("obs", "magnitude", damping=1e-4, few_rows=0.0, iterations=50)
    target, masks = compress(model, x, HALF, loose, held_out=held_out)
    assert held_out.believed["0"] < 0.05
    free, _ = compress(model, x, HALF, loose)
    cut = model[0].weight * masks["0"]
    assert (target[0].weight - cut).norm() < 0.05 * (free[0].weight - cut).norm()


def test_a_repair_that_other_images_bear_out_is_kept():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 8)).eval()
    x = torch.randn(2000, 16) @ torch.randn(16, 16)
    held_out = HeldOut([i % 2 for i in range(2000)])
    compress(model, x, HALF, Repair(), held_out=held_out)
    assert held_out.believed["0"] > 0.9


def test_a_cut_that_looks_at_no_input_does_not_run_the_model():
    model, x = tiny("conv")
    blind, calls = Repair("none", "magnitude"), []
    cut, masks = compress(model, x, HALF, blind, forward=lambda net, batch: calls.append(net) or net(batch))
    assert not calls
    _, expected = compress(model, x, HALF, Repair("bias", "magnitude"))
    assert masks.keys() == expected.keys() and all(torch.equal(masks[name], expected[name]) for name in masks)
    assert all(torch.equal(a, b) for a, b in zip(cut.parameters(), model.parameters(), strict=True) if a.ndim < 2)


class Experts(nn.Module):
    """Rows go to the expert that a gate prefers; what nobody prefers is skipped."""

    def __init__(self, skipping: bool) -> None:
        super().__init__()
        self.stem, self.gate = nn.Linear(6, 8), nn.Linear(8, 3)
        self.experts, self.head = nn.ModuleList(nn.Linear(8, 8) for _ in range(3)), nn.Linear(8, 4)
        self.skipping = skipping

    def forward(self, x):
        x = self.stem(x).relu()
        chosen, out = self.gate(x).argmax(1), torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = (chosen == number).nonzero().flatten()
            if len(rows) or not self.skipping:
                out = out.index_add(0, rows, expert(x[rows]))
        return self.head(x + out)


@pytest.mark.parametrize("skipping", [False, True])
@pytest.mark.parametrize("folds", [None, [0] * 20 + [1] * 20])
def test_rows_that_a_cut_sends_elsewhere_are_not_held_against_other_rows(skipping, folds):
    torch.manual_seed(3)
    model, x = Experts(skipping).eval(), torch.randn(40, 6)
    with torch.no_grad():  # one expert is chosen for a few rows alone, which a cut of the gate sends elsewhere
        model.gate.bias[0] -= model.gate(model.stem(x).relu()).max(1).values.median()
    units = match(model, x).units
    ladders = {u.name: HALF if u.name.startswith("experts") else [Option(), Option("unstructured", 0.9)] for u in units}
    dense, target = copy.deepcopy(model), copy.deepcopy(model)
    one, two = (Layered(net, find_layers(net, units, x)) for net in (dense, target))
    masks = compress_in_order(one, two, ladders, [x], Repair(), held_out=HeldOut(folds=folds))
    assert set(masks) == {u.name for u in units}
    assert all(bool(torch.isfinite(p).all()) for p in target.parameters())
    sent = [net.gate(net.stem(x).relu()).argmax(1).bincount(minlength=3).tolist() for net in (model, target)]
    assert sent[0] != sent[1]  # or this test shows nothing


def test_a_layer_that_the_compressed_model_does_not_reach_is_repaired_on_the_dense_inputs():
    class Exits(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            y = self.a(x)
            return self.c(y if y.square().mean() < 0.1 else self.b(y))

    torch.manual_seed(0)
    model, x = Exits().eval(), 3 * torch.randn(30, 4)
    ladder = {"a": [Option(), Option("unstructured", 1.0)], "b": HALF, "c": HALF}
    with torch.no_grad():
        x -= x.mean(0)  # or the bias of a lets it pass
        model.a.bias.zero_()
    target, masks = compress(model, x, ladder, Repair())
    assert target.a.weight.count_nonzero() == 0
    assert int(masks["b"].sum()) == 8 and bool(torch.isfinite(target.b.weight).all())
