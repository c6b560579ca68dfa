"""A forward pass that pauses: order, exceptions and clean ends."""

import threading

import pytest
import torch
from torch import nn

from fewer.compensate.lockstep import PausedForward


def names(walk: PausedForward) -> list[str]:
    found = []
    while (step := walk.advance()) is not None:
        found.append(step[0])
    return found


def forward_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "fewer-forward"]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Dropout(), nn.Linear(4, 2))


def test_it_gives_every_layers_input_and_the_output():
    model, x = net().train(), torch.randn(3, 4)
    with PausedForward(model, x, {model[0]: "a", model[2]: "b", model[4]: "c"}) as walk:
        assert walk.output is None
        seen = [walk.advance(), walk.advance(), walk.advance()]
        assert walk.advance() is None and walk.advance() is None
    model.eval()
    assert [s[0] for s in seen if s] == ["a", "b", "c"]
    assert torch.equal(seen[0][1], x) and torch.equal(seen[1][1], model[:2](x))
    assert torch.equal(walk.output, model(x)) and not walk.output.requires_grad


def test_a_change_made_in_a_pause_is_seen_by_what_comes_after():
    model, x = net().eval(), torch.randn(3, 4)
    with PausedForward(model, x, {model[0]: "a", model[2]: "b"}) as walk:
        walk.advance()
        with torch.no_grad():
            model[0].weight.zero_()
        step = walk.advance()
    assert step is not None and torch.equal(step[1], model[0].bias.relu().expand(3, 4))


def test_shared_modules_and_shared_names_pause_once():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.a(self.b(input=self.a(x)))

    model = Twice()
    with PausedForward(model, torch.ones(1, 4), {model.a: "a", model.b: "b"}) as walk:
        assert names(walk) == ["a", "b"]
    with PausedForward(model, torch.ones(1, 4), {model.a: "same", model.b: "same"}) as walk:
        assert names(walk) == ["same"]


def test_exceptions_come_back_to_the_caller():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(3, 3))
    with PausedForward(model, torch.ones(1, 4), {model[0]: "a", model[1]: "b"}) as walk:
        walk.advance()
        walk.advance()
        with pytest.raises(RuntimeError, match="shapes"):
            walk.advance()
        with pytest.raises(RuntimeError, match="shapes"):  # and asking again does not hang
            walk.advance()
    assert not forward_threads()


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_leaving_early_ends_the_thread_and_takes_the_hooks_off(steps):
    class Stubborn(nn.Module):
        """Catches every ordinary exception."""

        def __init__(self) -> None:
            super().__init__()
            self.layers = net()

        def forward(self, x):
            for layer in self.layers:
                try:
                    x = layer(x)
                except Exception:
                    continue
            return x

    model = Stubborn().train()
    model.layers[3].eval()
    flags = [m.training for m in model.modules()]
    with pytest.raises(KeyError), PausedForward(model, torch.ones(1, 4), dict.fromkeys(model.layers, "x")) as walk:
        for _ in range(steps):
            walk.advance()
        raise KeyError
    assert not forward_threads()
    assert [m.training for m in model.modules()] == flags
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_two_passes_in_step_leave_the_fused_attention_switch_as_it_was():
    before = torch.backends.mha.get_fastpath_enabled()
    one, two, x = net(), net(), torch.ones(1, 4)
    with PausedForward(one, x, {one[0]: "a"}) as a, PausedForward(two, x, {two[0]: "a"}) as b:
        while a.advance() is not None and b.advance() is not None:
            assert not torch.backends.mha.get_fastpath_enabled()
        b.advance()
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_inputs_may_be_tuples_mappings_or_anything_with_a_forward():
    model = nn.Bilinear(2, 2, 1)
    pair = (torch.ones(1, 2), torch.ones(1, 2))
    for inputs, forward in [
        (pair, None),
        ({"input1": pair[0], "input2": pair[1]}, None),
        ([pair], lambda m, b: m(*b[0])),
    ]:
        with PausedForward(model, inputs, {}, forward) as walk:
            assert walk.advance() is None
        assert torch.equal(walk.output, model(*pair))
