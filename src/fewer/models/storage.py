"""How many bytes a weight takes in an artefact. Pure arithmetic: no torch, and exactly what the artefact writes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable

from fewer.core.errors import FewerError
from fewer.core.precision import precision_of

_BLOCK = re.compile(r"^block:([1-9]\d*)x([1-9]\d*)$")
_ENTRY = 96  # bytes that one more tensor takes in the header, at most, beside its unit's name

_NM = re.compile(r"^nm:([1-9]\d*):([1-9]\d*)$")
_LINES = re.compile(r"^(columns:[1-9]\d*(x[1-9]\d*)?(:[1-9]\d*(\+[1-9]\d*)+)?|(rows|reads):[1-9]\d*)$")


def tile_of(pattern: str) -> tuple[int, int]:
    """Height and width of the group of weights that one mask bit stands for.

    Parameters
    ----------
    pattern : str
        ``dense``, ``unstructured``, ``block:HxW`` or ``nm:N:M``.

    Raises
    ------
    FewerError
        For any other string.

    Examples
    --------
    >>> tile_of("block:16x4"), tile_of("nm:2:4")
    ((16, 4), (1, 1))
    """
    if found := _BLOCK.match(pattern):
        return int(found[1]), int(found[2])
    if pattern in ("dense", "unstructured") or _NM.match(pattern) or _LINES.match(pattern):
        return 1, 1
    raise FewerError(
        f"unknown pattern {pattern!r}; write dense, unstructured, block:HxW (block:16x4) or nm:N:M (nm:2:4)"
    )


def mask_bytes(shape: tuple[int, ...], pattern: str) -> int:
    """Bytes of a weight's mask packed to bits: one bit per weight, or per tile of the [out, rest] matrix.

    Examples
    --------
    >>> mask_bytes((384, 384), "unstructured"), mask_bytes((384, 384), "block:16x4")
    (18432, 288)
    """
    height, width = tile_of(pattern)
    rows = shape[0]
    cols = math.prod(shape[1:])
    return math.ceil(math.ceil(rows / height) * math.ceil(cols / width) / 8)


def packed_bytes(
    shape: tuple[int, ...], pattern: str, kept: int, itemsize: int = 4, precision: str = "fp32", name: str = ""
) -> int:
    """Bytes that a weight takes in ``model.safetensors``: kept values and mask, or dense where that is not larger.

    Parameters
    ----------
    shape : tuple of int
        Weight shape (out, in / groups, kernel sizes).
    pattern : str
        ``dense``, ``unstructured``, ``block:HxW`` or ``nm:N:M``.
    kept : int
        Weights that are kept, counted one by one (also for blocks, whose tiles may be ragged at the edges).
    itemsize : int
        Bytes of one value as the model came; 4 for fp32.
    precision : str
        ``bf16`` and ``fp16`` take two bytes for a value; ``int8`` one and ``int4`` a half, and a scale for each row.
    name : str
        Of the unit; scales have an entry with it in the file's header.

    Returns
    -------
    int
        Payload in bytes; the file's header is :func:`header_bytes`.

    Raises
    ------
    FewerError
        For an unknown pattern or an impossible count.

    Examples
    --------
    >>> packed_bytes((384, 384), "unstructured", 384 * 384 // 2)
    313344
    >>> packed_bytes((384, 384), "unstructured", 384 * 384)  # nothing pruned: dense
    589824
    """
    numel = math.prod(shape)
    if not 0 <= kept <= numel:
        raise FewerError(f"a weight of shape {shape} cannot keep {kept} of its {numel} entries")
    dense, scales = value_bytes(numel, precision, itemsize), scale_bytes(shape, precision, name)
    if pattern == "dense":
        return dense + scales
    if _LINES.match(pattern):  # a smaller matrix, dense again
        return value_bytes(kept, precision, itemsize) + scales
    return min(dense, value_bytes(kept, precision, itemsize) + mask_bytes(shape, pattern)) + scales


def value_bytes(count: int, precision: str, itemsize: int = 4) -> int:
    """Bytes of so many values; never more than the model's own take.

    Examples
    --------
    >>> value_bytes(5, "fp32"), value_bytes(5, "bf16"), value_bytes(5, "int8"), value_bytes(5, "int4")
    (20, 10, 5, 3)
    """
    bits = 8 * itemsize if precision == "fp32" else precision_of(precision).bits
    return math.ceil(count * min(bits, 8 * itemsize) / 8)


def scale_bytes(shape: tuple[int, ...], precision: str, name: str = "") -> int:
    """Bytes of the scales of an integer format, and of their entry in the file's header.

    Examples
    --------
    >>> scale_bytes((384, 384), "fp32"), scale_bytes((384, 384), "int8")
    (0, 1632)
    """
    return 4 * shape[0] + _ENTRY + len(name) if precision_of(precision).is_integer else 0


def is_packed(shape: tuple[int, ...], pattern: str, kept: int, itemsize: int = 4, precision: str = "fp32") -> bool:
    """Whether a weight is stored as kept values and a mask rather than dense.

    Examples
    --------
    >>> is_packed((8, 8), "unstructured", 32), is_packed((8, 8), "unstructured", 63)
    (True, False)
    """
    dense = packed_bytes(shape, "dense", math.prod(shape), itemsize, precision)
    return packed_bytes(shape, pattern, kept, itemsize, precision) < dense


def header_bytes(tensors: Iterable[tuple[str, tuple[int, ...]]]) -> int:
    """Upper bound, tight to a few bytes per tensor, of the header of a safetensors file.

    Parameters
    ----------
    tensors : iterable of (name, shape)
        What the file holds.

    Examples
    --------
    >>> 90 < header_bytes([("weight", (384, 384))]) < 200
    True
    """
    widest = 10**10  # offsets up to ten digits
    described = {
        name: {"dtype": "BF16", "shape": list(shape), "data_offsets": [widest, widest]} for name, shape in tensors
    }
    header = {"__metadata__": {"format": "pt"}, **described}
    # an 8-byte length before it, and spaces after it up to a multiple of 8
    return 8 + len(json.dumps(header, separators=(",", ":")).encode()) + 8
