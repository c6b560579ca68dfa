"""Places of functions in a model, found and given to integers, without a change of its structure."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewer.approximate.sites import approximate, approximated, approximations_of, choices_of, find_sites, methods_for
from fewer.core.errors import FewerError
from fewer.models.vit import VisionTransformer


def a_vit() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return VisionTransformer(16, 4, width=16, depth=2, heads=2).eval(), torch.randn(2, 3, 16, 16)


class Several(nn.Module):
    """Functions that are called in all the ways that networks call them."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(8, 2, 16, activation=F.gelu, batch_first=True)
        self.act = nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.act(self.encoder(x)), dim=1)


def test_every_call_is_found_in_its_module() -> None:
    net, x = a_vit()
    found = {(s.name, s.function): s.numbers for s in find_sites(net, lambda m: m(x))}
    assert found["blocks.0.attn", "softmax"] == 2 * 2 * 17 * 17
    assert found["blocks.1.norm2", "layer-norm"] == 2 * 17 * 16
    assert sum(function == "gelu" for _, function in found) == 2 and ("norm", "layer-norm") in found
    other = {(s.name, s.function) for s in find_sites(Several().eval(), lambda m: m(torch.randn(2, 5, 8)))}
    assert {("act", "silu"), ("encoder", "gelu"), ("", "softmax"), ("encoder.self_attn", "softmax")} <= other
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("make", [a_vit, lambda: (Several().eval(), torch.randn(2, 5, 8))])
def test_integers_at_every_place_stay_near_and_one_place_changes_less(make) -> None:
    net, x = make()
    with torch.no_grad():
        before = net(x)
        sites = find_sites(net, lambda m: m(x))
        choices: dict[str, dict[str, str]] = {}
        for site in sites:
            choices.setdefault(site.name, {})[site.kind] = methods_for(site)[0]
        with approximated(net, choices) as changed:
            after = changed(x)
        assert 0 < float((after - before).abs().max()) < 0.05
        assert torch.equal(net(x), before) and approximations_of(net) == {}
        for site in sites:
            with approximated(net, {site.name: {site.kind: methods_for(site)[-1]}}):
                assert not torch.equal(net(x), before), site


def test_names_copies_and_errors_inside_leave_it_in_order() -> None:
    net, x = a_vit()
    names = list(net.state_dict())
    choices = {"blocks.0.attn": {"softmax": "shift"}, "norm": {"norm": "layer-norm"}}
    made = approximate(copy.deepcopy(net), choices)
    assert list(made.state_dict()) == names and approximations_of(made) == choices
    again = copy.deepcopy(made)
    with torch.no_grad():
        assert torch.equal(again(x), made(x)) and not torch.equal(made(x), net(x))
        with pytest.raises(RuntimeError):
            made(torch.randn(1, 5, 16, 16))
        assert torch.equal(again(x), made(x))
        assert F.softmax(torch.zeros(3), -1).tolist() == pytest.approx([1 / 3] * 3, abs=1e-7)
    assert torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(FewerError, match="integers already"):
        approximate(made, choices)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"nowhere": {"softmax": "table"}}, "no module 'nowhere'"),
        ({"norm": {"soft": "table"}}, "no kind of function"),
        ({"norm": {"norm": "layer-nrom"}}, "layer-norm"),
    ],
)
def test_what_there_is_not_is_told(choices: dict, words: str) -> None:
    net, _ = a_vit()
    with pytest.raises(FewerError, match=words):
        approximate(net, choices)
    assert approximations_of(net) == {}


class Both(nn.Module):
    """Two activations and two norms in one forward pass, around a module with an activation of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 6), nn.GELU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gated = F.silu(x) * F.gelu(self.inner(F.layer_norm(x, (6,))))
        return F.rms_norm(gated, (6,))


def test_two_functions_of_a_kind_in_one_module_have_a_method_each() -> None:
    torch.manual_seed(0)
    net, x = Both().eval(), torch.randn(3, 6)
    sites = find_sites(net, lambda m: m(x))
    assert {(s.name, s.function) for s in sites} == {
        ("", "silu"), ("", "gelu"), ("", "layer-norm"), ("", "rms-norm"), ("inner.1", "gelu")
    }  # fmt: skip
    assert methods_for(next(s for s in sites if s.function == "rms-norm")) == ["rms-norm"]
    choices = choices_of(sites, [methods_for(s)[0] for s in sites])
    assert choices[""] == {
        "silu": "table-silu", "gelu": "table-gelu", "layer-norm": "layer-norm", "rms-norm": "rms-norm"
    }  # fmt: skip
    with torch.no_grad():
        before = net(x)
        with approximated(net, choices) as changed:
            assert 0 < float((changed(x) - before).abs().max()) < 0.05
        assert torch.equal(net(x), before)


def test_a_place_does_not_reach_into_the_modules_within() -> None:
    torch.manual_seed(0)
    net, x = Both().eval(), torch.randn(3, 6)
    with torch.no_grad():
        inside = net.inner(x)
        seen: list[torch.Tensor] = []
        net.inner.register_forward_hook(lambda _m, _x, y: seen.append(y))
        net(x)
        with approximated(net, {"": {"gelu": "shift-gelu"}}):
            net(x)
    assert torch.equal(seen[0], seen[1]) and inside.shape == x.shape
    assert len(net.inner._forward_hooks) == 1
