"""The device profile: what every way to run a layer takes on one machine, measured once and kept."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text, explain_os_error
from fewer.core.ledger import Ledger
from fewer.core.reading import read_json
from fewer.cost.device import cache_folder, device_facts, device_key, differences
from fewer.cost.stopwatch import Stopwatch, Timing
from fewer.models.storage import tile_of

__all__ = ["CHECK", "KNOTS", "DeviceProfile", "open_profile"]

KNOTS = (0.0, 0.5, 0.8, 0.95)
"""Sparsities that are timed; the time of others follows from a line through them."""

CHECK = 0.65
"""A further sparsity, to see how wrong that is."""

SCHEMA = 1
_UNIT = {"fp32": 1, "bf16": 2, "int8": 4}
_REFERENCE = "reference_ms"


@dataclass(frozen=True)
class Quality:
    """How far a profile can be trusted.

    Attributes
    ----------
    points : int
        Timings.
    noisy : int
        Timings whose spread stayed too wide, although they were repeated.
    spread : float
        Median spread of the timings: interquartile range over median.
    error, worst : float
        Median and largest relative difference between a timing at :data:`CHECK` and the line through the others; NaN
        where there is none. It includes the noise of that timing.
    """

    points: int
    noisy: int
    spread: float
    error: float
    worst: float


class DeviceProfile:
    """Times of kernels on one machine, by layer and by way to run it.

    A time is kept as a multiple of a reference product (see :class:`~fewer.cost.stopwatch.Stopwatch`), and given as
    milliseconds of an undisturbed machine. A profile that belongs to this machine measures what is missing and adds
    it to a file in the user's cache at once; one that was made on another machine only answers what it knows.

    Parameters
    ----------
    facts
        The device, as :func:`fewer.cost.device.device_facts` describes it.
    points
        Timings, by ``layer | way``.
    reference_ms
        The quickest reference product.
    name
        For people.
    ledger
        Where new timings go; None for a profile that may not measure.

    Examples
    --------
    >>> profile = DeviceProfile({"cpu": "A"}, {"Linear 4x4 | dense": Timing(0.5, 0.01, 5)}, 2.0)
    >>> profile.ms("Linear 4x4", "dense")
    1.0
    """

    def __init__(
        self,
        facts: Mapping[str, Any],
        points: Mapping[str, Timing],
        reference_ms: float,
        name: str = "",
        ledger: Ledger | None = None,
    ) -> None:
        self.facts, self.points, self.name = dict(facts), dict(points), name
        self._ledger = ledger
        self._watch = Stopwatch(reference_ms) if ledger is not None else None
        self._reference_ms = reference_ms
        self.asked: set[str] = set()
        self.measured = 0

    @classmethod
    def here(cls, *, again: bool = False) -> DeviceProfile:
        """The profile of this machine and this number of threads, with everything measured so far.

        Parameters
        ----------
        again
            Forget what was measured, and start anew.
        """
        facts = device_facts()
        folder, key = cache_folder(), device_key(facts)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explain_os_error(error, folder, "make") from None
        path = folder / f"{key}.jsonl"
        if again:
            path.unlink(missing_ok=True)
        ledger = Ledger(path, key)
        results = dict(ledger.results)
        reference = results.pop(_REFERENCE, float("inf"))
        return cls(facts, {k: Timing(**v) for k, v in results.items()}, reference, "this machine", ledger)

    @classmethod
    def load(cls, path: str | Path) -> DeviceProfile:
        """Read a profile that :meth:`save` wrote; :meth:`warning` says whether it fits this machine.

        Raises
        ------
        FewerError
            When the file is missing, damaged or of another version.
        """
        path = Path(path)
        try:
            data = read_json(path, finite=True)
            if data["schema_version"] != SCHEMA:
                raise FewerError(f"{path} has schema version {data['schema_version']}; this fewer reads {SCHEMA}")
            points = {k: _timing(v) for k, v in data["points"].items()}
            reference = float(data["reference_ms"])
            if not 0 < reference < float("inf") or not isinstance(data["device"], dict):
                raise ValueError("a reference of no time, or no device")
            return cls(data["device"], points, reference, str(data["name"]))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise FewerError(f"{path} is not a device profile, or it is damaged ({error})") from None

    def save(self, path: str | Path, name: str = "") -> Path:
        """Write to a JSON file that can be used on another machine."""
        data = {
            "schema_version": SCHEMA,
            "name": name or self.name,
            "device": self.facts,
            "reference_ms": self.reference_ms,
            "points": {k: asdict(v) for k, v in sorted(self.points.items())},
        }
        return atomic_write_text(path, json.dumps(data, indent=1) + "\n")

    @property
    def reference_ms(self) -> float:
        """Milliseconds of the reference product on the undisturbed machine."""
        return self._reference_ms if self._watch is None else self._watch.reference_ms

    @property
    def can_measure(self) -> bool:
        """Whether it belongs to this machine and takes new timings."""
        return self._ledger is not None

    def warning(self) -> str | None:
        """One sentence when the profile is of another device than this one, else None."""
        other = differences(self.facts, device_facts())
        if not other:
            return None
        return (
            f"the profile {self.name!r} was measured on another device than this one ({'; '.join(other)}): the plan is "
            "for that device. To measure this one, leave --profile out"
        )

    def measure(
        self,
        layer: str,
        ways: Mapping[str, Callable[[], Callable[[], object]]],
        budget_ms: float = 30.0,
        again: Sequence[str] = (),
    ) -> int:
        """Time the ways of a layer that were not timed yet.

        Parameters
        ----------
        layer
            What is run.
        ways
            For each name a function that makes the callable to time (packing takes time, and may not be needed).
        budget_ms
            For each way.
        again
            Ways that are timed once more whenever another one is missing; the lower time counts.

        Returns
        -------
        int
            How many were timed now.

        Raises
        ------
        FewerError
            When timings are missing from a profile of another machine.
        """
        missing = [way for way in ways if _join(layer, way) not in self.points]
        self.asked.update(_join(layer, way) for way in ways)
        if not missing:
            return 0
        if self._ledger is None or self._watch is None:
            raise FewerError(
                f"the profile {self.name!r} has no time for {layer} ({missing[0]}); on that machine, run "
                "fewer profile MODEL --out FILE with the same batch and threads"
            )
        timed = [way for way in ways if way in missing or way in again]
        found = self._watch.time({way: ways[way]() for way in timed}, budget_ms=budget_ms)
        for way, timing in found.items():
            known = self.points.get(_join(layer, way))
            if known is not None and known.ratio <= timing.ratio:
                continue
            self.points[_join(layer, way)] = timing
            self._ledger.add(_join(layer, way), asdict(timing))
        if self._watch.reference_ms < self._reference_ms:
            self._reference_ms = self._watch.reference_ms
            self._ledger.add(_REFERENCE, self._reference_ms)
        self.measured += len(missing)
        return len(missing)

    def has(self, layer: str, way: str) -> bool:
        """Whether there is a time."""
        return _join(layer, way) in self.points

    def ms(self, layer: str, way: str) -> float:
        """Milliseconds of one call of a layer that was measured."""
        return self.points[_join(layer, way)].ratio * self.reference_ms

    def at(
        self, layer: str, way: str, pattern: str, sparsity: float, shape: Sequence[int], *, held_out: bool = False
    ) -> float:
        """Milliseconds at any sparsity of a block pattern, or of a layer without some ``columns`` or ``rows``.

        A kernel takes a constant time and a time for each block that it stores, so a straight line over the stored
        share is fitted to the sparsities that were timed. It is less noisy than any of them: a planner that compares
        thousands of options would otherwise pick those that were timed too well by chance.

        Parameters
        ----------
        layer, way, pattern, sparsity
            What is asked for.
        shape
            Of the weight.
        held_out
            Leave :data:`CHECK` out of the fit.
        """
        precision = way.rpartition(" ")[2]
        timed = [s for s in (*KNOTS, CHECK) if self.has(layer, way_of(way, pattern, s))]
        timed = [s for s in timed if not (held_out and s == CHECK)]
        work = np.array([stored_share(shape, pattern, s, precision) for s in timed])
        ms = np.array([self.ms(layer, way_of(way, pattern, s)) for s in timed])
        base, slope = _line(work, ms)
        return base + slope * stored_share(shape, pattern, sparsity, precision)

    def quality(self, asked_only: bool = True) -> Quality:
        """How noisy the timings are, and how far they are from a line over the stored blocks."""
        keys = [k for k in self.points if k in self.asked or not asked_only]
        spreads = [self.points[k].spread for k in keys]
        suffix = f"@{CHECK}"
        errors = []
        for key in keys:
            if key.endswith(suffix):
                layer, way = key.removesuffix(suffix).split(" | ")
                way, _, pattern = way.rpartition(" ")
                guess = self.at(layer, way, pattern, CHECK, _shape_in(layer), held_out=True)
                errors.append(abs(guess / self.ms(layer, f"{way} {pattern}{suffix}") - 1))
        nan = float("nan")
        return Quality(
            len(keys),
            sum(self.points[k].noisy for k in keys),
            float(np.median(spreads)) if spreads else nan,
            float(np.median(errors)) if errors else nan,
            float(np.max(errors)) if errors else nan,
        )


def stored_share(shape: Sequence[int], pattern: str, sparsity: float, precision: str) -> float:
    """Share of a weight's blocks that a kernel stores under a random mask of whole tiles.

    A kernel stores blocks of 16 rows and 1 (fp32), 2 (bf16) or 4 (int8) inputs; one that holds several smaller tiles
    goes only when all of them do.

    Examples
    --------
    >>> stored_share((64, 64), "block:16x4", 0.5, "int8"), stored_share((64, 64), "block:16x1", 0.5, "int8")
    (0.5, 0.9375)
    """
    if pattern in ("columns", "rows"):  # a smaller dense layer
        return 1.0 - sparsity
    height, width = tile_of(pattern)
    rows, cols = shape[0], math.prod(shape[1:])
    tiles = math.ceil(rows / height) * math.ceil(cols / width)
    gone = math.ceil(tiles * sparsity - 1e-9) / tiles
    inside = max(1.0, _UNIT.get(precision, 1) / width) * max(1.0, 16 / height)
    return 1.0 - gone**inside


def _line(work: np.ndarray, ms: np.ndarray) -> tuple[float, float]:
    """Constant and slope, neither negative, of least relative squared error."""
    weight = 1 / np.maximum(ms, 1e-9)
    matrix = np.stack([np.ones_like(work), work], 1) * weight[:, None]
    base, slope = np.linalg.lstsq(matrix, ms * weight, rcond=None)[0]
    if slope < 0 or len(set(work.tolist())) < 2:
        return float(1 / weight.mean()), 0.0
    if base < 0:
        return 0.0, float((work / ms).sum() / ((work / ms) ** 2).sum())
    return float(base), float(slope)


def _shape_in(layer: str) -> tuple[int, ...]:
    """The shape of the weight in the key of a layer, ``Linear 64x32 on 8x32``."""
    return tuple(int(n) for n in layer.split(" ")[1].split("x"))


def way_of(way: str, pattern: str, sparsity: float) -> str:
    """Name of a way at a sparsity; at 0 the pattern makes no difference.

    Examples
    --------
    >>> way_of("native int8", "block:16x4", 0.5), way_of("native int8", "block:16x4", 0)
    ('native int8 block:16x4@0.5', 'native int8')
    """
    return f"{way} {pattern}@{sparsity}" if sparsity else way


def _join(layer: str, way: str) -> str:
    return f"{layer} | {way}"


def knots(check: bool = True) -> Sequence[float]:
    """Sparsities above 0 to time for every pattern."""
    return sorted([*KNOTS[1:], CHECK]) if check else KNOTS[1:]


def open_profile(path: str | Path | None, *, again: bool = False) -> tuple[DeviceProfile, str | None]:
    """This machine's profile, or one from a file with a warning when it is of another device."""
    if path is None:
        return DeviceProfile.here(again=again), None
    found = DeviceProfile.load(path)
    warning = found.warning()
    if warning is None:  # made here: what it lacks can be measured
        mine = DeviceProfile.here()
        mine.points = {**found.points, **mine.points} if mine.reference_ms == found.reference_ms else mine.points
        return mine, None
    return found, warning


def _timing(values: dict[str, Any]) -> Timing:
    made = Timing(**values)
    numbers = (made.ratio, made.spread, made.rounds)
    if not all(type(one) in (int, float) and 0 <= one < float("inf") for one in numbers):
        raise ValueError(f"a time of {made.ratio!r}")
    return made
