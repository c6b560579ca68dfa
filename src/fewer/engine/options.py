"""The options of every unit and what each costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fewer.core.option import Option
from fewer.core.precision import PRECISIONS
from fewer.core.unit import Unit
from fewer.engine.settings import Settings
from fewer.models.storage import packed_bytes
from fewer.models.surgery import Link
from fewer.patterns import Pattern, column_ladder, kept_bound, option_grid
from fewer.patterns.grid import default_sparsities

__all__ = ["option_bytes", "option_costs", "unit_options"]


def unit_options(
    units: Sequence[Unit], settings: Settings, links: Sequence[Link] = (), stored: Mapping[str, str] | None = None
) -> dict[str, tuple[Option, ...]]:
    """Options of every unit by name. An option that keeps as many weights as one before is left out.

    The units of a link are offered columns (the consumer), rows (the producers) and reads (other readers) of the same
    sparsities. Without any sparsity a unit keeps its weights, and precisions alone are offered. A unit that comes in
    few bits (``stored``: precision by name) is offered no more bits than that, unless time or energy is measured: then
    kernels decide which precisions there are.

    Examples
    --------
    >>> found = unit_options([Unit("a", "linear", (4, 8))], Settings(sparsities=(0.5,)), stored={"a": "int4"})
    >>> [str(option) for option in found["a"]]
    ['dense/int4', 'unstructured@0.5/int4']
    """
    few = {} if settings.measure else dict(stored or {})
    sparsities = default_sparsities(len(units)) if settings.sparsities is None else settings.sparsities
    precisions = {unit.name: _at_most(few.get(unit.name), settings.precisions) for unit in units}
    ladders = {(few.get(n), p): _ladder(settings, sparsities, few.get(n), p) for n, p in precisions.items()}
    if not sparsities:
        links = ()
    found: dict[str, tuple[Option, ...]] = {}
    for unit in units:
        options, kept, cut = [], {}, {}
        for option in ladders[few.get(unit.name), precisions[unit.name]]:
            count = kept_bound(unit.rows, unit.cols, Pattern.parse(option.pattern), option.sparsity)
            # every precision of a cut that goes further than the one before it
            if count < kept.get(option.family, unit.numel) or cut.get(option.family) == option.sparsity:
                kept[option.family], cut[option.family] = count, option.sparsity
                options.append(option)
            elif option.is_dense:
                options.append(option)
        found[unit.name] = tuple(options)
    by_name = {unit.name: unit for unit in units}
    for link in links:
        reader = by_name[link.consumer]
        taps = reader.cols // reader.shape[1]
        # a flattened image is a run of columns for each channel; a kernel has a column of it at every tap
        wide = link.size * reader.shape[1] // link.channels
        columns = str(Pattern("columns", width=wide, taps=taps, parts=link.runs if link.parts else ()))
        for name in link.units:
            pattern = columns if name == link.consumer else f"rows:{link.size}"
            if name in link.readers:
                pattern = f"reads:{link.size}"
            shares = column_ladder(link.steps, sparsities)
            found[name] += tuple(Option(pattern, s, p) for s in shares for p in precisions[name])
    return found


def _at_most(stored: str | None, precisions: tuple[str, ...]) -> tuple[str, ...]:
    """The precisions that a unit is offered: what it is stored in, and those of fewer bits."""
    if stored is None:
        return precisions
    return (stored, *(p for p in precisions if PRECISIONS[p].bits < PRECISIONS[stored].bits))


def _ladder(
    settings: Settings, sparsities: Sequence[float], stored: str | None, precisions: tuple[str, ...]
) -> list[Option]:
    """All options, the one that changes nothing first; dense ones alone where nothing is cut."""
    grid = [o for o in option_grid(settings.pattern, sparsities, precisions) if sparsities or o.is_dense]
    return grid if stored is None else [o for o in grid if o.precision in precisions]


def option_costs(unit: Unit, options: Sequence[Option], itemsize: int = 4) -> dict[str, list[float]]:
    """Cost of each option: ``weights`` kept, ``macs`` and ``flops`` per sample, ``size`` in bytes.

    ``itemsize`` is the number of bytes of one weight in the model: a half-precision model takes half the size.

    Examples
    --------
    >>> option_costs(Unit("a", "linear", (4, 8), positions=2), [Option(), Option("unstructured", 0.5)])["flops"]
    [128.0, 64.0]
    """
    kept = [kept_bound(unit.rows, unit.cols, Pattern.parse(o.pattern), o.sparsity) for o in options]
    return {
        "weights": [float(k) for k in kept],
        "macs": [k * unit.positions for k in kept],
        "flops": [2.0 * k * unit.positions for k in kept],
        "size": [option_bytes(unit, o, k, itemsize) for k, o in zip(kept, options, strict=True)],
    }


def option_bytes(unit: Unit, option: Option, kept: int, itemsize: int = 4) -> float:
    """Bytes of a unit's weight in the artefact, scales of integers included.

    Examples
    --------
    >>> option_bytes(Unit("a", "linear", (40, 80)), Option("dense", precision="int8"), 3200)
    3457.0
    """
    precision = option.precision if itemsize == 4 else "fp32"  # a half-precision model is stored as it is
    return float(packed_bytes(unit.shape, option.pattern, kept, itemsize, precision, unit.name))
