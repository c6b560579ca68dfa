"""Each step of a joint plan alone, and all together: degrees of functions, diagonals, bits, and encryption itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fewer.core.errors import FewerError
from fewer.private.circuit import Circuit
from fewer.private.price import Prices, predict_ms
from fewer.private.security import Parameters
from fewer.private.shrink import shrink
from fewer.private.simulator import noise_of
from fewer.private.verdict import distance

__all__ = ["Joint", "StepRow", "said_by", "step_rows"]

Made = tuple[Circuit, Parameters]


@dataclass(frozen=True)
class StepRow:
    """One row of the report.

    Attributes
    ----------
    name
        What was done.
    kind
        ``whole``, ``alone`` or ``together``.
    ms
        Predicted, or in ratios; None where it cannot be done alone.
    distance
        Squared distance from the results of the network over their spread, on images that nothing was fitted to.
    note
        More about it.
    """

    name: str
    kind: str
    ms: float | None
    distance: float | None
    note: str = ""


@dataclass(frozen=True, eq=False)
class Joint:
    """What a joint plan consists of.

    Attributes
    ----------
    whole
        The circuit without a budget.
    start
        With other degrees and bits, before diagonals went and before it was taught.
    end
        The one that was chosen.
    coarse
        The whole circuit with fewer bits; None where no smaller ring then does.
    degrees
        Which activations have another degree, in words.
    cut
        What is left of the time when diagonals have gone, as a share.
    fewer_bits
        Whether the plan has fewer bits.
    taught
        Whether the plan was taught.
    """

    whole: Made
    start: Made
    end: Made
    coarse: Made | None
    degrees: str
    cut: float
    fewer_bits: bool
    taught: bool


def said_by(circuit: Circuit, images: np.ndarray, parameters: Parameters | None = None) -> np.ndarray:
    """Results [N, outputs] in the clear; with parameters, noise of the size that the simulator gives is added to them.

    Parameters
    ----------
    circuit
        To be run.
    images
        [N, ...].
    parameters
        Of its encryption.
    """
    parts = [circuit.run(images[i : i + 20]) for i in range(0, len(images), 20)]
    said = np.concatenate(parts)
    if parameters is None:
        return said
    size = max(noise_of(circuit, parameters, image) for image in images[:2])
    return said + np.random.default_rng(0).normal(0, size, said.shape)


def step_rows(
    plan: Joint, known: np.ndarray, held: np.ndarray, wanted: np.ndarray, prices: Callable[[Parameters], Prices]
) -> list[StepRow]:
    """The whole circuit, each step alone in the order in which they help, and the steps together.

    Steps that save most for each unit of distance that they add come first. A cut alone takes the same share of the
    time from the whole circuit that it takes from the network with other degrees.

    Parameters
    ----------
    plan
        What was planned.
    known
        Images on which diagonals are ranked.
    held
        Images that judge.
    wanted
        Results of the network on those.
    prices
        Of operations, by parameters.
    """

    def row(name: str, kind: str, made: Made, noisy: bool = False, note: str = "") -> StepRow:
        said = said_by(made[0], held, made[1] if noisy else None)
        return StepRow(name, kind, predict_ms(made[0], prices(made[1])), distance(said, wanted), note)

    def cut_of(made: Made) -> Made:
        return shrink(made[0], known, f"he={plan.cut:.6f}x", prices(made[1])).circuit, made[1]

    whole = row("the whole circuit: polynomials in place of functions", "whole", plan.whole)
    alone, together = [], [whole]
    if plan.degrees:
        name = f"only other degrees: {plan.degrees}"
        alone.append(row(name, "alone", plan.start, note="with the ring that is enough for it"))
    if plan.cut < 1:
        name, note = "only fewer diagonals", f"{1 - plan.cut:.0%} less time"
        try:
            alone.append(row(name, "alone", cut_of(plan.whole), note=note))
        except FewerError as error:
            alone.append(StepRow(name, "alone", None, None, str(error)))
    if plan.fewer_bits:
        name = f"only fewer bits: a scale of {plan.end[1].scale_bits}"
        if plan.coarse is None:
            alone.append(StepRow(name, "alone", None, None, "the whole circuit has too many levels for a smaller ring"))
        else:
            alone.append(row(name, "alone", plan.coarse, noisy=True, note="with its noise, which is modelled"))
    if len(alone) > 1 or plan.taught:
        before = cut_of(plan.start) if plan.cut < 1 else plan.start
        together.append(row("all steps together", "together", before, note="before it is taught" * plan.taught))
    if plan.taught:
        together.append(row("all steps together, taught", "together", plan.end))
    noise = f"ring of degree {plan.end[1].degree}, numbers of {plan.end[1].scale_bits} bits; the noise is modelled"
    together.append(row("all steps together, encrypted", "together", plan.end, noisy=True, note=noise))
    return [whole, *sorted(alone, key=lambda r: _worth(r, whole)), *together[1:]]


def _worth(row: StepRow, whole: StepRow) -> float:
    """Distance that a step adds for each share of the time that it saves; least first, what cannot stand alone last."""
    if row.ms is None or row.distance is None or whole.ms is None or whole.distance is None:
        return float("inf")
    saved = max(1 - row.ms / max(whole.ms, 1e-12), 1e-6)
    return (row.distance - whole.distance) / saved
