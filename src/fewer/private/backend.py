"""What a circuit runs on: one small interface, a simulator of it, and SEAL behind it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from fewer.private.security import Parameters

__all__ = ["Backend"]

Ciphertext = Any
Plain = Any


class Backend(Protocol):
    """CKKS with levels. Every ciphertext has the scale of its parameters after a rescaling.

    ``weights`` of a product are encoded so that the rescaled result has that scale exactly, whatever it was before.
    """

    parameters: Parameters

    def prime(self, level: int) -> float:
        """What a rescaling divides by at a level."""
        ...

    def encode_weights(self, values: np.ndarray, level: int, scale: float) -> Plain:
        """A vector to be multiplied with a ciphertext of a level and scale."""
        ...

    def multiply_plain(self, x: Ciphertext, weights: Plain) -> Ciphertext:
        """Slot by slot; to be rescaled."""
        ...

    def square(self, x: Ciphertext) -> Ciphertext:
        """Slot by slot; to be rescaled, or multiplied with weights first."""
        ...

    def rescale(self, x: Ciphertext) -> Ciphertext:
        """One level down."""
        ...

    def add(self, x: Ciphertext, y: Ciphertext) -> Ciphertext:
        """Both of one level."""
        ...

    def scale(self, x: Ciphertext) -> float:
        """What the numbers of a ciphertext are multiplied with."""
        ...

    def encode_like(self, x: Ciphertext, values: np.ndarray) -> Plain:
        """A vector to be added to a ciphertext, at its level and scale."""
        ...

    def add_plain(self, x: Ciphertext, plain: Plain) -> Ciphertext:
        """What :meth:`encode_like` gave."""
        ...

    def rotate(self, x: Ciphertext, turn: int) -> Ciphertext:
        """Slot ``i`` becomes what slot ``i + turn`` was."""
        ...

    def lower(self, x: Ciphertext, level: int) -> Ciphertext:
        """The same numbers at a lower level, and at their scale."""
        ...

    def level(self, x: Ciphertext) -> int:
        """Levels that are left."""
        ...
