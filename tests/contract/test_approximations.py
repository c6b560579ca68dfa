"""What every integer approximation promises: integers in, integers out, one scale, no trace, and no mind of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fewer.approximate import activation, norm, softmax

ROWS = [
    (row.name, row.run, work[row.name])
    for table, work in (
        (softmax.SOFTMAXES, softmax.WORK),
        (activation.ACTIVATIONS, activation.WORK),
        (norm.NORMS, norm.WORK),
    )
    for row in table.values()
]
SPAN = {"factor-layer-norm": np.full(16, 3.0)}


@pytest.mark.parametrize(("name", "run", "work"), ROWS, ids=[row[0] for row in ROWS])
def test_integers_in_integers_out(name: str, run: Callable, work) -> None:
    q = np.random.default_rng(0).integers(-3000, 3000, (2, 3, 16))
    before = q.copy()
    span = SPAN.get(name, (-3.0, 3.0))
    y, scale = run(q, 2.0**-10, span)
    assert y.dtype == np.int64 and y.shape == q.shape and isinstance(scale, float) and scale > 0
    assert np.array_equal(q, before)
    again, same = run(q, 2.0**-10, span)
    assert np.array_equal(y, again) and scale == same
    # rows do not see each other, and the largest inputs overflow nowhere
    assert np.array_equal(run(q[1:, :1], 2.0**-10, span)[0], y[1:, :1])
    for size in (2**16, 2**20):
        wide, _ = run(np.full((1, 16), size) * np.resize([1, -1], 16), 2.0**-10, span)
        assert np.abs(wide).max() < 2**40
    assert 0 < work.picojoules < 200


@pytest.mark.parametrize(("name", "run", "work"), ROWS, ids=[row[0] for row in ROWS])
def test_the_scale_of_the_input_is_followed(name: str, run: Callable, work) -> None:
    x = np.random.default_rng(1).uniform(-2, 2, (4, 16))
    span = SPAN.get(name, (-2.0, 2.0))
    results = [q * s for q, s in (run(np.rint(x / scale).astype(np.int64), scale, span) for scale in (2**-9, 2**-12))]
    assert np.abs(results[0] - results[1]).max() < (0.5 if name == "log2" else 0.06)
