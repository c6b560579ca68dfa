"""What the operations of encrypted inference take on this machine: a calibration of seconds, then a sum."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from fewer.private.circuit import Circuit
from fewer.private.seal import Client, Evaluator, has_seal, make_keys, to_bytes
from fewer.private.security import Parameters

__all__ = ["TYPICAL", "Prices", "calibrate", "message_ms", "predict_ms", "prices_here", "step_ms", "typical"]

OPERATIONS = ("multiply_plain", "rotate", "square", "rescale", "add", "add_plain", "lower", "load", "save")


@dataclass(frozen=True)
class Prices:
    """Milliseconds of each operation by levels left, and whether they were measured or are typical."""

    ms: Mapping[str, tuple[float, ...]]
    measured: bool

    def at(self, operation: str, level: int) -> float:
        """Of one operation on a ciphertext with so many levels left."""
        row = self.ms[operation]
        return row[min(level, len(row) - 1)]


def _line(first: float, slope: float) -> tuple[float, ...]:
    return tuple(first + slope * level for level in range(20))


# products, additions and messages grow with the primes, key switching with their square
TYPICAL = Prices(
    {
        "multiply_plain": _line(0.05, 0.05),
        "rotate": tuple(1.0 + 0.8 * (level + 1) + 0.25 * (level + 1) ** 2 for level in range(20)),
        "square": tuple(1.5 + 1.0 * (level + 1) + 0.25 * (level + 1) ** 2 for level in range(20)),
        "rescale": _line(0.5, 0.5),
        "add": _line(0.02, 0.02),
        "add_plain": _line(0.01, 0.01),
        "lower": _line(0.01, 0.01),
        "load": _line(0.7, 0.7),
        "save": _line(0.7, 0.7),
    },
    measured=False,
)
"""Ratios for planning where no back end is installed, for a ring of degree 16384; chosen here, in no unit that any
machine would measure."""


def typical(parameters: Parameters) -> Prices:
    """:data:`TYPICAL` for a ring of another degree: all operations grow with it.

    Examples
    --------
    >>> from fewer.private.security import parameters_for
    >>> typical(parameters_for(3)).at("rotate", 3) / TYPICAL.at("rotate", 3)
    0.5
    """
    share = parameters.degree / 16384
    return Prices({name: tuple(share * ms for ms in row) for name, row in TYPICAL.ms.items()}, measured=False)


def calibrate(parameters: Parameters, seconds: float = 10.0) -> Prices:
    """Time every operation at every level, in turns, and take the median of the processor time.

    Processor time, so that a busy machine does not make one ring look dearer than another that was timed later.

    Parameters
    ----------
    parameters
        Of the circuit.
    seconds
        In which all is done; at least one turn is.
    """
    secret, public = make_keys(parameters, [1])
    evaluator, client = Evaluator(parameters, **public), Client(parameters, secret)
    values = np.linspace(-0.5, 0.5, parameters.slots)
    sent = client.encrypt(values)
    x = evaluator.load(sent)
    found: dict[tuple[str, int], list[float]] = {}

    def timed(name: str, level: int, work: Callable[[], object]) -> object:
        start = time.thread_time()
        result = work()
        found.setdefault((name, level), []).append(1e3 * (time.thread_time() - start))
        return result

    end = time.perf_counter() + seconds
    while True:
        y = x
        timed("load", parameters.levels, lambda: evaluator.load(sent))
        for level in range(parameters.levels, 0, -1):
            scale = parameters.input_bits if level == parameters.levels else parameters.scale_bits
            weights = evaluator.encode_weights(values, level, 2.0**scale)
            timed("rotate", level, lambda y=y: evaluator.rotate(y, 1))
            with suppress(ValueError, RuntimeError):  # a modulus for linear layers alone holds no square
                timed("square", level, lambda y=y: evaluator.square(y))
            timed("add", level, lambda y=y: evaluator.add(y, y))
            z = timed("multiply_plain", level, lambda y=y, w=weights: evaluator.multiply_plain(y, w))
            y = timed("rescale", level, lambda z=z: evaluator.rescale(z))
            plain = evaluator.encode_like(y, values)
            timed("add_plain", level, lambda y=y, p=plain: evaluator.add_plain(y, p))
            if level > 1:
                timed("lower", level - 1, lambda y=y, to=level - 2: evaluator.lower(y, to))
        timed("save", 0, lambda y=y: to_bytes(y))
        timed("rotate", 0, lambda y=y: evaluator.rotate(y, 1))
        timed("add", 0, lambda y=y: evaluator.add(y, y))
        if time.perf_counter() > end:
            break
    table = {}
    for name in OPERATIONS:
        rows = [float(np.median(found.get((name, level), [0.0]))) for level in range(parameters.levels + 1)]
        table[name] = tuple(rows)
    return Prices(table, measured=True)


def prices_here(seconds: float = 5.0) -> Callable[[Parameters], Prices]:
    """Prices by parameters: timed once for each ring where TenSEAL is installed, typical ones elsewhere.

    Examples
    --------
    >>> from fewer.private.security import parameters_for
    >>> prices = prices_here(0.1)
    >>> prices(parameters_for(1)) is prices(parameters_for(1))
    True
    """
    known: dict[tuple[int, int], Prices] = {}

    def look_up(parameters: Parameters) -> Prices:
        key = parameters.degree, parameters.levels
        more = next((p for (degree, levels), p in known.items() if degree == key[0] and levels >= key[1]), None)
        if more is None:
            more = known[key] = calibrate(parameters, seconds) if has_seal() else typical(parameters)
        return more

    return look_up


def message_ms(circuit: Circuit, prices: Prices, levels: int | None = None) -> float:
    """Predicted milliseconds in which a server reads the ciphertexts of a query and writes that of its answer.

    Both are packed and checked, which a small circuit feels; ``levels`` as in :func:`step_ms`.
    """
    top = circuit.levels if levels is None else levels
    return circuit.input_ciphertexts * prices.at("load", top) + prices.at("save", top - circuit.levels)


def step_ms(circuit: Circuit, prices: Prices, levels: int | None = None) -> list[float]:
    """Predicted milliseconds of each step.

    Parameters
    ----------
    circuit
        What is to be run.
    prices
        Of :func:`calibrate`, or :data:`TYPICAL`.
    levels
        That a fresh ciphertext has; by default what the circuit needs.
    """
    top = circuit.levels if levels is None else levels
    return [
        sum(n * prices.at(name, top - start) for name, n in step.counts().items())
        + sum(prices.at("lower", top - used) for used in lowered)
        for step, start, lowered in zip(circuit.steps, circuit.starts(), circuit.lowered(), strict=True)
    ]


def predict_ms(circuit: Circuit, prices: Prices, levels: int | None = None) -> float:
    """Predicted milliseconds of one query on the server: its steps, and what is read and written."""
    return sum(step_ms(circuit, prices, levels)) + message_ms(circuit, prices, levels)
