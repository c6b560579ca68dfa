"""Each step of a joint plan alone, and all together: degrees of functions, diagonals, bits, and encryption itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fewer.core.errors import FewerError
from fewer.private.circuit import Circuit
from fewer.private.price import Prices, predict_ms
from fewer.private.security import Parameters
from fewer.private.shrink import shrink
from fewer.private.simulator import noise_of
from fewer.private.verdict import Left, distance

__all__ = ["Joint", "StepRow", "said_by", "step_rows"]

Made = tuple[Circuit, Parameters]
Rows = Callable[..., "StepRow"]


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
        Squared distance from the results of the network over their spread, on the images that judge.
    step
        ``cut``, ``bits``, ``functions``, ``whole``, ``together``, ``taught`` or ``runs``, as other targets name theirs.
    note
        More about it.
    """

    step: str
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
    other
        Where that is none: the network with other degrees that is nearest to the whole one within the budget, and its
        words; None where there is no such network.
    budget
        That was planned for; diagonals alone are told for it where they cannot be as quick as the plan.
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
    other: tuple[Made, str] | None = None
    budget: str = ""


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
    plan: Joint,
    known: np.ndarray,
    held: np.ndarray,
    wanted: np.ndarray,
    prices: Callable[[Parameters], Prices],
    answer: Sequence[int] = (),
    left: Left = (),
) -> list[StepRow]:
    """The whole circuit, each step alone in the order in which they help, and the steps together.

    Steps that add least distance for the time that they save come first. A step that the plan does without is told as
    well. A cut alone takes the same share of the time from the whole circuit that it takes from the network with other
    degrees; one that is not planned takes all that the budget asks for.

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
    answer, left
        Of the network, see :func:`~fewer.private.verdict.distance`.
    """

    def row(step: str, name: str, kind: str, made: Made, noisy: bool = False, note: str = "") -> StepRow:
        said = said_by(made[0], held, made[1] if noisy else None)
        far = distance(said, wanted, answer, left)
        return StepRow(step, name, kind, predict_ms(made[0], prices(made[1])), far, note)

    def cut_of(made: Made) -> Made:
        return shrink(made[0], known, _share(plan.cut), prices(made[1])).circuit, made[1]

    whole = row("whole", "the whole circuit: polynomials in place of functions", "whole", plan.whole)
    together = [whole]
    alone = [_degrees_alone(plan, row), _cut_alone(plan, row, known, prices), _bits_alone(plan, row)]
    if plan.taught or plan.cut < 1 or plan.fewer_bits:
        note = "before it is taught" * plan.taught
        try:
            before = cut_of(plan.start) if plan.cut < 1 else plan.start
            together.append(row("together", "all steps together", "together", before, note=note))
        except FewerError as error:  # other diagonals went from a network that was taught first
            together.append(StepRow("together", "all steps together", "together", None, None, str(error)))
    if plan.taught:
        together.append(row("taught", "all steps together, taught", "together", plan.end))
    noise = f"ring of degree {plan.end[1].degree}, numbers of {plan.end[1].scale_bits} bits; the noise is modelled"
    together.append(row("runs", "all steps together, encrypted", "together", plan.end, noisy=True, note=noise))
    return [whole, *sorted(alone, key=lambda r: _worth(r, whole)), *together[1:]]


def _share(share: float) -> str:
    """A budget that is no smaller than a share, so that the cut which had it meets it again."""
    return f"he={math.ceil(share * 1e6) / 1e6:.6f}x"


_NOT_PLANNED = "not in the plan"


def _degrees_alone(plan: Joint, row: Rows) -> StepRow:
    if plan.degrees:
        return row(
            "functions", f"only other degrees: {plan.degrees}", "alone", plan.start, note="with the ring that it needs"
        )
    if plan.other is not None:
        made, words = plan.other
        return row("functions", f"only other degrees: {words}", "alone", made, note=_NOT_PLANNED)
    return StepRow("functions", "only other degrees", "alone", None, None, "no other degrees meet the budget")


def _cut_alone(plan: Joint, row: Rows, known: np.ndarray, prices: Callable[[Parameters], Prices]) -> StepRow:
    share, planned = plan.cut, plan.cut < 1
    if not planned:
        share = predict_ms(plan.end[0], prices(plan.end[1])) / predict_ms(plan.whole[0], prices(plan.whole[1]))
    step, name, note = "cut", "only fewer diagonals", "" if planned else f"{_NOT_PLANNED}: for the same time"
    if share >= 1:
        return StepRow(step, name, "alone", None, None, "the plan takes no less time than the whole circuit")
    wishes = [
        (_share(share), note),
        *([(plan.budget, f"{_NOT_PLANNED}: for {plan.budget}")] if plan.budget else []),
    ]
    refused = ""
    for wish, said in wishes if not planned else wishes[:1]:
        try:
            cut = shrink(plan.whole[0], known, wish, prices(plan.whole[1])).circuit
        except FewerError as error:  # diagonals alone may not be as quick as the plan, and quick enough
            refused = refused or str(error)
            continue
        return row(step, name, "alone", (cut, plan.whole[1]), note=said)
    return StepRow(step, name, "alone", None, None, refused)


def _bits_alone(plan: Joint, row: Rows) -> StepRow:
    if plan.coarse is not None:
        name = f"only fewer bits: numbers of {plan.coarse[1].scale_bits}"
        note = "with its noise, which is modelled"
        note = note if plan.fewer_bits else f"{_NOT_PLANNED}; {note}"
        return row("bits", name, "alone", plan.coarse, noisy=True, note=note)
    why = "the whole circuit has too many levels or numbers for a smaller ring"
    return StepRow("bits", "only fewer bits", "alone", None, None, why)


def _worth(row: StepRow, whole: StepRow) -> float:
    """Distance that a step adds for each share of the time that it saves; least first, what cannot stand alone last."""
    if row.ms is None or row.distance is None or whole.ms is None or whole.distance is None:
        return float("inf")
    saved = max(1 - row.ms / max(whole.ms, 1e-12), 1e-6)
    return (row.distance - whole.distance) / saved
