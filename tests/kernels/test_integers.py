"""Native kernels of integer networks against their specification in 64 bits, on every instruction set."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewer.approximate.exponential import table_exp
from fewer.approximate.native import exponential_of
from fewer.approximate.norm import NORMS, channel_shifts
from fewer.approximate.softmax import SOFTMAXES
from fewer.approximate.transformer import INNER
from fewer.core.errors import FewerError
from fewer.kernels import native
from fewer.kernels.integers import (
    Exponential,
    Lookup,
    Scaling,
    has_integer_kernels,
    integer_norm,
    integer_softmax,
    rescaled,
)

pytestmark = pytest.mark.skipif(not has_integer_kernels(), reason="the native library lacks the kernels of integers")


def integers(*shape: int, most: int, seed: int = 0) -> torch.Tensor:
    made = torch.randint(-most, most + 1, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    made.view(-1)[: min(2, made.numel())] = torch.tensor([most, -most], dtype=torch.int32)[: min(2, made.numel())]
    return made


def a_scaling(width: int, shift: int = 20, seed: int = 1) -> Scaling:
    add = integers(width, most=2**27, seed=seed + 1).long()
    return Scaling(integers(width, most=2**23, seed=seed), add, shift)


def applied(x: torch.Tensor, s: Scaling) -> np.ndarray:
    return (x.numpy().astype(np.int64) * s.multiply.numpy() + s.add.numpy()) >> s.shift


@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (2, 513), (65, 384), (9, 1536)])
def test_rescaling_to_bytes_by_a_table_and_onto_a_residual(each_isa, shape) -> None:
    torch.set_num_threads(2)
    x, s = integers(*shape, most=2**22), a_scaling(shape[1])
    wanted = applied(x, s)
    assert np.array_equal(rescaled(x, s).numpy(), wanted.clip(-127, 127))
    table, residual = integers(700, most=127).to(torch.int8), integers(*shape, most=2**22, seed=5)
    found = rescaled(x, s, lookup=Lookup(table, -300)).numpy()
    assert np.array_equal(found, table.numpy()[wanted.clip(-300, 399) + 300])
    total = rescaled(x, Scaling(s.multiply, s.add, 24), residual=residual)
    assert np.array_equal(total.numpy(), applied(x, Scaling(s.multiply, s.add, 24)) + residual.numpy())


@pytest.mark.parametrize("method", ["table", "polynomial", "shift"])
@pytest.mark.parametrize("width", [1, 5, 65, 257, 1025])
def test_softmax_is_that_of_the_specification(each_isa, method: str, width: int) -> None:
    heads, tokens = 3, 4
    x = integers(2 * heads * tokens, width, most=127 * 127 * 64, seed=width)
    s = Scaling(torch.tensor([90_000, 4_000, 1], dtype=torch.int32), torch.tensor([7, -9, 0]), 17)
    logits = (x.numpy().astype(np.int64).reshape(2, heads, tokens, width) * s.multiply.numpy()[:, None, None]) + (
        s.add.numpy()[:, None, None]
    )
    wanted, _ = SOFTMAXES[method].run(logits >> 17, INNER, None)
    exponential = exponential_of(method)
    assert exponential is not None
    for one in (exponential, Exponential(exponential.table)):  # by lines where there are any, and by the table
        found = integer_softmax(x, s, one, tokens)
        assert np.array_equal(found.numpy().astype(np.int64), wanted.reshape(-1, width))


def test_the_lines_and_the_table_of_an_exponential_are_one_function() -> None:
    exponential = exponential_of("table")
    assert exponential is not None and exponential.halving
    below = np.arange(len(exponential.table))
    assert np.array_equal(exponential.table.numpy(), table_exp(-below, INNER)[0])
    assert exponential_of("log2") is None


@pytest.mark.parametrize("halving", [4, 7, 710, 4099, 2**15 - 1, 2**15])
def test_lines_are_exact_for_every_distance(each_isa, halving: int) -> None:
    """Quotients are made in single precision, which just suffices for the largest halving."""
    slopes = torch.tensor([min(1 << 21, (1 << 20) // halving * (200 - 20 * k)) for k in range(4)], dtype=torch.int32)
    starts = torch.tensor([(1 << 20) - 1000 * k for k in range(4)], dtype=torch.int32)
    below = np.arange(30 * halving + 1)
    left = below % halving
    line = ((slopes.numpy().astype(np.int64)[left * 4 // halving] * -left) >> 8) + starts.numpy()[left * 4 // halving]
    wanted = line.clip(0, 1 << 20) >> (below // halving)
    table = torch.from_numpy(wanted.astype(np.int32))
    edges = [k * halving // 4 + d for k in range(121) for d in (-1, 0, 1)]
    ends = torch.tensor([e for e in edges if 0 <= e <= 30 * halving], dtype=torch.int32)
    x = 0 - torch.stack([torch.zeros_like(ends), ends], 1)  # the largest, and one that is below it
    one = Scaling(torch.ones(1, dtype=torch.int32), torch.zeros(1, dtype=torch.int64), 0)
    found = integer_softmax(x, one, Exponential(table, halving, slopes, starts), 1).numpy().astype(np.int64)
    e = np.stack([np.full(len(ends), wanted[0]), wanted[ends.numpy()]], 1)
    assert np.array_equal(found, ((e << 16) // e.sum(1, keepdims=True)).clip(0, 65535))


@pytest.mark.parametrize("width", [1, 2, 7, 384, 1000])
@pytest.mark.parametrize("size", [1, 300, 2**21, 2**22])
def test_norms_are_those_of_the_specification(each_isa, width: int, size: int) -> None:
    x, s = integers(11, width, most=size, seed=width), a_scaling(width, 22)
    x[3] = 5  # a row without any deviation
    rows = x.numpy().astype(np.int64)
    spans = np.linspace(1, 2 * size, width)
    powers = torch.from_numpy(channel_shifts(spans, 1.0).astype(np.int32))
    for name, more in (
        ("layer-norm", {}),
        ("rms-norm", {"centre": False}),
        ("factor-layer-norm", {"powers": powers}),
    ):
        y, _ = NORMS[name].run(rows, 1.0, spans)
        wanted = (y * s.multiply.numpy() + s.add.numpy()) >> s.shift
        assert np.array_equal(integer_norm(x, s, **more).numpy(), wanted.clip(-127, 127)), name
        assert np.array_equal(integer_norm(x, s, wide=True, **more).numpy(), wanted), name


def test_what_does_not_fit_is_refused() -> None:
    x, s = integers(2, 8, most=99), a_scaling(8)
    for bad in (
        lambda: rescaled(x.long(), s),
        lambda: rescaled(x, a_scaling(7)),
        lambda: rescaled(x, Scaling(s.multiply, s.add, 63)),
        lambda: rescaled(x, Scaling(s.multiply.long(), s.add, 3)),
        lambda: rescaled(x, s, lookup=Lookup(torch.zeros(0, dtype=torch.int8), 0)),
        lambda: rescaled(x, s, lookup=Lookup(torch.zeros(4, dtype=torch.int8), 2**31 - 2)),
        lambda: rescaled(x, s, residual=integers(2, 7, most=3)),
        lambda: rescaled(x[0], s),
        lambda: integer_softmax(x, s, Exponential(torch.zeros(3, dtype=torch.int32)), 1),
        lambda: integer_softmax(x, s, Exponential(torch.tensor([3, -1], dtype=torch.int32)), 1),
        lambda: integer_softmax(x, s, Exponential(torch.tensor([3, 1], dtype=torch.int32)), 0),
        lambda: integer_softmax(x, s, Exponential(torch.tensor([3, 1], dtype=torch.int32), 700), 1),
        lambda: integer_norm(x, s, powers=torch.full((8,), 16, dtype=torch.int32)),
        lambda: integer_norm(x, s, powers=torch.zeros(7, dtype=torch.int32)),
        lambda: integer_norm(integers(1, 2**16 + 1, most=3), a_scaling(2**16 + 1)),
    ):
        with pytest.raises(FewerError):
            bad()
    assert rescaled(integers(0, 8, most=3), s).shape == (0, 8)


def test_a_library_of_before_is_of_use_without_them(monkeypatch) -> None:
    monkeypatch.setattr(native.library(), "integers", {})
    assert not has_integer_kernels()
    with pytest.raises(FewerError, match="build it again"):
        rescaled(integers(2, 8, most=9), a_scaling(8))
