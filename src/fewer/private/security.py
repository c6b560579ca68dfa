"""Which parameters of CKKS are secure, and the smallest ones that a circuit fits into."""

from __future__ import annotations

from dataclasses import dataclass

from fewer.core.errors import FewerError

__all__ = ["MODULUS_BITS", "Parameters", "parameters_for"]

MODULUS_BITS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
"""Bits of the modulus at most, by ring degree, for 128 bits of classical security with ternary secrets: the table of
the Homomorphic Encryption Standard (homomorphicencryption.org, 2018), which SEAL enforces as well."""

_ENDS = {8192: 50, 16384: 60, 32768: 60}  # first and special prime; SEAL's primes have at most 60 bits
_PRECISION = {8192: 30, 16384: 40, 32768: 40}  # bits of a level at least; a scale of 40 bits at most


@dataclass(frozen=True)
class Parameters:
    """Parameters of CKKS.

    Attributes
    ----------
    degree
        Of the ring; a ciphertext has half as many slots.
    bits
        Of each prime of the modulus: the first one, one for each level, and the special one of key switching.
    scale_bits
        A number ``x`` is held as ``x * 2**scale_bits``.

    Raises
    ------
    FewerError
        When the modulus is too large for 128 bits of security.
    """

    degree: int
    bits: tuple[int, ...]
    scale_bits: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", tuple(int(b) for b in self.bits))
        most = MODULUS_BITS.get(self.degree)
        if most is None:
            raise FewerError(f"a ring of degree {self.degree} is not in the table of secure parameters")
        if sum(self.bits) > most:
            raise FewerError(
                f"a modulus of {sum(self.bits)} bits is not secure in a ring of degree {self.degree}: at most {most} "
                "bits keep 128 bits of security; take a larger ring or fewer levels"
            )
        if len(self.bits) < 3 or not all(20 <= b <= 60 for b in self.bits) or not 15 <= self.scale_bits <= 50:
            raise FewerError(f"the primes {self.bits} with a scale of {self.scale_bits} bits are no usable modulus")

    @property
    def slots(self) -> int:
        """Numbers in one ciphertext."""
        return self.degree // 2

    @property
    def levels(self) -> int:
        """Products that can follow each other."""
        return len(self.bits) - 2


def most_levels(degree: int) -> int:
    """Levels that fit into a ring at 128 bits of security.

    Examples
    --------
    >>> most_levels(16384), most_levels(8192)
    (7, 3)
    """
    return (MODULUS_BITS[degree] - 2 * _ENDS[degree]) // _PRECISION[degree]


def parameters_for(levels: int, slots: int = 4096, *, layers: list[tuple[str, int]] | None = None) -> Parameters:
    """The smallest secure parameters with enough levels and slots.

    Parameters
    ----------
    levels
        Products in a row that the circuit needs.
    slots
        Slots of one ciphertext at least.
    layers
        ``(name, levels so far)`` of each layer, for the message.

    Raises
    ------
    FewerError
        When no ring of the table has so many levels; the sentence says at which layer they run out.

    Examples
    --------
    >>> parameters_for(3).degree, parameters_for(4).degree, parameters_for(7).bits
    (8192, 16384, (60, 40, 40, 40, 40, 40, 40, 40, 60))
    """
    for degree in sorted(_ENDS):
        if degree // 2 >= slots and most_levels(degree) >= levels:
            # more bits for each level where the ring has room
            middle = min(40, (MODULUS_BITS[degree] - 2 * _ENDS[degree]) // max(levels, 1))
            return Parameters(degree, (_ENDS[degree], *[middle] * levels, _ENDS[degree]), middle)
    most = most_levels(max(_ENDS))
    place = next((name for name, used in layers or [] if used > most), "")
    where = f": they run out at layer {place!r}" if place else ""
    raise FewerError(
        f"the circuit needs {levels} levels, but {most} are the most at 128 bits of security{where}; "
        "take degree 2 for activations, or leave layers out"
    )
