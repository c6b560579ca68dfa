"""Matching of units."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from fewer.core.errors import FewerError
from fewer.models.matching import match
from tests.tiny import TINY, tiny


def units_of(name, **kwargs):
    model, example = tiny(name)
    return {unit.name: unit for unit in match(model, example, **kwargs).units}


@pytest.mark.parametrize("name", TINY)
def test_every_unit_names_a_weight_of_its_shape(name):
    model, example = tiny(name)
    assert sum(p.numel() for p in model.parameters()) < 50_000
    result = match(model, example)
    for unit in result.units:
        assert tuple(model.get_submodule(unit.name).weight.shape) == unit.shape
        for other in result.modules[unit.name]:
            assert model.get_submodule(other).weight is model.get_submodule(unit.name).weight
    assert len({unit.name for unit in result.units}) == len(result.units)
    assert all(s.reason for s in result.skipped)
    assert len(result.table()) == len(result.units) + len(result.skipped)


@pytest.mark.parametrize("name", TINY)
def test_positions_do_not_depend_on_the_batch(name):
    model, example = tiny(name)
    assert match(model, example).units == match(model, example[:1]).units


def test_convolutions_count_pixels_and_groups():
    units = units_of("conv")
    assert list(units) == ["features.0", "features.3", "features.6", "features.9", "head"]
    assert [u.kind for u in units.values()] == ["conv2d"] * 4 + ["linear"]
    assert [u.positions for u in units.values()] == [256, 256, 64, 64, 1]
    assert [u.groups for u in units.values()] == [1, 16, 4, 1, 1]
    # depthwise: 16 channels x 9 taps x 256 pixels
    assert units["features.3"].macs == 16 * 9 * 256


def test_tokens_and_class_token():
    units = units_of("vit")
    assert units["patch_embed.proj"].positions == 4
    assert units["blocks.0.attn.qkv"].positions == 5
    assert units["head"].positions == 1


def test_tied_weights_are_one_unit_with_both_uses_counted():
    model, example = tiny("tied")
    result = match(model, example)
    assert [u.name for u in result.units] == ["first", "head"]
    assert result.units[0].aliases == ("second",)
    assert result.units[0].positions == 2
    assert result.modules["first"] == ["first", "second"]


def test_a_module_called_twice_counts_twice():
    assert units_of("called-twice")["mix"].positions == 2


def test_one_module_under_two_names_is_one_unit():
    shared = nn.Linear(4, 4)
    result = match(nn.Sequential(shared, nn.ReLU(), shared), torch.zeros(3, 4))
    assert [(u.name, u.aliases, u.positions) for u in result.units] == [("0", ("2",), 2.0)]


def test_order_is_that_of_execution():
    assert list(units_of("dict-children")) == ["parts.stem", "parts.body", "parts.head"]


def test_a_layer_that_is_never_called_is_skipped_with_that_reason():
    model, example = tiny("never-called")
    (skipped,) = match(model, example).skipped
    assert skipped.name == "auxiliary"
    assert "never called" in skipped.reason


def test_reasons():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.normed = parametrizations.weight_norm(nn.Linear(8, 8))
            self.embedding = nn.Embedding(10, 8)
            self.decode = nn.Linear(8, 10, bias=False)
            self.decode.weight = self.embedding.weight
            self.up = nn.ConvTranspose1d(8, 8, 2)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.view = nn.Linear(8, 8)
            self.view.weight = nn.Parameter(self.attention.out_proj.weight.data.view(8, 8))
            self.lazy = nn.LazyLinear(3)
            self.table = nn.Parameter(torch.zeros(2, 8))
            self.fine = nn.Linear(8, 8)

        def forward(self, x):
            y = self.attention(x, x, x)[0] + self.view(self.normed(x)) + self.table[0]
            y = self.up(y.transpose(1, 2)).transpose(1, 2)
            return self.decode(self.fine(y)), self.lazy(y)

    model = Odd()
    result = match(model, torch.zeros(2, 5, 8))
    assert [u.name for u in result.units] == ["fine"]
    reasons = {s.name: s.reason for s in result.skipped}
    assert "computed from other tensors" in reasons["normed"]
    assert "shared with embedding (Embedding)" in reasons["decode"]
    assert "ConvTranspose1d is not supported yet" in reasons["up"]
    assert "shares memory with" in reasons["view"]
    assert "shares memory with view.weight" in reasons["attention.out_proj"]
    assert "lazy" in reasons["lazy"]
    assert "belongs to no supported layer" in reasons["attention.in_proj_weight"]
    assert "belongs to no supported layer" in reasons["table"]
    # the forward must not have initialised the user's lazy layer
    assert isinstance(model.lazy.weight, nn.UninitializedParameter)


def test_multihead_attention_and_the_fused_encoder_path():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    result = match(layer, torch.zeros(2, 5, 8))
    assert [(u.name, u.positions) for u in result.units] == [("linear1", 5.0), ("linear2", 5.0)]
    reasons = {s.name: s.reason for s in result.skipped}
    assert "MultiheadAttention" in reasons["self_attn.out_proj"]
    assert torch.backends.mha.get_fastpath_enabled()


def test_integer_weights_are_skipped():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(torch.ones(4, 4, dtype=torch.int8), requires_grad=False)
    result = match(model, torch.zeros(1, 4), forward=lambda m, x: m[0](x))
    assert "int8" in result.skipped[0].reason


def test_exclude():
    model, example = tiny("conv")
    result = match(model, example, exclude=["features.[03]", "head"])
    assert [u.name for u in result.units] == ["features.6", "features.9"]
    assert {s.name for s in result.skipped if "excluded" in s.reason} == {"features.0", "features.3", "head"}


def test_excluding_an_alias_excludes_the_shared_weight():
    model, example = tiny("tied")
    assert [u.name for u in match(model, example, exclude="second").units] == ["head"]


def test_exclude_that_matches_nothing_names_the_nearest_layer():
    model, example = tiny("conv")
    with pytest.raises(FewerError, match=r"'heads' matches no layer.*'head'"):
        match(model, example, exclude="heads")


def test_the_model_is_left_as_it_was():
    model, example = tiny("conv")
    model.train()
    model.features[1].eval()  # a frozen norm inside a training model
    seen = []
    handle = model.head.register_forward_hook(lambda *a: seen.append(1))
    before = copy.deepcopy(model.state_dict())
    hooks = len(model.head._forward_hooks)
    match(model, example)
    assert model.training and not model.features[1].training and model.features[4].training
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert len(model.head._forward_hooks) == hooks and not model.features[0]._forward_hooks
    assert seen == [1]
    handle.remove()


def test_hooks_go_also_when_the_forward_fails():
    model, _ = tiny("conv")
    model.train()
    with pytest.raises(FewerError, match=r"does not run on an example of shape \(1, 5, 16, 16\)"):
        match(model, torch.zeros(1, 5, 16, 16))
    assert all(not m._forward_hooks for m in model.modules()) and model.training


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_weight_is_named(bad):
    model, example = tiny("conv")
    with torch.no_grad():
        model.features[6].weight[0, 0, 0, 0] = bad
    with pytest.raises(FewerError, match=r"features\.6"):
        match(model, example)
    with torch.no_grad():
        assert len(match(model, example, exclude="features.6").units) == 4


def test_no_prunable_layer():
    with pytest.raises(FewerError, match="no prunable layer"):
        match(nn.ReLU(), torch.zeros(1, 3))
    with pytest.raises(FewerError, match="ConvTranspose2d is not supported yet"):
        match(nn.ConvTranspose2d(3, 3, 2), torch.zeros(1, 3, 4, 4))


def test_inputs_as_tuple_mapping_and_own_forward():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 2), nn.Linear(3, 2)

        def forward(self, x, y):
            return self.a(x) + self.b(y)

    x, y = torch.zeros(2, 4), torch.zeros(2, 3)
    assert len(match(Two(), (x, y)).units) == 2
    assert len(match(Two(), {"x": x, "y": y}).units) == 2
    assert len(match(Two(), x, forward=lambda m, t: m(t, y)).units) == 2


def test_meta_models_match_without_weights():
    with torch.device("meta"):
        model, example = nn.Sequential(nn.Linear(4, 2)), torch.zeros(1, 4)
    assert match(model, example).units[0].shape == (2, 4)
