"""The precisions that a weight can be stored in, and what each one means: one place for names, bits and order."""

from __future__ import annotations

from dataclasses import dataclass

from fewer.core.errors import FewerError, near_match

__all__ = ["KERNEL_PRECISIONS", "PRECISIONS", "Precision", "check_precision", "precision_of"]


@dataclass(frozen=True)
class Precision:
    """A number format for weights.

    Attributes
    ----------
    name
        As it is written in options, files and flags.
    bits
        Of one stored weight.
    is_integer
        Stored as integers with a scale per row; else in floating point.
    runs_as
        The precision of the kernel that computes with it: ``int4`` saves bytes, its products are those of ``int8``.
    """

    name: str
    bits: int
    is_integer: bool = False
    runs_as: str = ""


PRECISIONS: dict[str, Precision] = {
    p.name: p
    for p in (
        Precision("fp32", 32, runs_as="fp32"),
        Precision("fp16", 16, runs_as="bf16"),
        Precision("bf16", 16, runs_as="bf16"),
        Precision("int8", 8, True, "int8"),
        Precision("int4", 4, True, "int8"),
    )
}
"""By name, from the most to the least exact."""

KERNEL_PRECISIONS: tuple[str, ...] = tuple(dict.fromkeys(p.runs_as for p in PRECISIONS.values()))
"""Those that kernels compute in."""


def precision_of(name: str) -> Precision:
    """The precision of a name.

    Raises
    ------
    FewerError
        With the nearest name.

    Examples
    --------
    >>> precision_of("int4").bits, precision_of("int4").runs_as
    (4, 'int8')
    """
    if name not in PRECISIONS:
        raise FewerError(f"unknown precision {name!r}{near_match(name, PRECISIONS)}")
    return PRECISIONS[name]


def check_precision(name: str, among: tuple[str, ...] = tuple(PRECISIONS)) -> str:
    """The name, if it is one of those that can be used here.

    Raises
    ------
    FewerError
        With the nearest name.

    Examples
    --------
    >>> check_precision("bf16", KERNEL_PRECISIONS)
    'bf16'
    """
    if name not in among:
        raise FewerError(f"unknown precision {name!r}{near_match(name, among)}")
    return name
