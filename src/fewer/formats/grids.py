"""The values that a number format can hold, at scale 1: one row of the table for each kind of number."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.core.methods import Method, MethodTable

__all__ = ["ELEMENTS", "element_bits", "grid_of", "split_name"]

_FIXED = {"binary": 1, "ternary": 2, "e4m3": 8, "e5m2": 8, "e2m1": 4, "mxfp4": 4, "nvfp4": 4}
"""Bits of the kinds that come in one width. Three values need 2 bits where they are not packed more tightly."""


def _integers(bits: int) -> Tensor:
    top = 2 ** (bits - 1) - 1
    return torch.arange(-top, top + 1, dtype=torch.float32)


def _affine(bits: int) -> Tensor:
    return torch.arange(2**bits, dtype=torch.float32)


def _binary(bits: int) -> Tensor:
    return torch.tensor([-1.0, 1.0])


def _ternary(bits: int) -> Tensor:
    return torch.tensor([-1.0, 0.0, 1.0])


def _signed(magnitudes: Tensor) -> Tensor:
    """Both signs of magnitudes, ascending, each value once."""
    return torch.cat([-magnitudes, magnitudes]).unique() + 0.0


def _powers(bits: int) -> Tensor:
    # one code is zero, the others are the powers 1, 1/2, 1/4, ...
    count = 2 ** (bits - 1) - 1
    return _signed(torch.cat([torch.zeros(1), 0.5 ** torch.arange(count, dtype=torch.float32)]))


def _sums_of_powers(bits: int) -> Tensor:
    """Terms of two bits each; a bit that is left over chooses between 0 and one more power."""
    terms, rest = divmod(bits - 1, 2)
    if terms == 0:
        return _powers(bits)
    sums = torch.zeros(1)
    for term in range(terms):
        # term i takes 0 or one of 2^-i, 2^-(i + n), 2^-(i + 2 n), n the number of terms: no sum is made twice
        powers = torch.tensor([0.0, *(2.0 ** -(term + k * terms) for k in range(3))])
        sums = (sums[:, None] + powers).flatten()
    if rest:
        sums = (sums[:, None] + torch.tensor([0.0, 2.0 ** -(3 * terms)])).flatten()
    return _signed(sums / sums.max())


def _minifloat(exponent_bits: int, mantissa_bits: int, largest: float) -> Tensor:
    """All finite values of a small floating-point format with subnormal numbers, by enumeration."""
    bias = 2 ** (exponent_bits - 1) - 1
    values = []
    for exponent in range(2**exponent_bits):
        for mantissa in range(2**mantissa_bits):
            fraction = mantissa / 2**mantissa_bits
            power = max(exponent, 1) - bias
            values.append(((exponent > 0) + fraction) * 2.0**power)
    magnitudes = torch.tensor(values)
    return _signed(magnitudes[magnitudes <= largest])  # the codes above stand for infinity and NaN


def _e4m3(bits: int) -> Tensor:
    return _minifloat(4, 3, 448.0)


def _e5m2(bits: int) -> Tensor:
    return _minifloat(5, 2, 57344.0)


def _e2m1(bits: int) -> Tensor:
    return _minifloat(2, 1, 6.0)


ELEMENTS: MethodTable[Callable[[int], Tensor]] = MethodTable(
    "number format",
    [
        Method("int", _integers, "integers symmetric about 0, int2 to int8"),
        Method("uint", _affine, "affine integers with a zero point, uint2 to uint8"),
        Method("binary", _binary, "minus or plus the mean magnitude, 1 bit", "XNOR-Net (ECCV 2016)"),
        Method("ternary", _ternary, "0 or plus or minus one magnitude", "TWN (arXiv 1605.04711)"),
        Method("pot", _powers, "0 and powers of two, pot2 to pot8", "INQ (ICLR 2017)"),
        Method("apot", _sums_of_powers, "sums of powers of two, apot2 to apot8", "APoT (ICLR 2020)"),
        Method("e4m3", _e4m3, "8-bit float with 4 bits of exponent, up to 448", "arXiv 2209.05433"),
        Method("e5m2", _e5m2, "8-bit float with 5 bits of exponent, up to 57,344", "arXiv 2209.05433"),
        Method("e2m1", _e2m1, "4-bit float: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives", "OCP MX 1.0"),
        Method("mxfp4", _e2m1, "e2m1 in blocks of 32 with a power of two as scale", "OCP MX 1.0"),
        Method("nvfp4", _e2m1, "e2m1 in blocks of 16 with an e4m3 scale, and one scale per tensor", "arXiv 2509.25149"),
    ],
)
"""Kinds of numbers by name: ``run(bits)`` gives the values at scale 1, ascending."""


def split_name(name: str) -> tuple[str, int]:
    """Kind and bits of a name such as ``int4``, ``e4m3`` or ``ternary``.

    Raises
    ------
    FewerError
        For a kind that is not known, or bits that it does not have.

    Examples
    --------
    >>> split_name("int4"), split_name("e4m3")
    (('int', 4), ('e4m3', 8))
    >>> split_name("int9")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: no number format int has 9 bits; use int2 to int8
    """
    if name in _FIXED:
        return name, _FIXED[name]
    found = re.fullmatch(r"([a-z]+)(\d+)", name)
    kind = found[1] if found and found[1] in ELEMENTS and found[1] not in _FIXED else name
    _ = ELEMENTS[kind]  # says the nearest name
    if not found:
        raise FewerError(f"the number format {name!r} needs its bits, such as {name}4")
    bits = int(found[2])
    if not 2 <= bits <= 8:
        raise FewerError(f"no number format {kind} has {bits} bits; use {kind}2 to {kind}8")
    return kind, bits


def element_bits(name: str) -> int:
    """Bits of one stored number.

    Examples
    --------
    >>> element_bits("nvfp4")
    4
    """
    return split_name(name)[1]


@lru_cache(maxsize=64)
def grid_of(name: str) -> Tensor:
    """The values of a format at scale 1, ascending, float32.

    Examples
    --------
    >>> grid_of("e2m1").tolist()[7:]
    [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
    """
    kind, bits = split_name(name)
    return ELEMENTS[kind].run(bits)
