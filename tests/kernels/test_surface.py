"""Operators with arguments that nobody should give: an error or numbers, and never memory that is not theirs.

``native/tests/run_asan.sh`` runs this file and the neighbours under AddressSanitizer, which sees the first value that
is read or written too far. ``FEWER_SURFACE=2000`` makes more calls than the tests do.
"""

from __future__ import annotations

import os
import random

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fewer.core.errors import FewerError
from fewer.kernels import native, ops
from tests.kernels.test_safety import NAMES, _make

pytestmark = pytest.mark.skipif(not native.available(), reason="the native library is not built")

CALLS = int(os.environ.get("FEWER_SURFACE", "40"))
NUMBERS = (0, 1, -1, 2, 3, 7, 16, 17, 255, 2**28, 2**31 - 1, 2**31, -(2**31), 2**40)


class _Recorded(TorchDispatchMode):
    """Keeps the operators of fewer that are called, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "fewer":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def calls_of(name, monkeypatch) -> list:
    module, x = _make(name)
    with monkeypatch.context() as patched, torch.no_grad(), _Recorded() as recorded:
        patched.setattr(ops, "tracing", lambda x: True)
        module(x)
    assert recorded.calls
    return recorded.calls


def other_tensor(t: Tensor, draw: random.Random) -> Tensor:
    """Another type, shape, size, layout or content; small enough that the right answer would be quick, too."""
    how = draw.randrange(12)
    if how == 0:
        return t.to(draw.choice([torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int64, torch.bool]))
    if how == 1:
        return t[: draw.randrange(len(t) + 1)] if t.ndim else t[None]
    if how == 2:
        return torch.cat([t, t]) if t.ndim else t
    if how == 3:
        return t.flatten()
    if how == 4:
        return t[None]
    if how == 5:
        return t.transpose(0, -1) if t.ndim else t
    if how == 6:
        return torch.stack([t, t], -1)[..., 0]  # other strides
    if how == 7:
        return t.to("meta")
    if how == 8:
        return t[..., :0]
    if how == 9:
        return t.to_sparse() if t.is_floating_point() and t.ndim else t
    changed = t.clone()
    if changed.numel():
        flat = changed.view(-1)
        value = draw.choice(NUMBERS) if not t.is_floating_point() else draw.choice([float("nan"), float("inf"), 1e38])
        top = 1 if t.dtype == torch.bool else (torch.iinfo(t.dtype).max if not t.is_floating_point() else 0)
        flat[draw.randrange(len(flat))] = max(-top, min(top, value)) if top else value
    return changed


def other(value, draw: random.Random):
    if isinstance(value, Tensor):
        return other_tensor(value, draw)
    if isinstance(value, (list, tuple)):
        value = list(value)
        how = draw.random()
        if how < 0.15:
            return value[:-1]
        if how < 0.25:
            return [*value, *value[-1:]]
        if value:
            at = draw.randrange(len(value))
            value[at] = other(value[at], draw)
        return value
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return draw.choice([value + 1, value - 1, value * 2, draw.choice(NUMBERS)])
    return draw.choice([0.0, -1.0, float("nan"), float("inf"), 1e300]) if isinstance(value, float) else value


@pytest.mark.parametrize("name", NAMES)
def test_operators_survive_whatever_they_are_given(name, monkeypatch):
    for number in range(CALLS):
        draw = random.Random(f"{name} {number}")
        func, args = draw.choice(calls_of(name, monkeypatch))
        with torch.no_grad():
            try:
                for _ in range(draw.choice([1, 1, 2])):
                    at = draw.randrange(len(args))
                    args = (*args[:at], other(args[at], draw), *args[at + 1 :])
                found = func(*args)
            except (FewerError, RuntimeError, NotImplementedError, TypeError, ValueError, IndexError):
                continue  # torch's own checks of the schema come first
        assert isinstance(found, Tensor)
