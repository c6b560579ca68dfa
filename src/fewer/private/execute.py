"""Running a circuit on a back end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.private.backend import Backend
from fewer.private.circuit import INPUT, Circuit, Linear
from fewer.private.packing import chain, hops, horner, split
from fewer.private.security import Parameters

__all__ = ["Runner", "weight_bytes"]


def weight_bytes(circuit: Circuit, parameters: Parameters) -> int:
    """Memory of the encoded weights of a circuit, which a server keeps for each client.

    Examples
    --------
    >>> import torch
    >>> from fewer.private.compile import compile_circuit
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> made = compile_circuit(net, torch.randn(20, 1, 4, 4))
    >>> weight_bytes(*made) > 8 * 8192
    True
    """
    have = parameters.levels
    return sum(
        len(step.diagonals) * (have - start + 1) * parameters.degree * 8
        for step, start in zip(circuit.steps, circuit.starts(), strict=True)
        if isinstance(step, Linear)
    )


class Runner:
    """A circuit whose weights are encoded once, for many queries.

    Parameters
    ----------
    circuit
        What to run.
    backend
        On what.

    Raises
    ------
    FewerError
        When the parameters have fewer levels than the circuit: which layer does not fit.
    """

    def __init__(self, circuit: Circuit, backend: Backend) -> None:
        have = backend.parameters.levels
        for name, used in circuit.depth():
            if used > have:
                raise FewerError(
                    f"the circuit needs {circuit.levels} levels, but these parameters have {have}: they run out at "
                    f"layer {name!r}; make keys for the circuit itself with: fewer private keys"
                )
        if circuit.slots != backend.parameters.slots:
            raise FewerError(f"the circuit is packed for {circuit.slots} slots, not {backend.parameters.slots}")
        self.circuit, self.backend = circuit, backend
        self.seconds: list[float] = []
        self._sources, self._levels = circuit.sources(), [have - start for start in circuit.starts()]
        self._last = {s: i for i, sources in enumerate(self._sources) for s in sources}
        self._counts = [len(s.bias) if isinstance(s, Linear) else s.outputs for s in circuit.steps]
        self._weights = self._encoded()
        self._added: dict[tuple[int, int], tuple[float, Any]] = {}  # encoded by the first query, for all others

    def _encoded(self) -> list[dict[tuple[int, int, int], Any]]:
        """Every diagonal at the scale that brings its product to the scale of all others."""
        circuit, backend = self.circuit, self.backend
        base, entered = 2.0**backend.parameters.scale_bits, 2.0**backend.parameters.input_bits
        scales: list[float] = []
        weights: list[dict[tuple[int, int, int], Any]] = []
        for step, sources, level in zip(circuit.steps, self._sources, self._levels, strict=True):
            read = [
                entered if s == INPUT else scales[s]
                for s in sources
                for _ in range(circuit.input_ciphertexts if s == INPUT else self._counts[s])
            ]
            found = {}
            if isinstance(step, Linear):
                for key, vector in step.diagonals.items():
                    _, giant = split(key[2], step.plan.step, circuit.slots)
                    found[key] = backend.encode_weights(np.roll(vector, giant), level, read[key[1]])
                scales.append(base)
            else:
                scales.append(read[0] ** 2 / (backend.prime(level) if step.rescaled else 1.0))
            weights.append(found)
        return weights

    def __call__(self, inputs: Sequence[Any], watch: Callable[[int, list[Any]], None] | None = None) -> Any:
        """The first ciphertext of the result; ``seconds`` then has the processor time of each step.

        ``watch(number of the step, ciphertexts behind it)`` is called after each step, outside of its time.
        """
        there: dict[int, list[Any]] = {INPUT: list(inputs)}
        x, self.seconds = there[INPUT], []
        for i, (step, weights) in enumerate(zip(self.circuit.steps, self._weights, strict=True)):
            start = time.thread_time()
            x = [self._at(c, self._levels[i]) for s in self._sources[i] for c in there[s]]
            if isinstance(step, Linear):
                x = self._linear(i, step, weights, x)
            else:
                x = [self.backend.square(c) for c in x]
                x = [self.backend.rescale(c) for c in x] if step.rescaled else x
                if step.add is not None:
                    x = [self._add(c, (i, out), step.add) for out, c in enumerate(x)]
            self.seconds.append(time.thread_time() - start)
            there = {s: c for s, c in [*there.items(), (i, x)] if self._last.get(s, i) > i or s == i}
            if watch is not None:
                watch(i, x)
        return x[0]

    def _at(self, x: Any, level: int) -> Any:
        return x if self.backend.level(x) == level else self.backend.lower(x, level)

    def _add(self, x: Any, where: tuple[int, int], values: np.ndarray) -> Any:
        scale = self.backend.scale(x)
        known = self._added.get(where)
        if known is None or known[0] != scale:
            known = scale, self.backend.encode_like(x, values)
            self._added.setdefault(where, known)  # one for each, whatever scales are sent
        return self.backend.add_plain(x, known[1])

    def _linear(self, i: int, step: Linear, weights: dict, x: list[Any]) -> list[Any]:
        backend, slots = self.backend, self.circuit.slots
        turned = {(s, 0): c for s, c in enumerate(x)}
        for source, babies in step.plan.babies.items():
            for turn, parent, path in chain(babies, slots):
                turned[source, turn] = self._rotate(turned[source, parent], path)
        sums: dict[tuple[int, int], Any] = {}
        for key, plain in weights.items():
            baby, giant = split(key[2], step.plan.step, slots)
            part = backend.multiply_plain(turned[key[1], baby], plain)
            at = (key[0], giant)
            sums[at] = part if at not in sums else backend.add(sums[at], part)
        results = []
        for out, bias in enumerate(step.bias):
            total = None
            for giant, _, path in horner(step.plan.giants[out], slots):
                total = sums[out, giant] if total is None else backend.add(total, sums[out, giant])
                total = self._rotate(total, path)
            for fold in step.folds:  # before the rescaling, where a rotation's noise is nothing beside the scale
                total = backend.add(total, self._rotate(total, hops(fold, slots)))
            results.append(self._add(backend.rescale(total), (i, out), bias))
        return results

    def _rotate(self, x: Any, path: Sequence[int]) -> Any:
        for hop in path:
            x = self.backend.rotate(x, hop)
        return x
