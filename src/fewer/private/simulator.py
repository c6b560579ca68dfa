"""An exact simulator of CKKS on slots: levels, rotations and a model of the noise, without any cryptography.

It is for planning, for tests and for machines without an HE library. It hides nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from fewer.core.errors import FewerError
from fewer.private.security import Parameters

__all__ = ["Simulated", "Simulator"]

_DEVIATION = 3.2  # of the error distribution that SEAL uses


@dataclass(frozen=True, eq=False)
class Simulated:
    """Slots, levels left, the standard deviation that noise has reached, and whether a rescaling is due."""

    slots: np.ndarray
    level: int
    noise: float
    raised: bool = False


class Simulator:
    """The back end that only counts.

    Parameters
    ----------
    parameters
        Of the scheme.
    seed
        Adds noise of the modelled size to what is decrypted; None leaves the slots exact.

    Attributes
    ----------
    counts
        Operations by name.

    Examples
    --------
    >>> from fewer.private.security import parameters_for
    >>> backend = Simulator(parameters_for(2))
    >>> x = backend.encrypt(np.arange(4096.0))
    >>> backend.decrypt(backend.rotate(x, 1))[:3].tolist(), backend.counts["rotate"]
    ([1.0, 2.0, 3.0], 1)
    """

    def __init__(self, parameters: Parameters, seed: int | None = None) -> None:
        self.parameters = parameters
        self.counts: Counter[str] = Counter()
        self._rng = None if seed is None else np.random.default_rng(seed)
        n, scale = parameters.degree, 2.0**parameters.scale_bits
        # errors of coefficients spread over the slots with the root of the ring's degree
        self._fresh = _DEVIATION * math.sqrt(n) * math.sqrt(4 * n / 3 + 1) / scale
        self._round = math.sqrt(n / 12) * math.sqrt(2 * n / 3 + 1) / scale
        self._switch = self._round + _DEVIATION * n / scale / 2**10

    def encrypt(self, values: np.ndarray) -> Simulated:
        """A fresh ciphertext."""
        slots = np.zeros(self.parameters.slots)
        slots[: len(values)] = values
        return Simulated(slots, self.parameters.levels, self._fresh)

    def decrypt(self, x: Simulated) -> np.ndarray:
        """Slots, with the modelled noise where a seed was given."""
        if self._rng is None:
            return x.slots
        return x.slots + self._rng.normal(0, x.noise, x.slots.shape)

    def encode_weights(self, values: np.ndarray, level: int, after_square: bool) -> np.ndarray:
        """The vector itself."""
        return values

    def multiply_plain(self, x: Simulated, weights: np.ndarray) -> Simulated:
        """Slot by slot."""
        self._count("multiply_plain", x)
        return Simulated(x.slots * weights, x.level, x.noise * float(np.abs(weights).max()), True)

    def square(self, x: Simulated) -> Simulated:
        """Slot by slot, relinearised."""
        self._count("square", x)
        noise = 2 * float(np.abs(x.slots).max()) * x.noise + self._switch
        return Simulated(x.slots**2, x.level, noise, True)

    def rescale(self, x: Simulated) -> Simulated:
        """One level down; an error when none is left."""
        self._count("rescale", x)
        if x.level < 1 or not x.raised:
            raise FewerError("a ciphertext without levels was rescaled; the circuit is deeper than its parameters")
        return Simulated(x.slots, x.level - 1, x.noise + self._round)

    def add(self, x: Simulated, y: Simulated) -> Simulated:
        """Both of one level and scale."""
        self._count("add", x)
        if (x.level, x.raised) != (y.level, y.raised):
            raise FewerError(f"ciphertexts of levels {x.level} and {y.level} cannot be added")
        return Simulated(x.slots + y.slots, x.level, math.hypot(x.noise, y.noise), x.raised)

    def add_plain(self, x: Simulated, values: np.ndarray) -> Simulated:
        """A vector in the clear."""
        return Simulated(x.slots + values, x.level, x.noise, x.raised)

    def rotate(self, x: Simulated, turn: int) -> Simulated:
        """Slots to the left."""
        self._count("rotate", x)
        return Simulated(np.roll(x.slots, -turn), x.level, math.hypot(x.noise, self._switch), x.raised)

    def level(self, x: Simulated) -> int:
        """Levels left."""
        return x.level

    def _count(self, name: str, x: Simulated) -> None:
        self.counts[name] += 1
