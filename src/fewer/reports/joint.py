"""One network for two targets, an accelerator and encrypted inference: what each step does under both, on one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fewer.core.errors import FewerError
from fewer.reports.compression.data import RunReport
from fewer.reports.page import Chart, Page, Section, Series, Table, Tile

__all__ = ["Done", "joint_page", "order_of", "steps_of_circuit", "steps_of_run"]

TARGETS = ("accelerator", "encrypted")

STEPS = {
    "cut": ("pruning", "fewer weights", "fewer diagonals"),
    "bits": ("quantization", "fewer bits of weights and inputs", "fewer bits of the encrypted numbers"),
    "functions": ("non-linear operations", "integers in place of functions", "other degrees of the polynomials"),
}
"""Steps that are planned together: what the survey calls them, and what they are on an accelerator and encrypted."""


@dataclass(frozen=True)
class Done:
    """One step, alone or with the others, under one target.

    Attributes
    ----------
    step
        ``whole``, ``cut``, ``bits``, ``functions``, ``together``, ``taught`` or ``runs``.
    share
        Of the cost before; None where the step cannot be done alone.
    distance
        Squared distance from the network's results over their spread; None where it is not known.
    note
        More about it.
    """

    step: str
    share: float | None
    distance: float | None
    note: str = ""


def steps_of_run(report: RunReport) -> dict[str, Done]:
    """Steps of a plan for an accelerator.

    Raises
    ------
    FewerError
        When the report holds none.
    """
    if not report.steps:
        raise FewerError(
            "the report of the run has no steps of a joint plan; make it anew with: fewer compress --preset joint"
        )
    found = {one.name: Done(one.name, one.share, one.distance, one.note) for one in report.steps}
    scaled = any(one.distance is not None for one in report.steps)
    return {"whole": Done("whole", 1.0, 0.0 if scaled else None), **found}


def steps_of_circuit(facts: Mapping[str, Any]) -> dict[str, Done]:
    """Steps of a plan for encrypted inference.

    Raises
    ------
    FewerError
        When the circuit was not planned in steps.
    """
    rows: Sequence[Mapping[str, Any]] = (facts.get("cheaper") or {}).get("steps") or []
    if not rows:
        raise FewerError("the circuit was not planned in steps; make it anew with a budget and --preset joint")
    whole = next(row["ms"] for row in rows if row["step"] == "whole")
    return {
        row["step"]: Done(
            row["step"], None if row["ms"] is None else row["ms"] / whole, row["distance"], row.get("note", "")
        )
        for row in rows
    }


def order_of(steps: Mapping[str, Done]) -> list[str]:
    """Steps that can be done alone, in the order in which they help.

    The one that adds least distance for the share of the cost that it saves is first; one that saves nothing is last.

    Examples
    --------
    >>> order_of({"whole": Done("whole", 1, 0), "cut": Done("cut", 0.5, 0.2), "bits": Done("bits", 0.4, 0.1)})
    ['bits', 'cut']
    """
    start = steps["whole"].distance or 0.0

    def worth(name: str) -> tuple[bool, float]:
        done = steps[name]
        saved = 1 - (done.share or 0.0)
        added = (done.distance or 0.0) - start
        return saved <= 1e-9, added / saved if saved > 1e-9 else added

    able = [name for name in STEPS if name in steps and steps[name].share is not None]
    return sorted((name for name in able if steps[name].distance is not None), key=worth)


def joint_page(report: RunReport, circuit: Mapping[str, Any], places: tuple[str, str] = ("", "")) -> Page:
    """The page of one network under both targets.

    Parameters
    ----------
    report
        Of the run for an accelerator.
    circuit
        What the page of the circuit sums up (``data`` of ``circuit.json``).
    places
        Folders of both, for the reader.

    Raises
    ------
    FewerError
        When one of them was not planned in steps.
    """
    sides = steps_of_run(report), steps_of_circuit(circuit)
    cheaper, metric = circuit["cheaper"], report.steps[0].metric
    machine = str(report.settings.get("accelerator") or "")
    names = f"{metric} on {machine}" if machine else metric, "time of an encrypted image"
    budgets = ", ".join(one.budget for one in report.verdict.budgets), str(cheaper["budget"])
    met = report.verdict.met
    far = [side[last].distance for side, last in zip(sides, ("together", "runs"), strict=True)]
    # a run says how many of its images judged it, and a circuit does, too
    apart = report.data.heldout if report.data is not None else None
    return Page(
        title=f"{report.model.name} for two targets",
        badge="joint plan",
        good=met,
        sentence=(
            f"For {machine or 'the machine'} {budgets[0]} {'is met' if met else 'is NOT met'}, at a distance of "
            f"{_number(far[0])}; encrypted, {budgets[1]} is met, at a distance of {_number(far[1])}."
        ),
        tiles=[
            Tile(name=names[0], value=_number(sides[0]["together"].share), note="of the dense network; modelled"),
            Tile(name=names[1], value=_number(sides[1]["runs"].share), note=_of_prices(cheaper)),
            *(Tile(name=f"first step: {n}", value=_first(s)) for n, s in zip(TARGETS, sides, strict=True)),
        ],
        sections=[
            _steps_section(sides, names, budgets, apart == circuit.get("images")),
            _order_section(sides),
            Section(name="parts", title="The two parts", points=_parts(places)),
        ],
        data={
            "metrics": [metric, "he"],
            "budgets": list(budgets),
            "steps": [{name: vars(done) for name, done in side.items()} for side in sides],
            "order": [order_of(side) for side in sides],
            "images": [apart, circuit.get("images")],
        },
    )


def _of_prices(cheaper: Mapping[str, Any]) -> str:
    timed = "predicted from operations that were timed" if cheaper.get("measured") else "in ratios of no machine"
    return f"of the whole circuit; {timed}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _first(side: Mapping[str, Done]) -> str:
    order = order_of(side)
    return STEPS[order[0]][0] if order else "-"


def _parts(places: tuple[str, str]) -> list[str]:
    if not all(places):
        return ["Each part has a report of its own, with what every layer is given."]
    return [
        f"For the accelerator: {places[0]}, a run with a report of its own (report.html).",
        f"Encrypted: {places[1]}, a circuit with a page of its own (circuit.html); fewer private serve runs it.",
    ]


_ENDS = {
    "whole": ("nothing", "the dense network", "polynomials in place of functions"),
    "together": ("all together", "all that the plan has", "before it is taught"),
    "taught": ("all together, taught", "", "taught by the network itself (distillation)"),
    "runs": ("as it runs", "", "with the noise of encryption, modelled"),
}


def _steps_section(
    sides: tuple[Mapping[str, Done], ...], names: tuple[str, ...], budgets: tuple[str, ...], alike: bool
) -> Section:
    head = ["step"]
    for name in TARGETS:
        head += [name, "share of the cost", "distance"]
    rows = []
    for step, (title, *whats) in {**_some("whole"), **STEPS, **_some("together", "taught", "runs")}.items():
        row = [title]
        for side, what in zip(sides, whats, strict=True):
            done = side.get(step)
            # what was not taught, or has no bits to spare, needs no row of its own for that
            row += [_told(step, what, done), *(_number(None if done is None else v) for v in _values(done))]
        rows.append(row)
    judged = "the same held-out images" if alike else "images that nothing was fitted to, of each part its own"
    return Section(
        name="steps",
        title="What each step does under both targets",
        tables=[Table(head=head, rows=rows)],
        words=[
            f"The accelerator is planned for {budgets[0]} ({names[0]}), encrypted inference for {budgets[1]}. Each "
            "step stands alone first, and need not meet the budget.",
            f"Distance: squared, from the network's own results over their spread, on {judged}. 1 is as far as "
            "saying the same for every image. What ends a network and is left to the client, such as a softmax, is a "
            "part of the results for the accelerator, and not of those of the circuit.",
            "Both start from different networks: the accelerator from the dense one, encryption from polynomials and "
            "averages, which have a distance of their own.",
        ],
    )


def _some(*names: str) -> dict[str, tuple[str, str, str]]:
    return {name: _ENDS[name] for name in names}


def _told(step: str, what: str, done: Done | None) -> str:
    """What a step is under a target, or why it cannot be done alone there."""
    if done is None or done.share is None:
        return "-" if done is None else done.note or "-"
    return f"{what}; {done.note}" if step in STEPS and done.note else what


def _values(done: Done | None) -> tuple[float | None, float | None]:
    return (None, None) if done is None else (done.share, done.distance)


def _order_section(sides: tuple[Mapping[str, Done], ...]) -> Section:
    points, series = [], []
    for name, side, last in zip(TARGETS, sides, ("together", "runs"), strict=True):
        order = order_of(side)
        told = [f"{STEPS[s][0]} ({_number(side[s].share)} of the cost, {_number(side[s].distance)})" for s in order]
        points.append(f"{name.capitalize()}: {', then '.join(told) or 'no step can be done alone'}.")
        there = [side[s] for s in ("whole", *order, last) if s in side]
        both = [(d.share, d.distance) for d in there if d.share is not None and d.distance is not None]
        series.append(Series(label=name, x=[s for s, _ in both], y=[d for _, d in both]))
    chart = Chart(title="Distance against share of the cost", x="share of the cost", y="distance", series=series)
    return Section(
        name="order",
        title="The order in which the steps help",
        words=[
            "First what adds least distance for the share of the cost that it saves; what saves nothing is last. In "
            "brackets: share of the cost, and distance, of the step alone."
        ],
        points=points,
        charts=[chart] if any(one.x for one in series) else [],
    )
