"""Which parameters of CKKS are secure, and the smallest ones that a circuit fits into."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fewer.core.errors import FewerError

__all__ = ["MODULUS_BITS", "Parameters", "fitted", "parameters_for"]

MODULUS_BITS = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
"""Bits of the modulus at most, by ring degree, for 128 bits of classical security with ternary secrets: the table of
the Homomorphic Encryption Standard (homomorphicencryption.org, 2018), which SEAL enforces as well."""

_ENDS = {8192: 50, 16384: 60, 32768: 60}  # first and special prime; SEAL's primes have at most 60 bits
_PRECISION = {8192: 30, 16384: 40, 32768: 40}  # bits of a level at least; a scale of 40 bits at most

_FINEST = 34  # bits of a scale; more leaves fewer than 26 for weights in the primes of 60 bits
_COARSEST = {8192: 21, 16384: 23, 32768: 25}  # the noise of a rescaling is then a thousandth
_FINER = 12  # bits of the input's scale beyond the others
_LEAST = {8192: 20, 16384: 24, 32768: 26}  # bits of a prime, of which a ring needs several


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
    input_bits
        The same for what is encrypted; the first rescaling brings it to ``scale_bits``. Rotations of the input then add
        less noise. By default ``scale_bits``.

    Raises
    ------
    FewerError
        When the modulus is too large for 128 bits of security.
    """

    degree: int
    bits: tuple[int, ...]
    scale_bits: int
    input_bits: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "bits", tuple(int(b) for b in self.bits))
        object.__setattr__(self, "input_bits", int(self.input_bits) or self.scale_bits)
        most = MODULUS_BITS.get(self.degree)
        if most is None:
            raise FewerError(f"a ring of degree {self.degree} is not in the table of secure parameters")
        if sum(self.bits) > most:
            raise FewerError(
                f"a modulus of {sum(self.bits)} bits is not secure in a ring of degree {self.degree}: at most {most} "
                "bits keep 128 bits of security; take a larger ring or fewer levels"
            )
        scales = self.scale_bits, self.input_bits
        if len(self.bits) < 3 or not all(20 <= b <= 60 for b in self.bits) or not all(15 <= b <= 59 for b in scales):
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
    """Levels of a full scale that fit into a ring at 128 bits of security.

    Examples
    --------
    >>> most_levels(16384), most_levels(8192)
    (7, 3)
    """
    return (MODULUS_BITS[degree] - 2 * _ENDS[degree]) // _PRECISION[degree]


def fitted(degree: int, kinds: Sequence[str], largest: float = 1.0) -> Parameters | None:
    """The finest scale with which a circuit's levels fit into a ring, or None.

    A level needs as many bits as it takes off: those of weights behind a linear layer, those of the scale behind a
    square, and both where one rescaling serves a square and the linear layer behind it.

    Parameters
    ----------
    degree
        Of the ring.
    kinds
        ``linear``, ``square`` or ``joint`` for each level in order, see
        :meth:`~fewer.private.circuit.Circuit.kinds`.
    largest
        Magnitude of results; eight times as much still fits.

    Examples
    --------
    >>> fitted(8192, ["linear", "joint", "joint", "joint"]).bits
    (26, 41, 41, 41, 28, 41)
    >>> fitted(8192, ["linear"] + ["joint"] * 9) is None
    True
    """
    room = math.ceil(math.log2(max(largest, 1.0))) + 4
    for scale in range(_FINEST, _COARSEST[degree] - 1, -1):
        # three bits less for weights than for numbers: noise was least with that on networks with hundreds of diagonals
        weights = min(scale - 3, 60 - scale)
        first = scale + room
        bits = {"linear": max(weights, _LEAST[degree]), "square": scale, "joint": scale + weights}
        middle = [bits[kind] for kind in kinds]
        special = max(first, *middle)
        spare = MODULUS_BITS[degree] - first - sum(middle) - special
        if special > 60 or spare < 0:
            continue
        if kinds[0] == "linear":  # what is left makes the input finer, so that its rotations add less noise
            middle[0] += max(0, min(spare, special - middle[0], _FINER))
        entered = scale + middle[0] - weights if kinds[0] == "linear" else scale
        return Parameters(degree, (first, *reversed(middle), special), scale, min(entered, 50))
    return None


def parameters_for(
    levels: int | Sequence[str],
    slots: int = 4096,
    *,
    largest: float = 1.0,
    layers: list[tuple[str, int]] | None = None,
) -> Parameters:
    """The smallest secure parameters with enough levels and slots.

    Parameters
    ----------
    levels
        What each level is for, as for :func:`fitted`; or a number of levels that all have the bits of the scale.
    slots
        Slots of one ciphertext at least.
    largest
        Magnitude of results.
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
    >>> parameters_for(["linear", "joint", "joint", "joint"]).degree
    8192
    """
    if isinstance(levels, int):
        return _uniform(levels, slots, layers)
    for degree in sorted(_ENDS):
        found = fitted(degree, levels, largest) if degree // 2 >= slots else None
        if found is not None:
            return found
    rings = [degree for degree in sorted(_ENDS) if degree // 2 >= slots] or [max(_ENDS)]
    most = next(n for n in range(len(levels), -1, -1) if not n or fitted(rings[-1], levels[:n], largest))
    raise _too_deep(len(levels), most, layers)


def _uniform(levels: int, slots: int, layers: list[tuple[str, int]] | None) -> Parameters:
    for degree in sorted(_ENDS):
        if degree // 2 >= slots and most_levels(degree) >= levels:
            # more bits for each level where the ring has room
            middle = min(40, (MODULUS_BITS[degree] - 2 * _ENDS[degree]) // max(levels, 1))
            return Parameters(degree, (_ENDS[degree], *[middle] * levels, _ENDS[degree]), middle)
    raise _too_deep(levels, most_levels(max(_ENDS)), layers)


def _too_deep(levels: int, most: int, layers: list[tuple[str, int]] | None) -> FewerError:
    place = next((name for name, used in layers or [] if used > most), "")
    where = f": they run out at layer {place!r}" if place else ""
    return FewerError(
        f"the circuit needs {levels} levels, but {most} are the most at 128 bits of security{where}; "
        "take degree 2 for activations, leave layers out, or let activations go with --budget "
        f"levels={most}"
    )
