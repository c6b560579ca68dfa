"""What a network makes of an input alone, whatever its weights: kept while many copies of it see the same inputs.

A detector of LiDAR scans sorts points into cells, writes rulebooks and looks for neighbours before a weight matters,
which is a third of its time. While a network is compressed its copies see the same few scans again and again. A network
takes part by asking :func:`remembered` in its forward pass. Outside :func:`remembering`, and wherever something is
timed (:func:`made_anew`), everything is made anew.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

__all__ = ["Facts", "made_anew", "remembered", "remembering"]

T = TypeVar("T")

_MOST = 256 * 2**20
"""Bytes that are kept."""


class Facts:
    """What is known of one input, by name.

    Examples
    --------
    >>> facts = Facts()
    >>> facts.once("sum", lambda: 1 + 1), facts.once("sum", lambda: 0)
    (2, 2)
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, Any] = {}
        self.size = 0

    def once(self, name: Hashable, make: Callable[[], T]) -> T:
        """What is known under a name; made if nothing is.

        It is made without gradients, and as tensors that later passes with gradients may use.
        """
        if name not in self._known:
            with torch.inference_mode(False), torch.no_grad():
                found = make()
            self._known[name] = found
            self.size += _bytes(found)
        return self._known[name]

    def weigh(self) -> None:
        """Count the bytes again, after something was put into what is known."""
        self.size = _bytes(self._known)


class _Memory:
    def __init__(self, most: int) -> None:
        self._most, self._known, self._lock = most, OrderedDict[Hashable, Facts](), threading.Lock()

    def of(self, key: Hashable) -> Facts:
        with self._lock:
            found = self._known.setdefault(key, Facts())
            self._known.move_to_end(key)
            total = sum(facts.size for facts in self._known.values())
            while total > self._most and len(self._known) > 1:
                total -= self._known.popitem(last=False)[1].size
            return found


_active: _Memory | None = None
_timed = 0


@contextmanager
def remembering(most: int = _MOST) -> Iterator[None]:
    """Keep what networks make of their inputs alone, up to some bytes; what was used longest ago goes first.

    Examples
    --------
    >>> x = torch.ones(2)
    >>> with remembering():
    ...     remembered((x,)).once("n", lambda: 1), remembered((x.clone(),)).once("n", lambda: 2)
    (1, 1)
    >>> remembered((x,)).once("n", lambda: 3)
    3
    """
    global _active
    before, _active = _active, _active or _Memory(most)
    try:
        yield
    finally:
        _active = before


@contextmanager
def made_anew() -> Iterator[None]:
    """Remember nothing in here, as a user's own call does; for what is timed."""
    global _timed
    _timed += 1
    try:
        yield
    finally:
        _timed -= 1


def remembered(inputs: Sequence[Tensor], *more: Hashable) -> Facts:
    """What is known of some inputs: of their values, wherever they lie.

    Parameters
    ----------
    inputs
        Tensors; those that need a gradient are not remembered.
    more
        Whatever else the facts depend on.
    """
    memory = _active
    if memory is None or _timed or any(one.requires_grad for one in inputs):
        return Facts()
    digest = hashlib.blake2b(digest_size=16)
    for one in inputs:
        raw = one.detach().cpu().contiguous().reshape(-1).view(torch.uint8)  # numpy has no bf16
        digest.update(f"{tuple(one.shape)} {one.dtype} {one.device}".encode())
        digest.update(raw.numpy().tobytes())
    return memory.of((digest.digest(), *more))


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, (tuple, list)):
        return sum(_bytes(one) for one in value)
    if isinstance(value, dict):
        return sum(_bytes(one) for one in value.values())
    if is_dataclass(value) and not isinstance(value, type):
        return sum(_bytes(getattr(value, field.name)) for field in fields(value))
    return 0
