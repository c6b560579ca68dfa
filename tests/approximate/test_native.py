"""The forward pass on native kernels gives the integers of the specification, whatever stands in the blocks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from fewer.approximate import native
from fewer.approximate.activation import ACTIVATIONS
from fewer.approximate.compile import compile_transformer
from fewer.approximate.native import NativeTransformer, activation_table, native_twin
from fewer.approximate.softmax import SOFTMAXES
from fewer.approximate.transformer import INNER, Choice, IntegerTransformer, run
from fewer.kernels.integers import has_integer_kernels
from fewer.models.vit import VisionTransformer

needed = pytest.mark.skipif(not has_integer_kernels(), reason="the native library lacks the kernels of integers")
GELUS = [name for name in ACTIVATIONS if name.endswith("gelu")]


def made(choices: dict[int, Choice] | None = None, loud: float = 1.0) -> tuple[IntegerTransformer, np.ndarray]:
    torch.manual_seed(0)
    net = VisionTransformer(image_size=32, patch_size=8, width=48, depth=2, heads=3, num_classes=0, layer_scale=0.5)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.2 * loud)
    pixels = torch.randint(0, 256, (3, 3, 32, 32))
    integer = compile_transformer(
        net.eval(), pixels / 255 - 0.5, mean=(0.5,) * 3, std=(1.0,) * 3, choices=choices, smooth=0.3
    )
    return integer, pixels.numpy().astype(np.int64)


@needed
@pytest.mark.parametrize("softmax", SOFTMAXES)
@pytest.mark.parametrize("activation", GELUS)
def test_every_method_gives_the_same_integers(softmax: str, activation: str) -> None:
    norms = itertools.cycle(["layer-norm", "factor-layer-norm"])
    net, pixels = made({i: Choice(softmax, activation, next(norms)) for i in range(2)})
    twin = native_twin(net)
    assert isinstance(twin, NativeTransformer)
    assert np.array_equal(twin(pixels), run(net, pixels))


@needed
@pytest.mark.parametrize("loud", [0.3, 3.0])
def test_also_where_numbers_are_small_or_large(loud: float) -> None:
    net, pixels = made(loud=loud)
    twin = native_twin(net)
    if twin is not None:  # numbers that do not fit are left to the specification
        assert np.array_equal(twin(pixels), run(net, pixels))
    for one in (pixels[:1] * 0, pixels[:1] * 0 + 255):
        assert np.array_equal(net.integers(one), run(net, one))


@needed
def test_the_table_of_an_activation_is_the_activation_everywhere() -> None:
    net, _ = made()
    for name in GELUS:
        block = net.with_choices({0: Choice(activation=name)}).blocks[0]
        lookup = activation_table(block)
        assert lookup is not None
        q = np.concatenate([np.arange(-40_000, 40_000, 7), [-(2**30), 2**30]])
        y, _ = ACTIVATIONS[name].run(q, INNER, block.spans["activation"])
        at = (q - lookup.low).clip(0, len(lookup.table) - 1)
        assert np.array_equal(lookup.table.numpy()[at], block.after_activation(y)), name


def test_without_the_library_the_specification_itself_runs(monkeypatch) -> None:
    monkeypatch.setattr(native, "has_integer_kernels", lambda: False)
    net, pixels = made()
    assert native_twin(net) is None
    assert np.array_equal(net.integers(pixels[:1]), run(net, pixels[:1]))


def test_pixels_that_are_no_bytes_are_left_to_the_specification() -> None:
    net, pixels = made()
    assert np.array_equal(net.integers(pixels[:1] - 20), run(net, pixels[:1] - 20))
