"""What the native library is given is checked here: it reads memory by the sizes that it is told.

A packed weight stays as it was packed: casts that would change its numbers or move them elsewhere are refused, and
buffers that someone replaced or changed are checked again before the next call.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError

__all__ = ["keep_packed", "need", "once", "plain", "sizes", "state_of", "vector"]

_LARGEST = 2**31 - 1  # of a 32-bit integer of the C structs


def need(condition: bool, what: str) -> None:
    """Raise a :class:`FewerError` unless a condition of a kernel holds."""
    if not condition:
        raise FewerError(f"a native kernel was given arguments that do not fit: {what}")


def plain(*tensors: Tensor | None) -> None:
    """Raise a :class:`FewerError` unless tensors are numbers in memory as they mean: dense, and not to be negated.

    ``z.conj().imag`` of a complex tensor is real, and the numbers in its memory have the other sign.

    Examples
    --------
    >>> plain(torch.zeros(3), None)
    >>> plain(torch.zeros(3, dtype=torch.complex64).conj().imag)
    Traceback (most recent call last):
    ...
    fewer.core.errors.FewerError: a native kernel was given arguments that do not fit: a tensor of another kind \
(torch.strided, to be negated); give a copy of it, made with .clone().resolve_neg()
    """
    for tensor in tensors:
        if tensor is not None and (tensor.layout != torch.strided or tensor.is_neg()):
            negated = ", to be negated" if tensor.layout == torch.strided else ""
            need(
                False,
                f"a tensor of another kind ({tensor.layout}{negated}); give a copy of it, made with "
                f"{'.clone().resolve_neg()' if negated else '.to_dense()'}",
            )


def vector(tensor: Tensor, length: int, what: str, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor that a kernel reads as one run of numbers on the CPU, or a :class:`FewerError`.

    Examples
    --------
    >>> vector(torch.zeros(3), 4, "the bias")
    Traceback (most recent call last):
    ...
    fewer.core.errors.FewerError: a native kernel was given arguments that do not fit: the bias has 3 numbers of \
torch.float32 on cpu, not 4 of torch.float32 on the CPU
    """
    good = tensor.dtype == dtype and tensor.is_cpu and tensor.numel() == length
    strided = tensor.layout == torch.strided and not tensor.is_neg()
    if good and strided and tensor.is_contiguous() and tensor.data_ptr() % tensor.element_size() == 0:
        return tensor  # what is almost always so, in a microsecond: rows may take no longer
    plain(tensor)
    need(
        good and tensor.is_contiguous(),
        f"{what} has {tensor.numel()} numbers of {tensor.dtype} on {tensor.device}, not {length} of {dtype} on the CPU"
        + ("" if not good or tensor.is_contiguous() else " that lie side by side"),
    )
    need(False, f"{what} does not begin at a whole number")
    return tensor  # never: the line above raises


def sizes(*values: int | float) -> None:
    """Raise a :class:`FewerError` unless all values fit into the integers and numbers of the C structs."""
    for value in values:
        if not (math.isfinite(value) if isinstance(value, float) else -_LARGEST <= value <= _LARGEST):
            need(False, f"{value} is too large")


def state_of(tensors: Sequence[Tensor]) -> tuple:
    """What changes when a tensor gets other memory, or other numbers in place."""
    return tuple([(t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors])


_seen: dict[int, tuple[tuple, tuple]] = {}


def once(tensors: Sequence[Tensor], facts: tuple, check: Callable[[], None]) -> None:
    """Run a check on tensors unless it was run on these very tensors, which have not changed since.

    Parameters
    ----------
    tensors
        At least one.
    facts
        What the check depends on beside them.
    check
        Raises an error where something is wrong.
    """
    key, state = id(tensors[0]), (facts, state_of(tensors))
    known = _seen.get(key)
    if known is not None and known[1] == state and not [1 for r, t in zip(known[0], tensors) if r() is not t]:  # noqa: B905
        return
    check()
    if len(_seen) > 4096:
        _seen.clear()
    _seen[key] = (tuple(weakref.ref(t) for t in tensors), state)


def keep_packed(module: nn.Module, change: Callable[[Tensor], Tensor], what: str) -> None:
    """Apply ``.to(...)``, ``.half()`` and their like to the buffers of a packed module, or refuse to.

    What leaves numbers and device alone is carried out (``.cpu()``, ``share_memory()``), and ``.float()`` too: it asks
    for single precision outside of the packed weight, which is there already. A memory format means nothing to a packed
    weight.

    Raises
    ------
    FewerError
        For another type, device or size, and for memory that holds no numbers (``to_empty``).
    """
    changed = {}
    for name, buffer in module._buffers.items():
        if buffer is None:
            continue
        new = change(buffer)
        if new is buffer:
            continue
        if new.device != buffer.device:
            raise FewerError(
                f"{what} runs on the CPU and cannot be moved to {new.device}; move the dense model, and pack it there"
            )
        if new.dtype != buffer.dtype and new.dtype == torch.float32 and buffer.is_floating_point():
            continue
        if new.dtype != buffer.dtype or new.shape != buffer.shape:
            raise FewerError(
                f"{what} is packed and cannot be cast to {new.dtype}: cast the dense model and pack it again, with the "
                "precision that you want"
            )
        if not torch.equal(new, buffer):
            raise FewerError(f"{what} is packed, and its numbers cannot be thrown away; load a model in its place")
        if new.is_contiguous():
            changed[name] = new
    module._buffers.update(changed)
