"""The page of a circuit: what each layer costs, levels and noise along the depth, and answers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fewer.private.cheapen import Tried
from fewer.private.circuit import Circuit
from fewer.private.price import Prices, message_ms, predict_ms, step_ms
from fewer.private.security import Parameters
from fewer.private.trial import Depth, Trial
from fewer.private.verdict import decisions
from fewer.reports.page import Chart, Page, Section, Series, Table, Tile

__all__ = ["circuit_page", "layers_table", "noise_section", "ways_table"]

_NEAR = 0.01
"""Difference that encryption may make, as a share of the largest result."""

_WORDS = 6
"""Numbers of an answer that a table shows."""


def layers_table(title: str, circuit: Circuit, prices: Prices, trial: Trial) -> Table:
    """Operations, levels and milliseconds of each step."""
    head = ["layer", "products", "rotations", "squares", "levels", "ms predicted", "ms measured"]
    predicted = step_ms(circuit, prices)
    measured = [f"{ms:.0f}" if trial.encrypted else "-" for ms in trial.step_ms]
    rows = []
    for step, guess, got in zip(circuit.steps, predicted, measured, strict=True):
        rows.append([step.name, *_counts(step.counts()), str(step.levels), f"{guess:.0f}", got])
    message, whole = (f"{ms:.0f}" if trial.encrypted else "-" for ms in (trial.message_ms, trial.ms))
    rows.append(["read and write", "", "", "", "", f"{message_ms(circuit, prices):.0f}", message])
    rows.append(["all", *_counts(circuit.counts()), str(circuit.levels), f"{predict_ms(circuit, prices):.0f}", whole])
    return Table(title=title, head=head, rows=rows)


def _counts(counts: Mapping[str, int]) -> list[str]:
    return [str(counts.get(k, 0)) for k in ("multiply_plain", "rotate", "square")]


def noise_section(depths: Sequence[Depth], encrypted: bool) -> Section:
    """Levels that are left and bits that are right behind each step."""
    steps = [float(i + 1) for i in range(len(depths))]
    name = "decrypted after each layer" if encrypted else "simulated after each layer"
    chart = Chart(
        title="Bits that are right along the depth",
        x="layer",
        y="bits",
        series=[
            Series(label=name, x=steps, y=[d.bits for d in depths]),
            Series(label="modelled", x=steps, y=[d.modelled for d in depths]),
        ],
    )
    rows = [[d.name, str(d.levels), f"{d.bits:.1f}", f"{d.modelled:.1f}"] for d in depths]
    return Section(
        name="noise",
        title="Levels and noise",
        charts=[chart],
        tables=[Table(head=["after layer", "levels left", "bits right", "bits modelled"], rows=rows)],
        words=[
            "CKKS computes with approximate numbers. There is no budget of noise that runs out; levels do, and bits "
            "are lost on the way. Bits: the largest number over the largest error, of one image."
        ],
    )


def ways_table(tried: Sequence[Any]) -> Table:
    """Ways to meet a budget, of :class:`~fewer.private.cheapen.Tried`."""
    head = ["what was done", "ms predicted", "rotations", "levels", "loss on images apart"]
    rows = [
        [t.name, f"{t.cost['he']:.0f}", f"{t.cost['rotations']:.0f}", f"{t.cost['levels']:.0f}", _loss(t.loss)]
        for t in tried
    ]
    return Table(head=head, rows=rows)


def _loss(loss: float | None) -> str:
    return "over the budget, or too far from the network before it was taught" if loss is None else f"{loss:.3f}"


def steps_section(steps: Sequence[Mapping[str, Any]], budget: str, apart: bool) -> Section:
    """Each step of a joint plan alone and all together, of :class:`~fewer.private.joint.StepRow`."""
    whole = steps[0]["ms"]

    def words(row: Mapping[str, Any]) -> list[str]:
        if row["ms"] is None:
            return [row["name"], "-", "-", "-", f"not alone: {row['note']}"]
        return [row["name"], f"{row['ms']:.0f}", f"{row['ms'] / whole:.2f}", f"{row['distance']:.3g}", row["note"]]

    there = [row for row in steps if row["ms"] is not None]
    places = [float(i + 1) for i in range(len(there))]
    chart = Chart(
        title="Time and distance of each step",
        x="row of the table that has a time",
        y="share",
        series=[
            Series(label="time, share of the whole circuit", x=places, y=[row["ms"] / whole for row in there]),
            Series(label="distance from the network", x=places, y=[row["distance"] for row in there]),
        ],
    )
    head = ["step", "ms predicted", "share of the time", "distance from the network", "note"]
    return Section(
        name="steps",
        title="Each step alone, and all together",
        tables=[Table(head=head, rows=[words(row) for row in steps])],
        charts=[chart],
        words=[
            f"Functions, diagonals and bits were planned together for {budget}. Steps alone stand in the order in "
            "which they help: first what adds least distance for the time that it saves. They are not taught and need "
            "not meet the budget.",
            f"Distance: squared, from the network's own results over their spread, on images {_apart(apart)}. Bits of "
            "weights take no time here: products cost the same for all of them. Bits of the encrypted numbers do, "
            "where a smaller ring is enough for them.",
        ],
    )


def circuit_page(
    name: str, circuit: Circuit, parameters: Parameters, prices: Prices, trial: Trial, facts: Mapping[str, Any]
) -> Page:
    """The page that ``fewer private compile`` writes beside the circuit.

    Parameters
    ----------
    name
        Of the network.
    circuit, parameters
        What a server will run.
    prices
        Of operations.
    trial
        The circuit on some images, encrypted or on the simulator.
    facts
        What the verb tells, with ``agreement``, ``images``, ``answer``, ``left`` and, with a budget, ``cheaper``.
    """
    seal = trial.encrypted
    where = "encrypted" if seal else "simulated"
    total = predict_ms(circuit, prices)
    tiles = [
        _near(facts),
        Tile(
            name="time of one image",
            value=f"{trial.ms:.0f} ms" if seal else f"{total:.0f}",
            note=f"processor time of one thread; {total:.0f} predicted" if seal else "in ratios of no machine",
        ),
        Tile(
            name="levels", value=str(circuit.levels), note=f"ring of degree {parameters.degree}, 128 bits of security"
        ),
        Tile(
            name="memory of a server",
            value=f"{facts['server_bytes'] / 1e9:.2g} GB",
            note="weights as they are encoded for each client; keys come on top",
        ),
        Tile(
            name="largest difference", value=f"{trial.difference:.1g}", note=f"{where}, from the circuit in the clear"
        ),
    ]
    first = "Encrypted and decrypted here" if seal else "On the simulator, as TenSEAL is not installed"
    good, sentence = _verdict(trial, facts)
    return Page(
        title=f"A circuit of {name}",
        badge=where,
        good=good,
        sentence=f"{first}, {sentence}",
        tiles=tiles,
        sections=[
            Section(
                name="layers",
                title="What each layer costs",
                tables=[layers_table("", circuit, prices, trial)],
                words=[_of_prices(prices.measured)],
            ),
            *_budget(facts),
            noise_section(trial.depths, seal),
            _answers(trial, where, facts),
            Section(name="network", title="What became of the network", points=_became(facts)),
        ],
        data=_finite({k: v for k, v in facts.items() if k != "operations"}),
    )


def _finite(values: Any) -> Any:
    """The same with None for numbers that JSON does not have: a candidate whose results blew up is told, too."""
    if isinstance(values, Mapping):
        return {k: _finite(v) for k, v in values.items()}
    if isinstance(values, (list, tuple)):
        return [_finite(v) for v in values]
    return None if isinstance(values, float) and not np.isfinite(values) else values


def _apart(apart: bool) -> str:
    return "that nothing was fitted to" if apart else "that it was fitted to"


def _near(facts: Mapping[str, Any]) -> Tile:
    """How near the circuit is to the network."""
    note = f"{facts['images']} images {_apart(facts['apart'])}, in the clear"
    if facts["agreement"] is None:
        return Tile(
            name="squared distance from the network", value=f"{facts['distance']:.3g}", note=f"relative; {note}"
        )
    return Tile(name="same class as the network", value=f"{facts['agreement']:.1%}", note=note)


def _of_prices(measured: bool) -> str:
    if measured:
        return "Predicted: operations times what each of them took in a calibration of some seconds."
    return "Predicted times are ratios that stand for no machine, as no back end was installed to be timed."


def _budget(facts: Mapping[str, Any]) -> list[Section]:
    told = facts.get("cheaper")
    if told is None:
        return []
    rows = [[m, f"{told['before'][m]:.0f}", f"{told['after'][m]:.0f}"] for m in told["before"]]
    ways = [Tried(t["way"], t["cost"], t["loss"]) for t in told["tried"]]
    return [
        Section(
            name="budget",
            title=f"Planned for {told['budget']}",
            tables=[Table(head=["cost", "before", "after"], rows=rows), *([ways_table(ways)] if ways else [])],
            words=[
                f"Chosen: {told['way']}. Below are all ways that were compared, the least loss first; losses are "
                "those on images that did not teach. Other degrees were taught for a quarter of the steps, and the "
                "best of them for all."
            ],
        ),
        *([steps_section(told["steps"], told["budget"], facts["apart"])] if told.get("steps") else []),
    ]


def _verdict(trial: Trial, facts: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether encryption changed what results say, in words."""
    clear, got = (decisions(x, facts["answer"], facts["left"]) for x in (trial.clear, trial.scores))
    if clear is None or got is None:
        share = trial.difference / max(float(np.abs(trial.clear).max()), 1e-30)
        return share < _NEAR, f"results of {len(trial.scores)} images differ by {share:.1g} of the largest one."
    same = (clear == got).all(1)
    return bool(same.all()), f"{same.mean():.0%} of {len(same)} images get the class of the circuit in the clear."


def _shown(results: np.ndarray, facts: Mapping[str, Any]) -> list[str]:
    """What each image is said to be, or the numbers where they name no class."""
    decided = decisions(results, facts["answer"], facts["left"])
    rows = [[f"{x:.4g}" for x in row] for row in results] if decided is None else [list(map(str, r)) for r in decided]
    return [", ".join(row[:_WORDS]) + (", ..." if len(row) > _WORDS else "") for row in rows]


def _answers(trial: Trial, where: str, facts: Mapping[str, Any]) -> Section:
    gaps = np.abs(trial.scores - trial.clear).max(1)
    clear, got = (_shown(x, facts) for x in (trial.clear, trial.scores))
    rows = [[str(i), a, b, f"{gap:.1e}"] for i, (a, b, gap) in enumerate(zip(clear, got, gaps, strict=True))]
    head = ["image", "circuit in the clear", where, "largest difference"]
    return Section(name="answers", title="Answers side by side", tables=[Table(head=head, rows=rows)])


def _became(facts: Mapping[str, Any]) -> list[str]:
    points = ["Activations became polynomials of degree 2 or 4, fitted to the images that were given."]
    if facts["averaged"]:
        points.append(f"Maximum pooling became an average at {', '.join(facts['averaged'])}: teach it, with --steps.")
    if facts["left_to_the_client"]:
        points.append(f"Left to the client: {', '.join(facts['left_to_the_client'])} at the end.")
    return points
