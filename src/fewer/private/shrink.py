"""Fewer diagonals, so fewer products and rotations: which ones, and how many in each layer for a budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from fewer.core.allocation.allocate import allocate
from fewer.core.curve import Curve, CurveSet
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.private.circuit import Circuit, Linear
from fewer.private.packing import split
from fewer.private.price import TYPICAL, Prices, message_ms, predict_ms, step_ms

__all__ = ["SHARES", "Shrunk", "rank_diagonals", "sense_circuit", "shrink"]

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Shares of diagonals that options take away."""


@dataclass(frozen=True)
class Shrunk:
    """A circuit within its budget, and what was planned.

    Attributes
    ----------
    options
        Layer to option.
    predicted_ms
        Of the new circuit, and ``before_ms`` of the old one, by the prices that were given.
    distortion
        Relative squared error of the outputs that the plan predicts (``predicted``) and that was measured.
    """

    circuit: Circuit
    options: dict[str, str]
    before_ms: float
    predicted_ms: float
    predicted: float
    distortion: float


def rank_diagonals(step: Linear, x: np.ndarray) -> list[tuple[int, int, int]]:
    """Diagonals in the order in which they should go: least distortion for what they cost first.

    The distortion of a diagonal is the mean square of what it adds to the sums. Diagonals of one rotation go together
    where the whole of it is weak, as only then the rotation goes: each one's distortion is mixed with the mean of its
    rotations.

    Parameters
    ----------
    step
        The layer.
    x
        Slots that go into it, [N, inputs, slots].
    """
    power = (x**2).mean(0)
    distortion = {(o, s, d): float((v**2 * np.roll(power[s], -d)).sum()) for (o, s, d), v in step.diagonals.items()}
    groups: dict[tuple[str, int, int], list[float]] = {}
    for (o, s, d), h in distortion.items():
        baby, giant = split(d, step.plan.step, step.slots)
        for key in (("baby", s, baby), ("giant", o, giant)):
            groups.setdefault(key, []).append(h)

    def mixed(key: tuple[int, int, int]) -> float:
        o, s, d = key
        baby, giant = split(d, step.plan.step, step.slots)
        return distortion[key] + 0.25 * (np.mean(groups["baby", s, baby]) + np.mean(groups["giant", o, giant]))

    return sorted(distortion, key=lambda key: (mixed(key), key))


def sense_circuit(
    circuit: Circuit, images: np.ndarray, prices: Prices = TYPICAL, shares: Sequence[float] = SHARES
) -> tuple[CurveSet, dict[tuple[str, int], Linear]]:
    """Curves of all linear layers: milliseconds, rotations and levels against the error of the outputs.

    Each option is measured with the very layer that would be put in, its bias moved so that the mean of its sums stays.

    Parameters
    ----------
    circuit
        The circuit.
    images
        [N, ...] for calibration.
    prices
        Of operations.
    shares
        Of diagonals that go.
    """
    packed = np.stack([circuit.pack(image) for image in images])
    inputs: list[np.ndarray] = []

    def noted(i: int, read: np.ndarray) -> np.ndarray:
        inputs.append(read)
        return circuit.steps[i].apply(read)

    behind = circuit.walk(packed, apply=noted)
    wanted = circuit.unpack(behind[-1][:, 0])
    size = float((wanted**2).sum())
    curves, made = [], {}
    base = step_ms(circuit, prices)
    for i, step in enumerate(circuit.steps):
        if not isinstance(step, Linear):
            continue
        order = rank_diagonals(step, inputs[i])
        options, cost, distortion, last = (
            [Option()],
            {"he": [base[i]], "rotations": [step.counts()["rotate"]]},
            [0.0],
            0,
        )
        made[step.name, 0] = step
        for share in shares:
            count = min(round(share * len(order)), len(order) - len(step.bias))
            if count <= last:
                continue
            new = _moved(step, step.without(set(order[:count])), inputs[i])
            if len(new.plan.giants) < len(step.bias):
                continue  # an output ciphertext would be left without any diagonal
            last = count
            x = circuit.walk(packed, [*behind[:i], new.apply(inputs[i])])[-1]
            options.append(Option("diagonal", count / len(order)))
            made[step.name, len(options) - 1] = new
            steps = (*circuit.steps[:i], new, *circuit.steps[i + 1 :])
            cost["he"].append(step_ms(replace(circuit, steps=steps), prices)[i])
            cost["rotations"].append(new.counts()["rotate"])
            distortion.append(float(((circuit.unpack(x[:, 0]) - wanted) ** 2).sum()) / size)
        cost["levels"] = [1.0] * len(options)
        unit = Unit(step.name, "function", (len(order),))
        curves.append(
            Curve(unit, tuple(options), {m: np.array(v, dtype=float) for m, v in cost.items()}, np.array(distortion))
        )
    squares = [i for i, s in enumerate(circuit.steps) if not isinstance(s, Linear)]
    taken = sum(circuit.steps[i].levels for i in squares)
    fixed = {
        "he": sum(base[i] for i in squares) + message_ms(circuit, prices),
        "rotations": 0.0,
        "levels": float(taken),
    }
    return CurveSet(tuple(curves), fixed=fixed), made


def _moved(old: Linear, new: Linear, x: np.ndarray) -> Linear:
    """The bias takes up the mean of what went."""
    gap = (old.apply(x) - new.apply(x)).mean(0)
    return replace(new, bias=tuple(b + g for b, g in zip(new.bias, gap, strict=True)))


def shrink(
    circuit: Circuit,
    images: np.ndarray,
    budget: str,
    prices: Prices = TYPICAL,
    came: Mapping[str, float] | None = None,
) -> Shrunk:
    """The circuit that distorts the outputs least within a budget: ``he=0.5x``, ``rotations=80``, ``levels=7``.

    Parameters
    ----------
    circuit
        The circuit.
    images
        [N, ...] for calibration.
    budget
        One or several.
    prices
        Of operations.
    came
        Costs that shares refer to, by metric; by default those of the circuit.

    Raises
    ------
    FewerError
        When the budget cannot be met.

    Examples
    --------
    >>> import torch
    >>> from fewer.private.compile import compile_circuit
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3))
    >>> images = torch.randn(20, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> circuit, _ = compile_circuit(net, images)
    >>> found = shrink(circuit, images.numpy(), "he=0.7x")
    >>> found.predicted_ms <= 0.7 * found.before_ms
    True
    """
    curves, made = sense_circuit(circuit, images, prices)
    curves = replace(curves, came=dict(came)) if came else curves
    if "he" not in budget and "rotations" not in budget and "levels" not in budget:
        raise FewerError(f"a circuit is planned for he, rotations or levels, not for {budget!r}; write he=0.5x")
    plan = allocate(curves, budget)
    chosen = {c.unit.name: int(k) for c, k in zip(curves.curves, plan.choice, strict=True)}
    steps = tuple(made[s.name, chosen[s.name]] if isinstance(s, Linear) else s for s in circuit.steps)
    new = replace(circuit, steps=steps)
    wanted, got = circuit.run(images), new.run(images)
    return Shrunk(
        new,
        {c.unit.name: str(c.options[k]) for c, k in zip(curves.curves, plan.choice, strict=True)},
        predict_ms(circuit, prices),
        predict_ms(new, prices),
        float(plan.distortion),
        float(((got - wanted) ** 2).sum() / (wanted**2).sum()),
    )
