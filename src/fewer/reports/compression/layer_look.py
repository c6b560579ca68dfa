"""How the figure of the layers looks: how long the bar of each layer is, and what its colour means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fewer.core.precision import PRECISIONS
from fewer.reports.compression.data import UnitResult
from fewer.reports.compression.layers import roles
from fewer.reports.figure import SERIES, Key, shorten
from fewer.reports.numbers import percent

__all__ = ["Look"]

FULL = 32
"""Bits of a weight that nobody rounded."""
_COLOUR = {"fp32": "c1", "bf16": "c2", "fp16": "c5", "int8": "c3", "int4": "c4"}
"""A precision has one colour in every report."""


@dataclass(frozen=True)
class Look:
    """What is drawn of each layer.

    Where weights went, a bar shows the share that stayed. Where none went and precisions were chosen, ten bars of
    100 % would say nothing, so a bar shows the bits of a weight.

    Attributes
    ----------
    values, texts
        Length of each layer's bar, 0 to 1, and the same in words.
    groups
        What gives each layer its colour: its precision where there are several, else its role.
    colours
        Role of the colour of each group, in the order of the legend.
    by_precision
        Which of the two it is.
    average, average_text
        Of the whole model.
    title, what, axis
        Heading, the quantity within a sentence, and the name of the axis.
    ticks
        Words at 0, 1/4, 1/2, 3/4 and 1.
    """

    values: list[float]
    texts: list[str]
    groups: list[str]
    colours: dict[str, str]
    by_precision: bool
    average: float
    average_text: str
    title: str
    what: str
    axis: str
    ticks: tuple[str, ...]

    @classmethod
    def of(cls, units: Sequence[UnitResult]) -> Look:
        """Choose what to show.

        Examples
        --------
        >>> def unit(name, precision):
        ...     return UnitResult(name=name, kind="linear", shape=[2, 2], option=f"dense/{precision}", pattern="dense",
        ...                       sparsity=0, precision=precision, kept_weights=4, weights=4)
        >>> look = Look.of([unit("a", "int8"), unit("b", "fp32")])
        >>> look.texts, look.average_text
        (['int8', 'fp32'], '20 bits')
        """
        found = [unit.precision for unit in units]
        by_precision = len(set(found)) > 1
        groups = found if by_precision else roles(units)
        order = _by_bits(groups) if by_precision else list(dict.fromkeys(groups))
        places = {name: SERIES[index % len(SERIES)] for index, name in enumerate(order)}
        colours = {name: _COLOUR.get(name, places[name]) if by_precision else places[name] for name in order}
        total = sum(unit.weights for unit in units)
        if all(unit.kept == 1 for unit in units) and any(_bits(name) < FULL for name in found):
            bits = sum(_bits(unit.precision) * unit.weights for unit in units) / total if total else FULL
            return cls(
                values=[_bits(name) / FULL for name in found],
                texts=[name if name in PRECISIONS else f"{name} ({_bits(name)} bits)" for name in found],
                groups=groups,
                colours=colours,
                by_precision=by_precision,
                average=bits / FULL,
                average_text=f"{bits:.3g} bits",
                title="Bits per weight in each layer",
                what="bits per weight",
                axis="bits per weight; no weight was removed",
                ticks=("0", "8", "16", "24", "32"),
            )
        average = sum(unit.kept_weights for unit in units) / total if total else 1.0
        return cls(
            values=[unit.kept for unit in units],
            texts=[percent(unit.kept) + (f" in {unit.precision}" if by_precision else "") for unit in units],
            groups=groups,
            colours=colours,
            by_precision=by_precision,
            average=average,
            average_text=percent(average),
            title="Weights kept in each layer",
            what="kept weights",
            axis="kept weights (% of the layer)",
            ticks=("0%", "25%", "50%", "75%", "100%"),
        )

    def keys(self) -> list[Key]:
        """The legend of the colours; empty where there is one only."""
        keys = [Key(shorten(name, 40), colour, line="area") for name, colour in self.colours.items()]
        return keys if len(keys) > 1 else []


def _bits(name: str) -> int:
    """Bits of a precision; a name that only a damaged report has counts as full."""
    known = PRECISIONS.get(name)
    return known.bits if known is not None else FULL


def _by_bits(groups: Sequence[str]) -> list[str]:
    return sorted(dict.fromkeys(groups), key=lambda name: (-_bits(name), name))
