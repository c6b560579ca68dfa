"""A circuit: linear layers as diagonals, squares between them, and where numbers stand in the slots."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fewer.private.packing import Plan, chain, hops, horner, plan_rotations

__all__ = ["INPUT", "Circuit", "Kind", "Linear", "Square", "Step", "kinds_along"]

INPUT = -1
"""What stands for the encrypted image among the steps that a step reads."""


@dataclass(frozen=True)
class Kind:
    """What a step reads and takes, without its numbers."""

    name: str
    sources: tuple[int, ...]
    linear: bool
    rescaled: bool

    @property
    def levels(self) -> int:
        """That it takes."""
        return int(self.linear or self.rescaled)


def kinds_along(steps: Sequence[Kind]) -> tuple[list[str], list[int]]:
    """What each level is for, and how many levels are used up where each step starts.

    Steps that read earlier ones may start at the same level. A square that is rescaled needs a level of its own size,
    so that a linear layer beside it starts one level later.

    Examples
    --------
    >>> layers = [Kind("a", (INPUT,), True, True), Kind("s", (0,), False, False), Kind("b", (1, INPUT), True, True)]
    >>> kinds_along(layers)
    (['linear', 'joint'], [0, 1, 1])
    """
    kinds: list[str] = []
    used: list[int] = []
    starts: list[int] = []
    for step in steps:
        start = max((used[s] for s in step.sources if s != INPUT), default=0)
        if step.levels:
            raw = any(s != INPUT and not steps[s].levels for s in step.sources)
            need = "square" if not step.linear else "joint" if raw else "linear"
            while start < len(kinds) and (kinds[start] == "square") != (need == "square"):
                start += 1
            if start == len(kinds):
                kinds.append(need)
            elif need == "joint":
                kinds[start] = need
        starts.append(start)
        used.append(start + step.levels)
    return kinds, starts


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
    sources
        Numbers of the steps whose ciphertexts it reads, one after another; nothing stands for the step before it.
    """

    name: str
    diagonals: Mapping[tuple[int, int, int], np.ndarray]
    bias: tuple[np.ndarray, ...]
    folds: tuple[int, ...]
    slots: int
    plan: Plan
    sources: tuple[int, ...] = ()

    levels = 1

    @classmethod
    def build(
        cls, name: str, found: Mapping, bias: tuple[np.ndarray, ...], folds: tuple[int, ...], slots: int
    ) -> Linear:
        """With the rotations that need the least."""
        return cls(name, found, bias, folds, slots, plan_rotations(found, slots))

    def counts(self) -> dict[str, int]:
        """Operations: plaintext products, rotations, additions, rescalings, additions of vectors in the clear."""
        outs = len(self.bias)
        rotations = self.plan.rotations + sum(len(hops(f, self.slots)) for f in self.folds) * outs
        return {
            "multiply_plain": len(self.diagonals),
            "rotate": rotations,
            "add": len(self.diagonals) + len(self.folds) * outs,
            "rescale": outs,
            "add_plain": outs,
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
        found |= {"rescale": self.outputs} if self.rescaled else {}
        return found | ({} if self.add is None else {"add_plain": self.outputs})

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

    def sources(self) -> list[tuple[int, ...]]:
        """Numbers of the steps that each step reads; :data:`INPUT` is the image."""
        read = [step.sources if isinstance(step, Linear) else () for step in self.steps]
        return [found or (i - 1,) for i, found in enumerate(read)]

    @cached_property
    def _along(self) -> tuple[list[str], list[int]]:
        steps = [
            Kind(step.name, sources, isinstance(step, Linear), bool(step.levels))
            for step, sources in zip(self.steps, self.sources(), strict=True)
        ]
        return kinds_along(steps)

    @property
    def levels(self) -> int:
        """Rescalings that follow each other."""
        return len(self.kinds())

    def kinds(self) -> list[str]:
        """What each level is for: ``linear``, ``joint`` for a linear layer with the square before it, ``square``."""
        return self._along[0]

    def starts(self) -> list[int]:
        """Levels that are used up where each step starts."""
        return self._along[1]

    def lowered(self) -> list[list[int]]:
        """Of each step: levels used up by the ciphertexts that it reads from above, which are brought down first."""
        ends = {INPUT: 0, **{i: used for i, (_, used) in enumerate(self.depth())}}
        counts = {INPUT: self.input_ciphertexts}
        counts |= {i: len(s.bias) if isinstance(s, Linear) else s.outputs for i, s in enumerate(self.steps)}
        return [
            [ends[s] for s in sources for _ in range(counts[s]) if ends[s] < start]
            for sources, start in zip(self.sources(), self.starts(), strict=True)
        ]

    def depth(self) -> list[tuple[str, int]]:
        """``(layer, levels used after it)``."""
        return [(step.name, start + step.levels) for step, start in zip(self.steps, self.starts(), strict=True)]

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
        return self.unpack(self.walk(np.stack([self.pack(image) for image in images]))[-1][:, 0])

    def walk(
        self, x: np.ndarray, before: Sequence[np.ndarray] = (), apply: Callable[[int, Any], Any] | None = None
    ) -> list[Any]:
        """Slots [N, ciphertexts, slots] behind every step, in the clear.

        Parameters
        ----------
        x
            Packed images.
        before
            What is known of the first steps already.
        apply
            How a step (by its number) is computed, by default :meth:`Linear.apply` and :meth:`Square.apply`.
        """
        found: list[Any] = list(before)
        work = apply or (lambda i, read: self.steps[i].apply(read))
        for i, sources in list(enumerate(self.sources()))[len(found) :]:
            found.append(work(i, _joined([x if s == INPUT else found[s] for s in sources])))
        return found


def _joined(parts: list[Any]) -> Any:
    """Ciphertexts of several steps, one after another."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts, axis=1) if isinstance(parts[0], np.ndarray) else _in_torch(parts)


def _in_torch(parts: list[Any]) -> Any:
    """The same for tensors."""
    import torch

    return torch.cat(parts, dim=1)
