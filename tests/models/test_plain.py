"""A copy that may be run: the caller's module stays bit for bit as it was, and weights become plain parameters."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from fewer.core.errors import FewerError
from fewer.models.guard import Guard, guard, unguard
from fewer.models.plain import fold_weights, own_copy
from fewer.models.running import call, input_dtype

FORMS = {
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
    "parametrizations.weight_norm": parametrizations.weight_norm,
    "parametrizations.spectral_norm": parametrizations.spectral_norm,
    "parametrizations.orthogonal": parametrizations.orthogonal,
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
}


def _net(form: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(FORMS[form](nn.Linear(6, 6)), nn.ReLU(), nn.Linear(6, 2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_computed_weights_are_folded_in_the_copy_alone(form: str, used: bool) -> None:
    net, x = _net(form), torch.randn(3, 6)
    if used:
        net(x).sum().backward()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    twin = own_copy(net)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert net.training and twin.training
    assert type(twin[0]) is nn.Linear and isinstance(twin[0].weight, nn.Parameter)
    assert not parametrize.is_parametrized(twin)
    copy.deepcopy(twin)
    torch.testing.assert_close(twin.eval()(x), net.eval()(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_a_folded_architecture_takes_the_state_of_a_folded_model(form: str) -> None:
    saved, fresh = own_copy(_net(form)), _net(form).eval()
    assert fold_weights(fresh) == ["0"]
    fresh.load_state_dict(saved.state_dict(), strict=True)


def test_what_cannot_be_copied_is_refused_in_a_sentence() -> None:
    net = nn.Linear(2, 2)
    net.lock = __import__("threading").Lock()  # type: ignore[assignment]
    with pytest.raises(FewerError, match="cannot be copied"):
        own_copy(net)


class Counts(nn.Module):
    """Writes into its input, into a buffer and into a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 2)
        self.register_buffer("seen", torch.zeros(()))
        self.last = torch.zeros(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        self.last = x[:1].detach() * 1
        return self.body(x.mul_(2)) + self.seen


def test_a_guarded_model_answers_alike_and_keeps_no_trace() -> None:
    net, x = Counts(), torch.ones(3, 4)
    kept = x.clone()
    guard(net, inputs=True, state={("", "seen"): net.seen, ("", "last"): net.last})
    twin = copy.deepcopy(net)
    assert torch.equal(net(x), net(x)) and torch.equal(twin(x), net(x)) and torch.equal(x, kept)
    unguard(net)
    assert float(net.seen) == 0 and torch.equal(net.last, torch.zeros(1))
    assert not any(isinstance(hook, Guard) for hook in net._forward_pre_hooks.values())


def test_a_call_hands_out_a_copy_of_its_example() -> None:
    x = torch.ones(2, 4)
    call(Counts(), x, lambda model, batch: model(batch))
    assert torch.equal(x, torch.ones(2, 4))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_input_has_the_type_of_the_weights(dtype: torch.dtype) -> None:
    assert input_dtype(nn.Linear(2, 1).to(dtype), torch.zeros(1, 2)) == dtype


def test_a_mixed_model_takes_what_it_runs_on() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.body = nn.Linear(4, 2).bfloat16(), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.body(x).bfloat16())

    assert input_dtype(Mixed(), torch.zeros(1, 4)) == torch.float32
