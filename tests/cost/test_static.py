"""Costs from shapes: published numbers, and sums that must agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.cost.static import fixed_costs, other_bytes, other_parameters
from fewer.models.macs import model_macs
from fewer.models.matching import match
from fewer.models.mobilenet import MobileNetV2
from fewer.models.storage import packed_bytes, tile_of
from fewer.models.vit import VisionTransformer
from tests.tiny import TINY, tiny


def meta(make, side=224):
    with torch.device("meta"):
        return make().eval(), torch.zeros(1, 3, side, side)


@pytest.mark.parametrize(
    ("make", "gmacs"),
    [
        # 17.56 and 4.60 GMACs with attention's products: what counters that know them say of DeiT-B/16 and DeiT-S/16
        (lambda: VisionTransformer(width=768, heads=12, num_classes=1000), 17.56),
        (lambda: VisionTransformer(num_classes=1000), 4.60),
        (MobileNetV2, 0.30),  # table 4 of the paper: 300 M
    ],
)
def test_published_macs(make, gmacs):
    model, example = meta(make)
    assert model_macs(model, example) / 1e9 == pytest.approx(gmacs, abs=0.005)


def test_the_fixed_part_of_a_vit_is_its_attention():
    model, example = meta(lambda: VisionTransformer(num_classes=1000))
    fixed = fixed_costs(model, example, match(model, example))
    assert fixed["macs"] == 12 * 2 * 197 * 197 * 384  # two products per block
    assert fixed["flops"] == 2 * fixed["macs"]


def test_attention_is_counted_on_a_real_cpu_model_too():
    kwargs = {"image_size": 32, "width": 48, "depth": 2, "heads": 3}
    model = VisionTransformer(**kwargs).eval()
    real = model_macs(model, torch.zeros(2, 3, 32, 32))
    assert real == model_macs(*meta(lambda: VisionTransformer(**kwargs), 32))


@pytest.mark.parametrize("name", sorted(set(TINY) - {"vit"}))
def test_without_attention_the_units_are_all_there_is(name):
    model, example = tiny(name)
    assert fixed_costs(model, example, match(model, example))["macs"] == 0


def test_a_skipped_layer_is_fixed():
    model, example = tiny("conv")
    whole = model_macs(model, example)
    fixed = fixed_costs(model, example, match(model, example, exclude="features.0"))
    assert fixed["macs"] == 3 * 16 * 9 * 256
    assert whole == fixed["macs"] + sum(u.macs for u in match(model, example, exclude="features.0").units)


@pytest.mark.parametrize("name", TINY)
def test_parameters_add_up(name):
    model, example = tiny(name)
    result = match(model, example)
    total = sum(p.numel() for p in model.parameters())
    assert other_parameters(model, result) + sum(u.numel for u in result.units) == total
    # all state but the units, and a header of some 100 bytes per tensor
    state = sum(t.nbytes for t in {id(t): t for t in model.state_dict(keep_vars=True).values()}.values())
    rest = state - 4 * sum(u.numel for u in result.units)
    assert rest < other_bytes(model, result) < rest + 200 * (len(model.state_dict()) + 2) + 100


def test_batch_norm_statistics_are_not_disturbed():
    model, example = tiny("conv")
    model.train()
    before = model.features[1].running_mean.clone()
    model_macs(model, example)
    assert torch.equal(before, model.features[1].running_mean) and model.training


def test_lazy_models_are_not_initialised():
    model = nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(2))
    assert model_macs(model, torch.zeros(1, 4)) == 16 + 8
    assert isinstance(model[1].weight, nn.UninitializedParameter)


def test_packed_bytes():
    assert packed_bytes((64, 64), "dense", 64 * 64) == 64 * 64 * 4
    assert packed_bytes((64, 64), "unstructured", 0) == 64 * 64 // 8
    assert packed_bytes((10, 10), "block:16x4", 40) == 40 * 4 + 1  # one row of three ragged tiles
    assert packed_bytes((64, 64), "nm:2:4", 2048, itemsize=2) == 2048 * 2 + 512
    with pytest.raises(FewerError, match="cannot keep 17 of its 16"):
        packed_bytes((4, 4), "unstructured", 17)
    for bad in ("block", "block:0x4", "block:4", "nm:2", "2:4", ""):
        with pytest.raises(FewerError, match="unknown pattern"):
            tile_of(bad)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("packed", [False, True])
def test_the_work_of_recurrent_layers_counts(kind: type, packed: bool) -> None:
    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = kind(8, 4, num_layers=2, bidirectional=True, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            given = x
            if packed:
                lengths = torch.full((len(x),), x.shape[1])
                given = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            out, _ = self.rnn(given)
            if packed:
                out, _ = nn.utils.rnn.pad_packed_sequence(out, batch_first=True)
            return self.head(out)

    gates = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}[kind]
    # by hand: five steps, two directions, a first layer of 8 inputs and a second one of 2 x 4
    recurrent = 5 * 2 * gates * 4 * ((8 + 4) + (8 + 4))
    assert model_macs(Reader(), torch.randn(3, 5, 8)) == recurrent + 5 * 8 * 3
