"""Layers in few bits: values on their grid, gradients of the papers, backward products that see rounded signals."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fewer.core.errors import FewerError
from fewer.formats.gradients import GRADIENTS
from fewer.quantize.fake import QUANTISERS
from fewer.quantize.gradients import GradientRounding, convolution, linear
from fewer.quantize.lowbit import Bits, exchange, low_bit_layers, parse_bits, plain
from fewer.quantize.qat import fold_norms, stored_precision, stored_ranges, trained_ranges
from fewer.quantize.qdq import InputRange


def net() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()]
    layers += [nn.Conv2d(6, 8, 3, 2, 1, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 3))


X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("role", ["weight", "signed", "unsigned"])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("name", QUANTISERS)
def test_values_are_few_near_and_let_gradients_pass(name: str, bits: int, role: str) -> None:
    x = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    x = (x.abs() if role == "unsigned" else x).requires_grad_()
    how = QUANTISERS[name].run(bits, role)  # type: ignore[arg-type]
    how.calibrate(x.detach())
    got = how.eval()(x)
    rows = got if name != "dorefa" and role == "weight" else got.reshape(1, -1)
    assert all(len((row / row.abs().max()).detach().mul(1e4).round().unique()) <= 2**bits for row in rows)
    if name != "dorefa":  # which bends weights and clips inputs to 1
        assert float((got - x).detach().norm() / x.detach().norm()) < {2: 0.95, 4: 0.4, 8: 0.2}[bits]
    got.square().sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all()) and float(x.grad.abs().sum()) > 0
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in how.parameters())


@pytest.mark.parametrize("name", QUANTISERS)
def test_weights_may_be_binary_or_ternary_and_inputs_not(name: str) -> None:
    x = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for bits, most in ((1, 2), ("t", 3)):
        how = QUANTISERS[name].run(bits, "weight")
        how.calibrate(x.detach())
        got = how(x)
        assert all(len(row.detach().mul(1e4).round().unique()) <= most for row in got)
        got.square().sum().backward()
        assert all(p.grad is not None and float(p.grad.abs().min()) > 0 for p in how.parameters())
    with pytest.raises(FewerError, match="only weights can be binary"):
        QUANTISERS[name].run(1, "signed")


@pytest.mark.parametrize("bits", [1, "t", 2, 4, 8])
@pytest.mark.parametrize("name", QUANTISERS)
def test_a_weight_that_was_cut_stays_cut_in_every_format(name: str, bits: int | str) -> None:
    x = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    x[:, ::2] = 0
    how = QUANTISERS[name].run(bits, "weight")
    how.calibrate(x)
    got = how(x).detach()
    assert bool((got[:, ::2] == 0).all()) and bool((got != 0).any())
    if bits == 1:
        assert bool((got[:, 1::2].sign() == x[:, 1::2].sign()).all())
        sizes = got[:, 1::2].abs()
        best = x[:, 1::2].abs().mean(1, keepdim=True)
        assert name == "dorefa" or torch.allclose(sizes, best.expand_as(sizes))


def test_the_gradient_of_the_step_is_that_of_lsq() -> None:
    x = torch.tensor([[0.3, 2.6, -9.0, 9.0, -1.2]])
    how = QUANTISERS["lsq"].run(3, "weight")
    how.step.data.fill_(1.1)
    how(x).sum().backward()
    v = x / 1.1
    inside = (v > -3) & (v < 3)
    wanted = torch.where(inside, v.round() - v, 3 * v.sign()).sum() / (5 * 3) ** 0.5
    assert torch.allclose(how.step.grad, wanted)


@pytest.mark.parametrize("name", ["lsq", "lsq+", "ewgs"])
@pytest.mark.parametrize("size", [1e-3, 10.0])
def test_a_learnt_step_moves_in_proportion_to_its_size(name: str, size: float) -> None:
    x = size * torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    how = QUANTISERS[name].run(4, "weight")
    how.calibrate(x)
    before = how.size()
    adam = torch.optim.AdamW([how.step], lr=1e-3, weight_decay=0.0)
    for _ in range(20):
        adam.zero_grad()
        how(x).square().sum().backward()
        adam.step()
    share = how.size() / before
    assert (
        bool(((share > 0.9) & (share < 1.1) & (share != 1)).all()) and float(share.mean()) < 1
    )  # a rate of 0.001 for 20 steps is 2 percent, whatever the size

    how.calibrate(x)
    descent = torch.optim.SGD([how.step], lr=1e-3)
    descent.zero_grad()
    how(x).square().sum().backward()
    moved = how.step.grad * how.unit  # the gradient for the step itself, as the paper has it
    descent.step()
    torch.testing.assert_close(how.size(), before - 1e-3 * moved, rtol=1e-3, atol=0)


def test_the_gradient_of_ewgs_is_scaled_by_the_error() -> None:
    x = torch.tensor([[0.3, -1.4]], requires_grad=True)
    how = QUANTISERS["ewgs"].run(4, "weight")
    how.step.data.fill_(1.0)
    how(x).sum().backward()
    assert torch.allclose(x.grad, 1 + 1e-3 * (x.detach() - x.detach().round()))


@pytest.mark.parametrize("role", ["weight", "unsigned"])
@pytest.mark.parametrize("bits", [2, 4, 8, "t"])
def test_a_learnt_step_starts_near_the_best_one(bits: int | str, role: str) -> None:
    if bits == "t" and role != "weight":
        pytest.skip("inputs are not ternary")
    x = torch.randn(64, 300, generator=torch.Generator().manual_seed(0))
    x = x.relu() if role == "unsigned" else x
    how = QUANTISERS["lsq"].run(bits, role)
    how.calibrate(x)

    # rows of a weight have steps of their own
    rows = x if role == "weight" else x.reshape(1, -1)

    def error(step: Tensor) -> Tensor:
        there = step.reshape(-1, 1)
        return ((rows / there).clamp(how.low, how.high).round() * there - rows).square().sum(1)

    offered = [rows.abs().amax(1) / how.high * share for share in torch.linspace(0.02, 1, 400)]
    best = torch.stack([error(step) for step in offered]).amin(0)
    assert float(error(how.size()).sum()) < 1.05 * float(best.sum()) and bool((error(how.size()) < 1.2 * best).all())
    paper = 2 * rows.abs().mean(1) / how.high**0.5
    assert bool((error(how.size()) <= 1.05 * error(paper)).all())


@pytest.mark.parametrize(("name", "delta"), [("lsq", 0.0), ("ewgs", 1e-3)])
def test_the_fused_step_has_the_gradients_of_a_chain_of_operations(name: str, delta: float) -> None:
    class Rounding(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x - x.round())
            return x.round()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * (1 + delta * gradient.sign() * ctx.saved_tensors[0])

    draw = torch.Generator().manual_seed(0)
    x, weigh = torch.randn(5, 20, generator=draw), torch.randn(5, 20, generator=draw)
    how = QUANTISERS[name].run(3, "signed")
    how.calibrate(x)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    got = how(ours)
    (got * weigh).sum().backward()
    step = how.size().clone().requires_grad_()
    wanted = Rounding.apply((theirs / step).clamp(how.low, how.high)) * step
    (wanted * weigh).sum().backward()
    assert torch.equal(got, wanted) and torch.allclose(ours.grad, theirs.grad, atol=1e-6)
    assert torch.allclose(how.step.grad, step.grad / how.unit / (20 * how.high) ** 0.5, atol=1e-4)


def test_pact_sends_the_gradient_of_clipped_values_to_the_clip() -> None:
    x = torch.tensor([0.5, 3.0, -1.0], requires_grad=True)
    how = QUANTISERS["pact"].run(4, "unsigned")
    how.clip.data.fill_(2.0)
    how(x[None]).sum().backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0] and float(how.clip.grad) == 1.0


@pytest.mark.parametrize("where", ["both", "error", "weight"])
def test_backward_products_are_those_of_a_loop_with_the_rounded_signal(where: str) -> None:
    torch.manual_seed(0)
    x, w, b = torch.randn(4, 4, 6, 6), torch.randn(6, 2, 3, 3), torch.randn(6)
    layer = nn.Conv2d(4, 6, 3, 2, 1, groups=2)
    how, exact = GradientRounding("nearest", 3, where), torch.randn(4, 6, 3, 3)
    signal = how(exact)
    for product, plain_product, shapes in (
        (lambda *a: convolution(*a, layer, how), lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 2), (x, w, b)),
        (lambda *a: linear(*a, how), F.linear, (torch.randn(5, 7, 4), torch.randn(6, 4), b)),
    ):
        ours, theirs = ([p.clone().requires_grad_() for p in shapes] for _ in range(2))
        y = product(*ours)
        e = exact if y.ndim == 4 else torch.randn(y.shape)
        s = signal if y.ndim == 4 else how(e)
        y.backward(e)
        for part, used in enumerate((s if where != "weight" else e, s if where != "error" else e, e)):
            got = torch.autograd.grad(plain_product(*theirs), theirs[part], used)[0]
            assert torch.allclose(ours[part].grad, got, atol=1e-4), part


def test_off_is_off_and_a_watched_pass_says_how_far_it_is_off() -> None:
    torch.manual_seed(0)
    how, x = GradientRounding("nearest", 2), torch.randn(9, 5)
    w = torch.randn(3, 5, requires_grad=True)
    how.enabled = False
    linear(x, w, None, how).pow(3).sum().backward()
    exact = w.grad.clone()
    how.enabled, how.watched, w.grad = True, True, None
    linear(x, w, None, how).pow(3).sum().backward()
    assert how.seen["cosine"] == pytest.approx(
        float(F.cosine_similarity(exact.flatten(), w.grad.flatten(), 0)), abs=1e-5
    )
    assert how.seen["weight error"] == pytest.approx(float((exact - w.grad).norm() / exact.norm()), abs=1e-5)
    assert 0 < how.seen["error"] < 1 and not how.watched


PAIRS = [(name, "stochastic-sample") for name in QUANTISERS] + [("ste", name) for name in GRADIENTS]


@pytest.mark.parametrize(("quantiser", "gradients"), PAIRS)
def test_every_method_trains(quantiser: str, gradients: str) -> None:
    model = net()
    names = set(model.state_dict())
    exchange(model, parse_bits("w4a4g4"), X, quantiser=quantiser, gradients=gradients)
    assert names <= set(model.state_dict())
    labels = torch.arange(8) % 3
    step = torch.optim.SGD(model.parameters(), 0.05)
    losses = []
    for _ in range(5):
        loss = F.cross_entropy(model(X), labels)
        step.zero_grad()
        loss.backward()
        step.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]


def test_eight_bits_change_little_and_edges_are_told() -> None:
    model = net().eval()
    before = model(X)
    same = copy.deepcopy(model)
    told = exchange(same, parse_bits("w4a4g4"), X, edges="8")
    assert [(one.weights, one.gradients, one.why) for one in told] == [
        ("8 (lsq)", "8 (stochastic-sample, both)", "the first layer"),
        ("4 (lsq)", "4 (stochastic-sample, both)", ""),
        ("4 (lsq)", "4 (stochastic-sample, both)", ""),
        ("8 (lsq)", "8 (stochastic-sample, both)", "the last layer"),
    ]
    kept = copy.deepcopy(model)
    told = exchange(kept, parse_bits("w4a4g4"), X, edges="fp32", quantiser="ste")
    assert told[0].weights == told[-1].inputs == "fp32"
    fine = copy.deepcopy(model)
    exchange(fine, parse_bits("w8a8"), X, quantiser="ste")
    assert float((fine.eval()(X) - before).norm() / before.norm()) < 0.05
    assert model(X).equal(before) and not low_bit_layers(model)


@pytest.mark.parametrize(("bits", "precision"), [("w4", "int4"), ("w8", "int8")])
def test_what_straight_through_training_leaves_can_be_stored_as_integers(bits: str, precision: str) -> None:
    model = net().eval()
    exchange(model, parse_bits(bits), X, quantiser="ste", edges="same")
    rounded = model(X)
    plain(model)
    assert not low_bit_layers(model) and torch.allclose(model(X), rounded, atol=1e-5)
    layers = [m for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    assert {stored_precision(layer.weight) for layer in layers} == {precision}
    assert all(type(layer) in (nn.Linear, nn.Conv2d) for layer in layers)


def test_trained_ranges_are_what_onnx_rounds_to() -> None:
    model = net().eval()
    exchange(model, parse_bits("w8a8"), X, quantiser="lsq")
    ranges = trained_ranges(model)
    assert set(ranges) == {"0", "3", "7", "9"}
    layer = model[3]
    x = torch.rand(2, 6, 4, 4)
    assert torch.allclose(ranges["3"].rounded(x), layer.input_quantiser(x), atol=1e-6)


def test_ranges_of_a_run_are_read_and_what_is_none_is_told() -> None:
    meta = {"few_bits": {"inputs": {"stem": [0.5, 0], "head": [0.25, 128]}}}
    assert stored_ranges(meta, ["head"]) == {"head": InputRange(0.25, 128)} and stored_ranges({}, ["head"]) == {}
    for wrong in ([0.0, 0], [float("nan"), 0], [1.0, 256], [1.0, 0.5], [1.0, 0, 0.0, 15.5], [1.0], "0.5", None):
        with pytest.raises(FewerError, match="no scale and zero point"):
            stored_ranges({"few_bits": {"inputs": {"head": wrong}}}, ["head"])


@pytest.mark.parametrize("quantiser", ["ste", "pact"])
def test_folding_a_norm_and_rounding_for_each_output_may_change_places(quantiser: str) -> None:
    model = net()
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([-2.0, 0.1, 1.0, 3.0, -0.5, 7.0]))
    model.train()(X), model.eval()
    folded = copy.deepcopy(model)
    fold_norms(folded, X)
    found = []
    for one in (model, folded):
        exchange(one, parse_bits("w4"), X, quantiser=quantiser, edges="same")
        found.append(one(X))
    assert torch.allclose(found[0], found[1], atol=1e-5)


def test_folding_norms_changes_nothing_in_evaluation() -> None:
    model = net()
    model.train()(X), model(3 * X + 1)
    model.eval()
    before = model(X)
    assert fold_norms(model, X) == ["1"] and torch.allclose(model(X), before, atol=1e-5)


def deep(depth: int = 20) -> nn.Module:
    """Never trained: in evaluation, where norms do nothing yet, activations shrink from layer to layer."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1)]
    for _ in range(depth):
        conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        nn.init.normal_(conv.weight, std=0.01)
        layers += [conv, nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


@pytest.mark.parametrize("quantiser", QUANTISERS)
def test_ranges_start_from_what_layers_are_given_in_training(quantiser: str) -> None:
    model = deep().train()
    random, before = torch.get_rng_state(), {name: b.clone() for name, b in model.named_buffers()}
    exchange(model, parse_bits("w8a8"), X, quantiser=quantiser)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(dict(model.named_buffers())[name], b) for name, b in before.items())
    model(X).logsumexp(1).sum().backward()
    sizes = [float(p.grad.norm()) for p in model.parameters() if p.grad is not None]
    assert all(size < 1e6 for size in sizes)
    scores = model(X)
    assert float(scores.detach().std(0).max()) > 1e-3  # images are told apart, so something came through


def test_a_model_that_cannot_train_on_one_image_starts_from_evaluation() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    assert len(exchange(model, parse_bits("w8a8"), X[:1], quantiser="ste")) == 2 and model.training


def test_a_range_that_starts_far_off_is_left_behind_at_once() -> None:
    how = QUANTISERS["ste"].run(8, "unsigned").train()
    how.calibrate(torch.full((2,), 1e-6))
    for _ in range(3):
        how(torch.tensor([0.5, 2.0]))
    assert 1.4 < float(how.peak) < 2.0


def test_a_held_weight_is_left_to_the_plan() -> None:
    model = net()
    told = exchange(model, parse_bits("w4a4"), X, held={"3": "int4"})
    assert (
        model[3].weight_quantiser is None and told[1].weights == "int4 (plan)" and model[3].input_quantiser is not None
    )


def test_one_bit_is_called_by_its_name() -> None:
    with pytest.raises(FewerError, match="wb has binary weights"):
        parse_bits("w1a4")


@pytest.mark.parametrize("text", ["w9", "w4a1", "g0", "four", ""])
def test_bits_that_no_format_has_are_told(text: str) -> None:
    with pytest.raises(FewerError, match=r"no format has|cannot read the bits"):
        parse_bits(text)


def test_a_model_without_layers_is_told() -> None:
    with pytest.raises(FewerError, match="no linear or two-dimensional"):
        exchange(nn.Sequential(nn.ReLU()), Bits(4), torch.ones(1, 2))


class Twice(nn.Module):
    """One layer under two names, a class made from a layer, attention, and a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()

        class Odd(nn.Linear):
            pass

        self.first = nn.Linear(8, 8)
        self.again = self.first
        self.odd, self.idle = Odd(8, 8), nn.Linear(8, 8)
        self.position = nn.Parameter(torch.zeros(1, 8))
        self.last = NonDynamicallyQuantizableLinear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.odd(self.again(self.first(x + self.position).relu()).relu()).relu())


def test_a_layer_with_two_names_stays_one_and_what_is_left_is_told() -> None:
    model, x = Twice(), torch.randn(5, 8)
    told = {one.name: one for one in exchange(model, parse_bits("w4a4g4"), x, quantiser="ste", edges="same")}
    assert model.first is model.again and set(low_bit_layers(model)) == {"first", "last"}
    assert told["odd"].why.startswith("parameters of Odd") and "did not run" in told["idle"].why
    assert told["(the model)"].weights == "fp32" and len(told) == 5
    model(x).sum().backward()
    plain(model)
    assert model.first is model.again and not low_bit_layers(model)
    assert stored_precision(model.first.weight) == "int4" and type(model.last) is nn.Linear


@pytest.mark.parametrize(("quantiser", "method"), [*((name, "luq") for name in QUANTISERS), ("ste", "nearest")])
def test_mixed_precision_multiplies_halves_and_rounds_in_full(quantiser: str, method: str) -> None:
    torch.manual_seed(0)
    model = net()
    exchange(model, parse_bits("w8a8g8"), X, gradients=method, quantiser=quantiser)
    with torch.autocast("cpu", torch.bfloat16):
        loss = F.cross_entropy(model(X).float(), torch.arange(8) % 3)
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in (model[0].weight, model[7].weight))


class Tied(nn.Module):
    """Three layers share one weight, two of them are the first and the last."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = (nn.Linear(6, 6) for _ in range(3))
        self.middle.weight = self.last.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.middle(input=self.first(x).relu()).relu())


@pytest.mark.parametrize("quantiser", QUANTISERS)
def test_layers_that_share_a_weight_round_it_alike(quantiser: str) -> None:
    torch.manual_seed(0)
    model, x = Tied(), torch.randn(9, 6)
    told = exchange(model, parse_bits("w4a4g4"), x, quantiser=quantiser)
    assert [(one.weights, one.inputs) for one in told] == [
        (f"8 ({quantiser})", f"8 ({quantiser})"),
        (f"8 ({quantiser})", f"4 ({quantiser})"),
        (f"8 ({quantiser})", f"8 ({quantiser})"),
    ]
    assert told[1].why == "the weight is that of first"
    assert model.middle.weight is model.first.weight and model.middle.weight_quantiser is model.first.weight_quantiser
    with torch.no_grad():
        rounded = model.first.weight_quantiser(model.first.weight).clone()
    plain(model)
    assert model.middle.weight is model.first.weight and torch.equal(model.first.weight, rounded)


def test_a_stored_precision_of_a_shared_weight_holds_for_all_its_layers() -> None:
    told = exchange(Tied(), parse_bits("w4a4"), torch.randn(9, 6), held={"middle": "int8"})
    assert {one.weights for one in told} == {"int8 (plan)"}


@pytest.mark.parametrize(
    ("bits", "stored", "told"),
    [
        ("w4", "int8", "4 (lsq)"),
        ("w4", "bf16", "4 (lsq)"),
        ("wt", "int4", "ternary (lsq)"),
        ("wb", "int4", "binary (lsq)"),
        ("w8", "int4", "int4 (plan)"),
        ("w8", "int8", "int8 (plan)"),
        ("a8", "bf16", "bf16 (plan)"),
    ],
)
def test_of_a_plan_and_a_wish_the_fewer_bits_count(bits: str, stored: str, told: str) -> None:
    found = exchange(net(), parse_bits(bits), X, held={"3": stored})
    assert next(one.weights for one in found if one.name == "3") == told


def test_a_weight_that_hooks_compute_stays_in_floating_point() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.utils.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 2))
    told = {one.name: one for one in exchange(model, parse_bits("w4"), torch.randn(3, 4))}
    assert told["1"].weights == "fp32" and told["1"].why == "its weight is computed in every call"
    assert set(low_bit_layers(model)) == {"0", "2"}


@pytest.mark.parametrize("quantiser", ["ste", "lsq"])
def test_rounding_is_in_fp32_under_mixed_precision(quantiser: str) -> None:
    layer = nn.Sequential(nn.Linear(64, 8))
    x = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    exchange(layer, parse_bits("w8a8g8"), x.float(), quantiser=quantiser)
    layer.eval()
    got, _ = layer[0].operands(x)
    assert got.dtype == torch.float32 and torch.equal(got, layer[0].input_quantiser(x.float()))
    with torch.autocast("cpu", torch.bfloat16):
        layer(x).float().square().sum().backward()
    assert bool(torch.isfinite(layer[0].weight.grad).all())
