"""Stages in the slots of ciphertexts: where their numbers stand, and their matrices as diagonals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.private.circuit import INPUT, Circuit, Linear, Square, Step
from fewer.private.matrices import identity
from fewer.private.packing import Grid, Ring, diagonals
from fewer.private.stages import IMAGE, Affine, Stage

__all__ = ["DoesNotFit", "largest_constant", "pack_stages"]

Place = Grid | Ring
Terms = Mapping[int, Tensor | None]


class DoesNotFit(FewerError):
    """Numbers that need a larger ciphertext."""


def pack_stages(stages: Sequence[Stage], shape: tuple[int, ...], slots: int) -> Circuit:
    """Put the stages of a network into ciphertexts of so many slots.

    Parameters
    ----------
    stages
        Of :func:`~fewer.private.stages.stages_of`.
    shape
        Of one image.
    slots
        Of a ciphertext.

    Raises
    ------
    DoesNotFit
        When a layer has too many numbers for it.
    """
    stages = _merged(stages)
    side = _side(stages, shape)
    if side**2 > slots and len(shape) == 3:
        raise DoesNotFit(
            f"an image of {shape[1]} x {shape[2]} takes a square of {side} x {side} slots, and a ciphertext has "
            f"{slots}; take smaller images"
        )
    first: Place = Grid(*shape, side=side) if len(shape) == 3 else Ring(int(np.prod(shape)), slots)
    first = first.repeated(slots) if isinstance(first, Grid) else first
    inputs = first.places() + np.arange(0, slots, first.period or slots)[:, None]
    counts = {IMAGE: -(-int(inputs.max() + 1) // slots)}
    places: dict[int, Place] = {IMAGE: first}
    ends = {IMAGE: INPUT}
    steps: list[Step] = []
    for k, stage in enumerate(stages):
        sources = [(s, places[s], counts[s]) for s in stage.sources]
        step, places[k] = _linear(stage, sources, side, slots)
        steps.append(replace(step, sources=tuple(ends[s] for s in stage.sources)))
        counts[k] = len(step.bias)
        steps += _squares(stage, counts[k], slots)
        ends[k] = len(steps) - 1
    last = places[len(stages) - 1].places()
    if last.max() >= slots:
        raise DoesNotFit(f"{len(last)} results do not fit into a ciphertext of {slots} slots")
    return Circuit(tuple(steps), slots, shape, inputs, counts[IMAGE], last)


def largest_constant(stages: Sequence[Stage]) -> float:
    """Magnitude of what is added to the results at the end, which has to fit into the last prime like they do."""
    return float(_merged(stages)[-1].affine.constant.abs().max())


def _squares(stage: Stage, outputs: int, slots: int) -> list[Step]:
    if stage.squares is None:
        return []
    found: list[Step] = []
    for shift in (*stage.squares.shifts[1:], None):
        everywhere = None if shift is None else np.full(slots, shift)
        found.append(Square(stage.activation, everywhere, outputs, shift is not None))
    return found


def _merged(stages: Sequence[Stage]) -> list[Stage]:
    """Factors and constants of polynomials become a part of the matrices around them."""
    found: list[Stage] = []
    signs: list[float] = []
    for stage in stages:
        terms, constant = {}, stage.affine.constant
        for source, matrix in stage.affine.terms.items():
            sign, before = 1.0, stages[source].squares if source != IMAGE else None
            if before is not None:
                sign = signs[source]
                ones = torch.full((len(stages[source].affine.constant),), before.rest, dtype=torch.float64)
                constant = constant + (ones if matrix is None else torch.mv(matrix, ones))
            terms[source] = (matrix, sign)
        squares, factor = stage.squares, 1.0
        if squares is not None:
            # a power of the outer factor goes in front, so that numbers stay near 1
            factor = abs(squares.outer) ** (1 / squares.degree)
            shifts = tuple(s * factor ** (2**i) for i, s in enumerate(squares.shifts))
            constant = constant * factor + shifts[0]
            signs.append(float(np.sign(squares.outer)))
            squares = replace(squares, shifts=(0.0, *shifts[1:]), outer=signs[-1], rest=0.0)
        else:
            signs.append(1.0)
        made = {s: _times(m, sign * factor, stage) for s, (m, sign) in terms.items()}
        found.append(replace(stage, affine=replace(stage.affine, terms=made, constant=constant), squares=squares))
    return found


def _times(matrix: Tensor | None, factor: float, stage: Stage) -> Tensor:
    return ((identity(len(stage.affine.constant)) if matrix is None else matrix) * factor).coalesce()


def _gaps(affine: Affine) -> tuple[int, int] | None:
    """Distance of neighbouring pixels in slots, or None where numbers stand in a row."""
    shape, spacing = affine.shape, affine.spacing
    if len(shape) != 4 or spacing is None or shape[2] * shape[3] == 1:
        return None
    if any(s < 1 or s != int(s) for s in spacing):
        return None
    return int(spacing[0]), int(spacing[1])


def _side(stages: Sequence[Stage], shape: tuple[int, ...]) -> int:
    """Of the square that holds a channel: the smallest power of two that every stage fits into."""
    if len(shape) != 3:
        return 0
    most = max(shape[1:])
    for stage in stages:
        gaps = _gaps(stage.affine)
        if gaps is not None:
            most = max(most, stage.affine.shape[2] * gaps[0], stage.affine.shape[3] * gaps[1])
    return 1 << (most - 1).bit_length()


def _linear(stage: Stage, sources: Sequence[tuple[int, Place, int]], side: int, slots: int) -> tuple[Linear, Place]:
    affine, gaps = stage.affine, _gaps(stage.affine)
    if gaps is not None and side:
        target = Grid(*affine.shape[1:], side=side, gap=gaps[0], across=gaps[1])
        return _grid(stage, sources, target, slots)
    return _ring(stage, sources, slots)


def _entries(affine: Affine, source: int, place: Place) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, slots of the numbers that are read, and weights."""
    matrix = affine.terms[source]
    assert matrix is not None
    rows, columns = matrix.indices().numpy()
    return rows, place.places()[columns], matrix.values().numpy()


def _grid(stage: Stage, sources: Sequence[tuple[int, Place, int]], target: Grid, slots: int) -> tuple[Linear, Grid]:
    """An image that is repeated through the ciphertext stays so: each copy is made of the copies that are nearest."""
    periods = [place.period for _, place, _ in sources]
    repeats = np.zeros(1, dtype=int)
    if all(periods):
        target = target.repeated(slots, max(periods))
        repeats = np.arange(0, slots, target.period or slots)
    there = target.places()
    found: dict[tuple[int, int, int], np.ndarray] = {}
    offset = 0
    for source, place, count in sources:
        rows, columns, values = _entries(stage.affine, source, place)
        rows = (there[rows][:, None] + repeats).reshape(-1)
        columns = np.repeat(columns, len(repeats))
        if place.period:
            columns = columns + (rows % slots) // place.period * place.period
        _add(found, diagonals(rows, columns, np.repeat(values, len(repeats)), slots), offset)
        offset += count
    outs = -(-target.groups * target.side**2 // slots)
    bias = np.zeros(outs * slots)
    bias[there + repeats[:, None]] = stage.affine.constant.numpy()
    return _built(stage.name, found, tuple(bias.reshape(-1, slots)), (), slots), target


def _ring(stage: Stage, sources: Sequence[tuple[int, Place, int]], slots: int) -> tuple[Linear, Ring]:
    """Fewer results than slots: the matrix is wrapped around, and partial sums are added up by rotations."""
    out = len(stage.affine.constant)
    period = 1 << (out - 1).bit_length()
    if period > slots:
        raise DoesNotFit(f"{stage.name!r}: {out} numbers in a row do not fit into a ciphertext of {slots} slots")
    # what is repeated is repeated after twice the distance, too
    around = max([period, *(place.period or slots for _, place, _ in sources)])
    repeats = np.arange(0, slots, around)
    found: dict[tuple[int, int, int], np.ndarray] = {}
    offset = 0
    for source, place, count in sources:
        i, columns, values = _entries(stage.affine, source, place)
        turn = (columns - i) % period
        rows = (columns - turn) % around
        # a vector that is repeated through the slots stays so
        rows = (rows[:, None] + repeats).reshape(-1)
        start = columns // slots * slots
        local = (rows.reshape(-1, len(repeats)) + turn[:, None]) % slots + start[:, None]
        _add(found, diagonals(rows, local.reshape(-1), np.repeat(values, len(repeats)), slots), offset)
        offset += count
    folds = []
    while period * 2 ** len(folds) < around:
        folds.append(period * 2 ** len(folds))
    bias = np.zeros(period)
    bias[:out] = stage.affine.constant.numpy()
    target = Ring(out, period)
    return _built(stage.name, found, (np.tile(bias, slots // period),), tuple(folds), slots), target


def _add(
    found: dict[tuple[int, int, int], np.ndarray], more: dict[tuple[int, int, int], np.ndarray], offset: int
) -> None:
    for (out, source, turn), vector in more.items():
        found[out, source + offset, turn] = vector


def _built(name: str, found: dict, bias: tuple[np.ndarray, ...], folds: tuple[int, ...], slots: int) -> Linear:
    for out in set(range(len(bias))) - {key[0] for key in found}:
        found[out, 0, 0] = np.zeros(slots)  # a ciphertext of constants alone is made of something, too
    return Linear.build(name, found, bias, folds, slots)
