"""An exact simulator of CKKS on slots: levels, rotations and a model of the noise, without any cryptography.

It is for planning, for tests and for machines without an HE library. It hides nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from fewer.core.errors import FewerError
from fewer.private.circuit import Circuit
from fewer.private.execute import Runner
from fewer.private.security import Parameters

__all__ = ["Simulated", "Simulator", "noise_of"]

_DEVIATION = 3.2  # of the error distribution that SEAL uses


@dataclass(frozen=True, eq=False)
class Simulated:
    """Slots, levels left, the standard deviation that the noise of each slot has reached, and the scale."""

    slots: np.ndarray
    level: int
    noise: np.ndarray
    scale: float


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
        n, self._scale = parameters.degree, 2.0**parameters.scale_bits
        # errors of coefficients spread over the slots with the root of the ring's degree
        self._fresh = _DEVIATION * math.sqrt(n) * math.sqrt(4 * n / 3 + 1)
        self._round = math.sqrt(n / 12) * math.sqrt(2 * n / 3 + 1)
        self._encode = math.sqrt(n / 12)
        self._switch = self._round + _DEVIATION * n * 2.0 ** (max(parameters.bits[:-1]) - parameters.bits[-1])

    def encrypt(self, values: np.ndarray) -> Simulated:
        """A fresh ciphertext."""
        slots = np.zeros(self.parameters.slots)
        slots[: len(values)] = values
        scale = 2.0**self.parameters.input_bits
        return Simulated(slots, self.parameters.levels, np.full(len(slots), self._fresh / scale), scale)

    def decrypt(self, x: Simulated) -> np.ndarray:
        """Slots, with the modelled noise where a seed was given."""
        if self._rng is None:
            return x.slots
        return x.slots + self._rng.normal(0, 1, x.slots.shape) * x.noise

    def prime(self, level: int) -> float:
        """What a rescaling divides by at a level."""
        return 2.0 ** self.parameters.bits[level]

    def encode_weights(self, values: np.ndarray, level: int, scale: float) -> tuple[np.ndarray, float]:
        """The vector itself, and the scale that it is encoded at."""
        return values, self._scale * self.prime(level) / scale

    def multiply_plain(self, x: Simulated, weights: tuple[np.ndarray, float]) -> Simulated:
        """Slot by slot."""
        self._count("multiply_plain", x)
        values, scale = weights
        noise = np.hypot(x.noise * values, x.slots * (self._encode / scale))
        return Simulated(x.slots * values, x.level, noise, x.scale * scale)

    def square(self, x: Simulated) -> Simulated:
        """Slot by slot, relinearised."""
        self._count("square", x)
        noise = np.hypot(2 * x.slots * x.noise, self._switch / x.scale**2)
        return Simulated(x.slots**2, x.level, noise, x.scale**2)

    def rescale(self, x: Simulated) -> Simulated:
        """One level down; an error when none is left."""
        self._count("rescale", x)
        if x.level < 1 or x.scale < 2 * self._scale:
            raise FewerError("a ciphertext without levels was rescaled; the circuit is deeper than its parameters")
        scale = x.scale / self.prime(x.level)
        return Simulated(x.slots, x.level - 1, np.hypot(x.noise, self._round / scale), scale)

    def add(self, x: Simulated, y: Simulated) -> Simulated:
        """Both of one level."""
        self._count("add", x)
        if x.level != y.level or not math.isclose(x.scale, y.scale):
            raise FewerError(f"ciphertexts of levels {x.level} and {y.level} cannot be added")
        return Simulated(x.slots + y.slots, x.level, np.hypot(x.noise, y.noise), x.scale)

    def scale(self, x: Simulated) -> float:
        """What numbers are multiplied with."""
        return x.scale

    def encode_like(self, x: Simulated, values: np.ndarray) -> np.ndarray:
        """The vector itself: its rounding is nothing beside the noise."""
        return values

    def add_plain(self, x: Simulated, plain: np.ndarray) -> Simulated:
        """A vector in the clear."""
        self._count("add_plain", x)
        return Simulated(x.slots + plain, x.level, x.noise, x.scale)

    def rotate(self, x: Simulated, turn: int) -> Simulated:
        """Slots to the left."""
        self._count("rotate", x)
        noise = np.hypot(np.roll(x.noise, -turn), self._switch / x.scale)
        return Simulated(np.roll(x.slots, -turn), x.level, noise, x.scale)

    def lower(self, x: Simulated, level: int) -> Simulated:
        """The same numbers at a lower level."""
        self._count("lower", x)
        return replace(x, level=level)

    def level(self, x: Simulated) -> int:
        """Levels left."""
        return x.level

    def _count(self, name: str, x: Simulated) -> None:
        self.counts[name] += 1


def noise_of(circuit: Circuit, parameters: Parameters, image: np.ndarray) -> float:
    """Modelled standard deviation of the noise of a circuit's results, the largest of them.

    Parameters
    ----------
    circuit, parameters
        Of :func:`~fewer.private.compile.compile_circuit`.
    image
        One input.

    Examples
    --------
    >>> import torch
    >>> from fewer.private.compile import compile_circuit
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> made = compile_circuit(net, torch.randn(20, 1, 4, 4))
    >>> 0 < noise_of(*made, np.ones((1, 4, 4))) < 0.02
    True
    """
    backend = Simulator(parameters)
    result = Runner(circuit, backend)([backend.encrypt(v) for v in circuit.pack(image)])
    return float(result.noise[circuit.outputs].max())
