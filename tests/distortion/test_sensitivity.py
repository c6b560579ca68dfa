"""Sensitivity against the explicit Jacobian."""

from itertools import product

import pytest
import torch
from torch import nn

import fewer.distortion.sensitivity as room
from fewer.distortion.sensitivity import output_sensitivity
from fewer.models.layers import find_layers
from fewer.models.matching import match
from tests.tiny import TINY, tiny


def layers_of(model, x):
    return list(find_layers(model, match(model, x[:1]).units, x[:1]).values())


def test_all_sign_vectors_give_the_diagonal_of_the_jacobian_product(monkeypatch):
    """Over every sign vector the mean square of ``r^T J`` is the column energy of J, sample by sample."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 2)).eval()
    x = torch.randn(3, 5)
    every = iter(list(product([0, 1], repeat=2)) * len(x))
    monkeypatch.setattr(room.torch, "randint", lambda _a, _b, shape, generator=None: torch.tensor([next(every)]))
    found = output_sensitivity(model, layers_of(model, x), list(x.split(1)), probes=4)
    hidden = model[0](x).detach()
    jacobian = torch.stack([torch.autograd.functional.jacobian(model[1:], h) for h in hidden])  # (3, 2, 6)
    wanted = jacobian.square().sum((0, 1))
    torch.testing.assert_close(found["0"], wanted / wanted.mean())
    torch.testing.assert_close(found["2"], torch.ones(2))


@pytest.mark.parametrize("name", sorted(TINY))
def test_every_kind_of_net_has_one_number_per_row_and_stays_as_it_was(name):
    model, x = tiny(name)
    model.train()
    flags = [p.requires_grad for p in model.parameters()]
    state = {k: v.clone() for k, v in model.state_dict().items()}
    layers = layers_of(model, x)
    found = output_sensitivity(model, layers, [x])
    for layer in layers:
        values = found[layer.unit.name]
        assert values.shape == (layer.unit.rows,) and bool((values >= 0).all())
        assert float(values.mean()) == pytest.approx(1, rel=1e-4)
    assert [p.requires_grad for p in model.parameters()] == flags and all(m.training for m in model.modules())
    assert not any(m._forward_hooks for m in model.modules())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_a_layer_that_the_output_does_not_feel_counts_all_rows_alike():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    nn.init.zeros_(net[1].weight)
    x = torch.ones(2, 3)
    assert torch.equal(output_sensitivity(net, layers_of(net, x), [x])["0"], torch.ones(4))


def test_a_batchnorm_behind_is_felt():
    net = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2)).eval()
    net[1].running_var.copy_(torch.tensor([1.0, 9.0]))
    x = torch.randn(2, 3, 4, 4)
    found = output_sensitivity(net, layers_of(net, x), [x])["0"]
    torch.testing.assert_close(found[0] / found[1], torch.tensor(9.0), rtol=1e-3, atol=0)


@pytest.mark.parametrize(("activation", "share"), [(nn.ReLU(), 0.5), (nn.GELU(), 0.0), (nn.Identity(), 0.0)])
def test_what_an_activation_hides_is_counted(activation, share):
    torch.manual_seed(0)
    net, x, hidden = nn.Sequential(nn.Linear(8, 64), activation, nn.Linear(64, 3)), torch.randn(20, 8), {}
    output_sensitivity(net, layers_of(net, x), list(x.split(1)), hidden=hidden)
    assert hidden["0"] == pytest.approx(share, abs=0.1) and hidden["2"] == 0.0


def test_a_token_that_nothing_reads_is_not_hidden():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.b(nn.functional.gelu(self.a(x)))[:, 0]

    net, x, hidden = First(), torch.randn(4, 5, 8), {}
    output_sensitivity(net, layers_of(net, x), list(x.split(1)), hidden=hidden)
    assert hidden == {"a": 0.0, "b": 0.0}
