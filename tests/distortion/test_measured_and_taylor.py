"""The two estimators of distortion: one against finite differences, the other against explicit Jacobians."""

from itertools import product

import pytest
import torch
from torch import nn

from fewer.core.option import Option
from fewer.distortion import taylor as taylor_room
from fewer.distortion.measured import Measured
from fewer.distortion.outputs import Reference
from fewer.distortion.taylor import Taylor, rms_gradients
from fewer.models.layers import Fit, Layer, find_layers
from fewer.models.matching import match
from fewer.patterns import to_matrix
from tests.tiny import TINY, tiny


def layers_of(model: nn.Module, x: torch.Tensor) -> list[Layer]:
    return list(find_layers(model, match(model, x).units, x).values())


def some_fits(layer: Layer, scale: float = 1.0, seed: int = 0) -> list[Fit]:
    """The dense option and random changes of weight and shift."""
    g = torch.Generator().manual_seed(seed)
    keep = torch.ones_like(layer.matrix, dtype=torch.bool)
    fits = [Fit(Option(), keep, layer.matrix.clone(), torch.zeros(layer.unit.rows))]
    for share in (0.3, 0.6):
        change = scale * torch.randn(layer.matrix.shape, generator=g)
        shift = scale * torch.randn(layer.unit.rows, generator=g) * float(layer.centred)
        fits.append(Fit(Option("unstructured", share), keep, layer.matrix + change, shift))
    return fits


@pytest.mark.parametrize("name", TINY)
def test_measured_is_the_finite_difference(name):
    model, x = tiny(name)
    batches = list(torch.cat([x, 2 - x]).split(3))
    measured = Measured(model, batches)
    with torch.no_grad():
        reference = Reference([model(b) for b in batches])
    state = {k: v.clone() for k, v in model.state_dict().items()}
    for layer in layers_of(model, x):
        fits = some_fits(layer, 0.1)
        distortions = measured.distortions(layer, fits)
        assert distortions.shape == (3, 2 * len(x)) and not distortions[0].any()
        for distortion, fit in zip(distortions, fits, strict=True):
            with layer.borrowed(), torch.no_grad():
                layer.install(fit.weight, fit.shift)
                wanted = torch.cat([reference.change(i, model(b)) for i, b in enumerate(batches)])
            assert torch.equal(distortion, wanted)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert measured.spent() == 2 * 2 * len(x) * len(layers_of(model, x)) and measured.spent() == 0


def mlp(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).eval()


def first_order(model: nn.Module, layer: Layer, fit: Fit, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """|J D|^2 over the output's scale for every sample, by automatic differentiation of one sample at a time."""
    names = [n for n, p in model.named_parameters() if p is layer.weight]
    bias = names[0].removesuffix("weight") + "bias"
    change = {
        names[0]: (fit.weight - layer.matrix).view(layer.unit.shape),
        bias: fit.shift,
    }
    state = {k: v.detach() for k, v in model.state_dict().items()}

    def run(parameters: dict[str, torch.Tensor], one: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(model, {**state, **parameters}, (one[None],))[0]

    primal = {k: state[k] for k in change}
    rows = [torch.func.jvp(lambda p, s=s: run(p, s), (primal,), (change,))[1] for s in x]
    return torch.stack(rows).double().square().sum(1) / scale


@pytest.mark.parametrize("index", [0, 1])
def test_probes_are_unbiased(index):
    """Many probes: the mean is the explicit Jacobian's number within four standard errors."""
    model, x = mlp(), torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
    batches = [x[:4], x[4:]]  # of different size
    layers = layers_of(model, x)
    taylor = Taylor(model, layers, batches, probes=1500, dtype=torch.float32)
    layer, fit = layers[index], some_fits(layers[index])[1]
    exact = first_order(model, layer, fit, x, taylor.reference.scale[0])
    change = torch.cat([(fit.weight - layer.matrix).flatten(), fit.shift])
    draws = (taylor.gradients(layer) @ change).double().square() / torch.tensor([[4.0], [2.0]])
    found = taylor.distortions(layer, [fit])[0]
    for i, part in enumerate([slice(0, 4), slice(4, 6)]):
        error = draws[i].std() / draws.shape[1] ** 0.5
        assert abs(float(draws[i].mean() - exact[part].mean())) < 4 * float(error)
        assert float(error) < 0.1 * float(exact[part].mean())  # and the test is a sharp one
        torch.testing.assert_close(found[part], draws[i].mean().expand(found[part].shape))
    assert float(found.mean()) == pytest.approx(float(exact.mean()), rel=0.15)


def all_signs(outputs: int):
    """A replacement for random signs that goes through every sign vector of one sample's outputs."""
    every = iter(list(product([0, 1], repeat=outputs)) * 100)
    return lambda _low, _high, shape, generator=None: torch.tensor([next(every)]).expand(shape)


@pytest.mark.parametrize("index", [0, 1])
def test_all_sign_vectors_give_the_exact_number(index, monkeypatch):
    model, x = mlp(), torch.randn(1, 5, generator=torch.Generator().manual_seed(1))
    layers = layers_of(model, x)
    with monkeypatch.context() as patch:
        patch.setattr(taylor_room.torch, "randint", all_signs(2))
        taylor = Taylor(model, layers, [x], probes=4, dtype=torch.float32)
        taylor.collect()
    layer = layers[index]
    fits = some_fits(layer)
    distortions = taylor.distortions(layer, fits)
    assert not distortions[0].any()
    for fit, distortion in zip(fits[1:], distortions[1:], strict=True):
        exact = first_order(model, layer, fit, x, taylor.reference.scale[0])
        torch.testing.assert_close(distortion, exact, rtol=1e-4, atol=0)
    assert taylor.spent() == 1 + 4 and taylor.spent() == 0


@pytest.mark.parametrize("name", sorted(TINY.keys() - {"dict-output", "tuple-output", "never-called"}))
def test_the_stored_shift_gradient_is_that_of_a_bias(name):
    """Also where the output is changed in place afterwards, and where there is no bias but a BatchNorm."""
    model, x = tiny(name)
    layers = layers_of(model, x)
    taylor = Taylor(model, layers, [x], probes=2, dtype=torch.float32)
    for layer in layers:
        biases = [torch.zeros(layer.unit.rows, requires_grad=True) for _ in layer.users]
        axis = [-1] if layer.unit.kind == "linear" else [1, -1] + [1] * (len(layer.unit.shape) - 2)
        hooks = [
            u.register_forward_hook(lambda _m, _i, out, b=b, a=axis: out + b.view(a))
            for u, b in zip(layer.users, biases, strict=True)
        ]
        output = model(x)
        signs_from = torch.Generator().manual_seed(0)
        for probe in range(2):
            signs = torch.randint(0, 2, output.shape, generator=signs_from) * 2.0 - 1
            signs /= taylor.reference.scale[0].sqrt()
            grads = torch.autograd.grad(output, [layer.weight, *biases], signs, retain_graph=True)
            stored = taylor.gradients(layer)[0, probe]
            torch.testing.assert_close(stored[: layer.unit.numel], to_matrix(grads[0]).flatten(), rtol=1e-3, atol=1e-5)
            torch.testing.assert_close(stored[layer.unit.numel :], torch.stack(grads[1:]).sum(0), rtol=1e-3, atol=1e-5)
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("name", TINY)
def test_small_changes_agree_with_measured_ones(name):
    """First order is all there is when the change is small; several output tensors included."""
    model, x = tiny(name)
    layers = layers_of(model, x)
    taylor = Taylor(model, layers, list(x.split(1)), probes=60, dtype=torch.float32)
    measured = Measured(model, list(x.split(1)))
    for layer in (layers[0], layers[-1]):
        fits = some_fits(layer, 1e-3)
        a, b = (float(e.distortions(layer, fits)[1].mean()) for e in (taylor, measured))
        assert a == pytest.approx(b, rel=0.3)


def test_shards_add_up_to_the_whole():
    model, x = tiny("conv")
    batches = list(torch.cat([x, -x, x + 1]).split(5))  # 5, 5, 2
    layers = layers_of(model, x)
    whole = Taylor(model, layers, batches, seeds=[7, 8, 9])
    fits = {layer: some_fits(layer, 0.1) for layer in layers}
    parts = [
        Taylor(model, layers, batches[a:b], seeds=[7, 8, 9][a:b], reference=whole.reference.part(a, b))
        for a, b in [(0, 2), (2, 3)]
    ]
    for layer in layers:
        joined = torch.cat([p.distortions(layer, fits[layer]) for p in parts], 1)
        torch.testing.assert_close(joined, whole.distortions(layer, fits[layer]), rtol=1e-6, atol=0)


def test_little_memory_gives_the_same_in_more_passes():
    model, x = tiny("vit")
    layers = layers_of(model, x)
    roomy, tight = Taylor(model, layers, [x]), Taylor(model, layers, [x], memory=20_000)
    for layer in layers:
        assert torch.equal(roomy.gradients(layer), tight.gradients(layer))
    assert tight.passes > roomy.passes


def test_threads_may_share_an_estimator_that_does_not_fit_in_memory():
    from concurrent.futures import ThreadPoolExecutor

    model, x = tiny("vit")
    layers = layers_of(model, x)
    wanted = {layer: Taylor(model, layers, [x]).gradients(layer) for layer in layers}
    shared = Taylor(model, layers, [x], memory=1.0)
    with ThreadPoolExecutor(4) as pool:
        for layer, found in zip(layers * 2, pool.map(shared.gradients, layers * 2), strict=True):
            assert torch.equal(found, wanted[layer])


def test_the_model_is_left_as_it_was():
    model, x = tiny("conv")
    model.train()
    for p in list(model.parameters())[::2]:
        p.requires_grad_(False)
    flags = [p.requires_grad for p in model.parameters()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    Taylor(model, layers_of(model, x), [x]).collect()
    assert [p.requires_grad for p in model.parameters()] == flags and all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_root_mean_square_gradients_do_not_depend_on_batching_in_memory():
    model, x = tiny("dict-children")
    layers, batches = layers_of(model, x), list(x.split(1))
    found = rms_gradients(model, layers, batches, probes=2)
    taylor = Taylor(model, layers, batches, probes=2)
    for layer in layers:
        stored = taylor.gradients(layer)[..., : layer.unit.numel].float()
        wanted = stored.square().mean((0, 1)).sqrt().view_as(layer.matrix)
        torch.testing.assert_close(found[layer.unit.name], wanted)
