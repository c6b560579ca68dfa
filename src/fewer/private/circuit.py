"""A circuit: linear layers as diagonals, squares between them, and where numbers stand in the slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from fewer.private.packing import Plan, chain, hops, horner, plan_rotations

__all__ = ["Circuit", "Linear", "Square", "Step"]


@dataclass(frozen=True, eq=False)
class Linear:
    """One linear layer on slots: diagonals, then rotated sums of the result with itself, then a bias.

    Attributes
    ----------
    name
        Of the network's layer.
    diagonals
        ``(output ciphertext, input ciphertext, rotation)`` to its vector of slots.
    bias
        One vector for each output ciphertext.
    folds
        Rotations after which the sum is added to itself, for layers with few outputs.
    slots
        Of a ciphertext.
    """

    name: str
    diagonals: Mapping[tuple[int, int, int], np.ndarray]
    bias: tuple[np.ndarray, ...]
    folds: tuple[int, ...]
    slots: int
    plan: Plan

    levels = 1

    @classmethod
    def build(
        cls, name: str, found: Mapping, bias: tuple[np.ndarray, ...], folds: tuple[int, ...], slots: int
    ) -> Linear:
        """With the rotations that need the least."""
        return cls(name, found, bias, folds, slots, plan_rotations(found, slots))

    def counts(self) -> dict[str, int]:
        """Operations: plaintext products, rotations, additions, rescalings."""
        outs = len(self.bias)
        rotations = self.plan.rotations + sum(len(hops(f, self.slots)) for f in self.folds) * outs
        return {
            "multiply_plain": len(self.diagonals),
            "rotate": rotations,
            "add": len(self.diagonals) + len(self.folds) * outs,
            "rescale": outs,
        }

    def turns(self) -> set[int]:
        """Single rotations that keys are needed for."""
        found = {h for b in self.plan.babies.values() for _, _, hs in chain(b, self.slots) for h in hs}
        found |= {h for g in self.plan.giants.values() for _, _, hs in horner(g, self.slots) for h in hs}
        return found | {h for f in self.folds for h in hops(f, self.slots)}

    def apply(self, x: np.ndarray) -> np.ndarray:
        """On slots in the clear: [N, inputs, slots] to [N, outputs, slots]; the oracle of every back end."""
        y = np.zeros((len(x), len(self.bias), self.slots))
        turned: dict[tuple[int, int], np.ndarray] = {}
        for (out, source, turn), vector in self.diagonals.items():
            if (source, turn) not in turned:
                turned[source, turn] = np.roll(x[:, source], -turn, axis=-1)
            y[:, out] += vector * turned[source, turn]
        for fold in self.folds:
            y = y + np.roll(y, -fold, axis=-1)
        return y + np.stack(self.bias)

    def without(self, gone: set[tuple[int, int, int]]) -> Linear:
        """Without some diagonals; the plan is made again."""
        kept = {k: v for k, v in self.diagonals.items() if k not in gone}
        return replace(self, diagonals=kept, plan=plan_rotations(kept, self.slots))


@dataclass(frozen=True, eq=False)
class Square:
    """The square of every slot, and an addition behind it where another square follows.

    A linear layer behind it is computed at the square's own scale, and one rescaling serves both: a square then takes
    no level, and the rotations of that layer add no noise that would matter. Where another square follows, or nothing,
    it is rescaled by itself.
    """

    name: str
    add: np.ndarray | None = None
    outputs: int = 1
    rescaled: bool = False

    @property
    def levels(self) -> int:
        """That it takes."""
        return int(self.rescaled)

    def counts(self) -> dict[str, int]:
        """Operations."""
        found = {"square": self.outputs}
        return {**found, "rescale": self.outputs} if self.rescaled else found

    def turns(self) -> set[int]:
        """No rotation."""
        return set()

    def apply(self, x: np.ndarray) -> np.ndarray:
        """On slots in the clear."""
        return x * x if self.add is None else x * x + self.add


Step = Linear | Square


@dataclass(frozen=True, eq=False)
class Circuit:
    """What a server runs.

    Attributes
    ----------
    steps
        In order.
    slots
        Of a ciphertext.
    shape
        Of one input, ``(channels, height, width)``.
    inputs
        Slots of each input value, one row for each copy of the image; counted through all ciphertexts.
    input_ciphertexts
        How many a query has.
    outputs
        Slots of the results in the first ciphertext.
    """

    steps: tuple[Step, ...]
    slots: int
    shape: tuple[int, ...]
    inputs: np.ndarray
    input_ciphertexts: int
    outputs: np.ndarray

    @property
    def levels(self) -> int:
        """Rescalings that follow each other."""
        return len(self.kinds())

    def kinds(self) -> list[str]:
        """What each level is for: ``linear``, ``joint`` for a linear layer with the square before it, ``square``."""
        found, joint = [], False
        for step in self.steps:
            if step.levels:
                found.append("square" if isinstance(step, Square) else "joint" if joint else "linear")
            joint = isinstance(step, Square) and not step.rescaled
        return found

    def depth(self) -> list[tuple[str, int]]:
        """``(layer, levels used after it)``."""
        used, found = 0, []
        for step in self.steps:
            used += step.levels
            found.append((step.name, used))
        return found

    def turns(self) -> list[int]:
        """Rotations that the server needs keys for."""
        return sorted(set().union(*(s.turns() for s in self.steps)))

    def counts(self) -> dict[str, int]:
        """Operations of all steps together."""
        total: dict[str, int] = {}
        for step in self.steps:
            for name, n in step.counts().items():
                total[name] = total.get(name, 0) + n
        return total

    def pack(self, image: np.ndarray) -> np.ndarray:
        """One image [channels, height, width] as slots [ciphertexts, slots]."""
        found = np.zeros(self.input_ciphertexts * self.slots)
        found[self.inputs] = np.asarray(image, dtype=float).reshape(-1)
        return found.reshape(self.input_ciphertexts, self.slots)

    def unpack(self, slots: np.ndarray) -> np.ndarray:
        """Results from the slots of the first ciphertext."""
        return np.asarray(slots)[..., self.outputs]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Results [N, outputs] in the clear: what encryption adds its noise to."""
        x = np.stack([self.pack(image) for image in images])
        for step in self.steps:
            x = step.apply(x)
        return self.unpack(x[:, 0])
