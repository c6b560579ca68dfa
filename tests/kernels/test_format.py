"""Packing is exact, and a damaged packed weight is one clear error."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fewer.core.errors import FewerError
from fewer.kernels.format import UNIT, best_width, from_tensors, pack, stored_mask, unpack

from .conftest import PRECISIONS, block_mask

SHAPES = [(1, 1), (16, 16), (17, 5), (100, 37), (33, 130), (64, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", [1, 2, 4, 16, None])
def test_fp32_round_trip_is_exact(shape, width):
    generator = torch.Generator().manual_seed(shape[0] * 1000 + shape[1])
    weight = torch.randn(shape, generator=generator)
    mask = torch.rand(shape, generator=generator) > 0.6
    assert torch.equal(unpack(pack(weight, mask, width=width)), torch.where(mask, weight, 0.0))


@pytest.mark.parametrize("shape", SHAPES)
def test_low_precision_round_trip_is_the_rounded_weight(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(unpack(pack(weight, precision="bf16")), weight.bfloat16().float())
    step = weight.abs().amax(1, keepdim=True) / 64
    error = (unpack(pack(weight, precision="int8")) - weight).abs()
    assert bool((error <= 0.5001 * step).all())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_only_blocks_with_a_kept_weight_are_stored(precision):
    generator = torch.Generator().manual_seed(3)
    mask = block_mask(96, 64, 32, 16, 0.5, generator)
    packed = pack(torch.randn(96, 64, generator=generator), mask, precision=precision, width=16)
    assert torch.equal(stored_mask(packed), mask)
    assert packed.density == pytest.approx(mask.float().mean().item())


def test_empty_and_full_masks():
    weight = torch.ones(32, 32)
    assert pack(weight, torch.zeros(32, 32, dtype=torch.bool)).blocks == 0
    assert bool((unpack(pack(weight, torch.zeros(32, 32, dtype=torch.bool))) == 0).all())
    assert pack(weight).density == 1


def test_a_pruned_infinity_is_zero():
    weight = torch.ones(16, 4)
    weight[0, 0] = torch.inf
    mask = torch.ones(16, 4, dtype=torch.bool)
    mask[0, 0] = False
    assert bool(torch.isfinite(unpack(pack(weight, mask))).all())
    assert bool(torch.isfinite(unpack(pack(weight, mask, precision="int8"))).all())


def test_best_width_follows_the_mask():
    generator = torch.Generator().manual_seed(0)
    for width in (4, 16):
        assert best_width(block_mask(256, 256, 16, width, 0.7, generator), "fp32") == width
    assert best_width(torch.ones(64, 64, dtype=torch.bool), "int8") == 64
    assert best_width(torch.ones(64, 6, dtype=torch.bool), "fp32") == 2  # 4 does not divide 6


@pytest.mark.parametrize("precision", PRECISIONS)
def test_safetensors_round_trip(tmp_path, precision):
    packed = pack(torch.randn(40, 24), torch.rand(40, 24) > 0.5, precision=precision, bias=torch.randn(40))
    save_file(packed.tensors(), tmp_path / "layer.safetensors")
    meta = json.loads(json.dumps(packed.meta()))
    again = from_tensors(load_file(tmp_path / "layer.safetensors"), meta)
    assert torch.equal(unpack(again), unpack(packed))
    assert torch.equal(again.bias, packed.bias)


def _damage(name, change):
    def apply(tensors, meta):
        tensors[name] = change(tensors[name].clone())

    return apply


def _set(index, value):
    def change(t):
        t[index] = value
        return t

    return change


DAMAGE = {
    "kidx too large": (_damage("kidx", _set(-1, 10**6)), "outside"),
    "kidx negative": (_damage("kidx", _set(0, -1)), "outside"),
    "kidx off the grid": (_damage("kidx", _set(0, 1)), "start on a block"),
    "kidx out of order": (_damage("kidx", lambda t: t.flip(0)), "order"),
    "rowptr falls": (_damage("rowptr", _set(1, 10**6)), "monotone|span"),
    "rowptr start": (_damage("rowptr", _set(0, 1)), "span"),
    "rowptr short": (_damage("rowptr", lambda t: t[:-1]), "rowptr has shape"),
    "rowptr int64": (_damage("rowptr", lambda t: t.long()), "int32"),
    "vals short": (_damage("vals", lambda t: t[:-1]), "vals has shape"),
    "vals dtype": (_damage("vals", lambda t: t.double()), "dtype"),
    "bias short": (_damage("bias", lambda t: t[:-1]), "bias has shape"),
    "scale missing": (lambda tensors, meta: tensors.pop("scale"), "lacks scale"),
    "version": (lambda tensors, meta: meta.update(version=99), "version 99"),
    "shape": (lambda tensors, meta: meta.update(shape=[32]), "shape"),
    "wider": (lambda tensors, meta: meta.update(shape=[4000, 64]), "rowptr has shape"),
    "width": (lambda tensors, meta: meta.update(width=3), "width|vals has shape"),
    "precision": (lambda tensors, meta: meta.update(precision="fp64"), "unknown precision"),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_corrupted_weight_is_one_clear_error(case, precision):
    packed = pack(torch.randn(64, 64), precision=precision, width=2 * UNIT[precision])
    tensors, meta = dict(packed.tensors()), packed.meta()
    damage, words = DAMAGE[case]
    damage(tensors, meta)
    with pytest.raises(FewerError, match=words):
        from_tensors(tensors, meta)


def test_bad_arguments():
    weight = torch.randn(32, 32)
    for arguments, words in [
        ({"mask": torch.ones(32, 32)}, "torch.bool"),
        ({"mask": torch.ones(16, 32, dtype=torch.bool)}, "shape"),
        ({"precision": "fp16"}, "fp32, bf16, int8"),
        ({"precision": "int8", "width": 6}, "multiple of 4"),
        ({"bias": torch.zeros(5)}, "bias"),
    ]:
        with pytest.raises(FewerError, match=words):
            pack(weight, **arguments)
    with pytest.raises(FewerError, match="float matrix"):
        pack(torch.ones(4, 4, dtype=torch.int32))
    with pytest.raises(FewerError, match="NaN or infinity"):
        pack(torch.full((4, 4), torch.nan), precision="int8")


def test_int8_packing_keeps_integers_that_another_rounded():
    torch.manual_seed(0)
    steps = torch.rand(20, 1) + 0.1
    for top in (64, 127):
        values = torch.randint(-top, top + 1, (20, 40)).float()
        values[:, 0] = top
        packed = pack(values * steps, precision="int8")
        torch.testing.assert_close(packed.scale[:20], steps[:, 0])
        assert float(packed.vals.float().abs().max()) == top
        torch.testing.assert_close(unpack(packed), values * steps, rtol=1e-6, atol=0)
