"""Curves: what each option of each unit costs, and how much distortion it does."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.display import Fact, Shown, amount, counted
from fewer.core.errors import FewerError, near_match
from fewer.core.facts import check_facts
from fewer.core.files import atomic_write_bytes
from fewer.core.option import Option
from fewer.core.reading import parse_json, read_arrays, refusing
from fewer.core.unit import Unit

__all__ = ["Curve", "CurveSet"]

_FORMAT = 1
_OF_A_MACHINE = ("latency", "energy", "cycles")
_LIMIT = 2**27  # bytes, unpacked: a hundred layers with a hundred options each have less than a megabyte


def _vector(
    values: Any, length: int, what: str, unit: Unit, *, lowest: float = -math.inf, inf: bool = False
) -> np.ndarray:
    """Copy to a read-only float64 vector, or say which unit's numbers are wrong and how."""
    array = np.array(values, dtype=np.float64)
    if array.shape != (length,):
        raise FewerError(f"unit {unit.name!r}: {what} has shape {array.shape}, but there are {length} options")
    bad = np.isnan(array) if inf else ~np.isfinite(array)
    if bad.any():
        at = int(np.argmax(bad))
        raise FewerError(f"unit {unit.name!r}: {what} of option {at} is {array[at]}; sense this unit again")
    if array.size and array.min() < lowest:
        at = int(np.argmin(array))
        raise FewerError(
            f"unit {unit.name!r}: {what} of option {at} is {array[at]:g}, but it may not be below {lowest:g}"
        )
    array.flags.writeable = False
    return array


@dataclass(frozen=True, eq=False)
class Curve:
    """Costs and distortion of every option of one unit.

    Parameters
    ----------
    unit
        The unit.
    options
        K options; the first one is the dense layer as it came.
    cost
        For each metric a vector of K costs, not negative: ``weights`` (count), ``flops``, ``macs`` (count per
        sample), ``size`` (bytes), ``latency`` (ms), ``energy`` (J). Costs need not fall along the options.
    distortion
        Vector of K distortions; the first is exactly 0. The unit of measure is that of the distortion measure used.
    scores
        For each score name a vector of K: the score of the least important weight (or tile) that is still alive at
        the option, infinite when none is. Threshold allocators read ``magnitude`` and ``lamp``.

    Raises
    ------
    FewerError
        When lengths differ, a number is not finite, a cost is negative, or the first option is not a harmless
        dense one. The sentence names the unit.

    Examples
    --------
    >>> unit = Unit("head", "linear", (10, 10))
    >>> curve = Curve(unit, (Option(), Option("unstructured", 0.5)), {"weights": [100, 50]}, [0.0, 0.3])
    >>> curve.cost["weights"][1]
    np.float64(50.0)
    """

    unit: Unit
    options: tuple[Option, ...]
    cost: Mapping[str, np.ndarray]
    distortion: np.ndarray
    scores: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        options, n = tuple(self.options), len(self.options)
        if n == 0:
            raise FewerError(f"unit {self.unit.name!r} has no options; it needs at least the dense one")
        if not options[0].is_dense:
            raise FewerError(f"unit {self.unit.name!r}: the first option must be dense, not {str(options[0])!r}")
        if len(set(options)) != n:
            twice = next(o for i, o in enumerate(options) if o in options[:i])
            raise FewerError(f"unit {self.unit.name!r} has the option {str(twice)!r} twice; give each option once")
        set_ = object.__setattr__
        set_(self, "options", options)
        set_(self, "cost", {m: _vector(v, n, f"cost {m!r}", self.unit, lowest=0.0) for m, v in self.cost.items()})
        set_(self, "distortion", _vector(self.distortion, n, "distortion", self.unit))
        set_(self, "scores", {m: _vector(v, n, f"score {m!r}", self.unit, inf=True) for m, v in self.scores.items()})
        if self.distortion[0] != 0.0:
            raise FewerError(
                f"unit {self.unit.name!r}: the dense option has distortion {self.distortion[0]:g} instead of 0; "
                "measure distortion on a fixed calibration tensor"
            )

    def __len__(self) -> int:
        return len(self.options)


@dataclass(frozen=True, eq=False, repr=False)
class CurveSet(Shown):
    """All curves of one model, with what the rest of the model costs.

    Parameters
    ----------
    curves
        One curve per unit; names are unique and every curve measures the same metrics.
    fixed
        For each metric what the unpruned rest costs (biases, norms, attention products); 0 where absent.
    meta
        Facts for the reader, JSON values only (model spec, calibration images, machine, date). Not hashed.
    coupled
        Groups of unit names whose options must agree: all of them remove the same share, or none does
        (:mod:`fewer.core.couple`). No unit is in two.
    came
        Cost of the model as it came, by metric, where that is not the cost of all first options: something that is not
        a unit has been changed already (merged tokens), or runs otherwise (time on the quickest kernels). Budgets as
        shares refer to it.
    spent
        Distortion of that change, which every plan has.

    Raises
    ------
    FewerError
        When two units share a name, metrics differ between units, a fixed cost is not a finite number >= 0, or a
        group names a unit that there is not, that is in another one, or that cannot do what the others can.

    Examples
    --------
    >>> curve = Curve(Unit("head", "linear", (10, 10)), (Option(), Option("unstructured", 0.5)),
    ...               {"weights": [100, 50]}, [0.0, 0.3])
    >>> curves = CurveSet((curve,), fixed={"weights": 10})
    >>> curves.dense("weights"), curves.total("weights", [1])
    (110.0, 60.0)
    >>> curves
    Curves of 1 unit
      options per unit  2
      dense             weights 110
      the unit          head
    """

    curves: tuple[Curve, ...]
    fixed: Mapping[str, float] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    coupled: tuple[tuple[str, ...], ...] = ()
    came: Mapping[str, float] = field(default_factory=dict)
    spent: float = 0.0

    def shown(self) -> tuple[str, list[Fact]]:
        """How many units and options there are, and what the dense model costs."""
        sizes = sorted({len(curve.options) for curve in self.curves})
        names = [curve.unit.name for curve in self.curves]
        costs = [f"{metric} {amount(self.dense(metric))}" for metric in self.metrics]
        ends = names if len(names) < 4 else [*names[:2], "...", names[-1]]
        return f"Curves of {counted(len(names), 'unit')}", [
            ("options per unit", str(sizes[0]) if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"),
            ("dense", ", ".join(costs)),
            ("the unit" if len(names) == 1 else "units", ", ".join(ends)),
        ]

    def __post_init__(self) -> None:
        curves = tuple(self.curves)
        if not curves:
            raise FewerError("there are no curves: no unit of the model was sensed")
        names: set[str] = set()
        for curve in curves:
            if curve.unit.name in names:
                raise FewerError(f"two curves have the unit name {curve.unit.name!r}; unit names must be unique")
            names.add(curve.unit.name)
            if set(curve.cost) != set(curves[0].cost):
                raise FewerError(
                    f"unit {curve.unit.name!r} measures {_listed(curve.cost)}, but unit {curves[0].unit.name!r} "
                    f"measures {_listed(curves[0].cost)}; every unit needs the same metrics"
                )
        fixed = {}
        for metric, value in self.fixed.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise FewerError(f"the fixed cost {metric!r} is {value!r}; it must be a number")
            if metric not in curves[0].cost:
                raise FewerError(
                    f"a fixed cost is given for {metric!r}, which no curve measures{near_match(metric, curves[0].cost)}"
                )
            if not (math.isfinite(value) and value >= 0):
                raise FewerError(f"the fixed cost {metric!r} is {value}; it must be a finite number, at least 0")
            fixed[metric] = float(value)
        object.__setattr__(self, "curves", curves)
        object.__setattr__(self, "fixed", fixed)
        object.__setattr__(self, "meta", dict(self.meta))
        object.__setattr__(self, "coupled", tuple(tuple(group) for group in self.coupled))
        self._check_coupled()

    def _check_coupled(self) -> None:
        offered = {c.unit.name: {o.sparsity for o in c.options if o.removes} for c in self.curves}
        seen: set[str] = set()
        for group in self.coupled:
            for name in group:
                if name not in offered:
                    raise FewerError(f"a coupled group names the unit {name!r}{near_match(name, offered)}")
                if name in seen:
                    raise FewerError(f"the unit {name!r} is in two coupled groups")
                if offered[name] != offered[group[0]]:
                    raise FewerError(
                        f"the coupled units {group[0]!r} and {name!r} do not offer to remove the same shares"
                    )
                seen.add(name)
        for name, removes in offered.items():
            if removes and name not in seen:
                raise FewerError(f"the unit {name!r} offers to remove rows or columns, but it is in no coupled group")

    def __len__(self) -> int:
        return len(self.curves)

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """``coupled`` as indices of curves, each group in model order."""
        at = {c.unit.name: i for i, c in enumerate(self.curves)}
        return tuple(tuple(sorted(at[name] for name in group)) for group in self.coupled)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that every curve measures, sorted."""
        return tuple(sorted(self.curves[0].cost))

    @property
    def units(self) -> tuple[Unit, ...]:
        """The units, in order."""
        return tuple(c.unit for c in self.curves)

    def require(self, metric: str) -> None:
        """Raise a :class:`FewerError` that names the metrics there are, unless ``metric`` is one of them."""
        if metric not in self.curves[0].cost:
            # what depends on the machine is measured only where it is asked for
            how = f"; for one in {metric}, sense again with --measure {metric}" if metric in _OF_A_MACHINE else ""
            raise FewerError(f"these curves do not measure {metric!r}; they have {_listed(self.curves[0].cost)}{how}")

    def dense(self, metric: str) -> float:
        """Cost of the model as it came: the fixed part and every unit's first option, unless ``came`` has another."""
        if metric in self.came:
            return self.came[metric]
        return self.total(metric, [0] * len(self.curves))

    def total(self, metric: str, choice: Sequence[int] | np.ndarray) -> float:
        """Cost of the model with option ``choice[i]`` for unit i, correctly rounded whatever the order of units.

        Examples
        --------
        >>> curve = Curve(Unit("a", "linear", (2, 2)), (Option(),), {"weights": [4]}, [0.0])
        >>> CurveSet((curve,)).total("weights", [0])
        4.0
        """
        self.require(metric)
        costs = [float(c.cost[metric][k]) for c, k in zip(self.curves, choice, strict=True)]
        return math.fsum([self.fixed.get(metric, 0.0), *costs])

    def distortion(self, choice: Sequence[int] | np.ndarray) -> float:
        """Predicted distortion of a choice: the sum over units, and ``spent``."""
        return math.fsum([self.spent, *(float(c.distortion[k]) for c, k in zip(self.curves, choice, strict=True))])

    def hash(self) -> str:
        """SHA-256 of units, options, costs, distortions, scores and fixed costs (not of ``meta``), as hex text."""
        header, arrays = self._parts()
        header.pop("meta")
        digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
        for name in sorted(arrays):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(arrays[name], dtype="<f8").tobytes())
        return digest.hexdigest()

    def _parts(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Split into a JSON header and flat arrays, units one after the other."""
        names = sorted({s for c in self.curves for s in c.scores})
        header = {
            "format": _FORMAT,
            "metrics": list(self.metrics),
            "scores": {s: [c.unit.name for c in self.curves if s in c.scores] for s in names},
            "fixed": dict(self.fixed),
            "meta": dict(self.meta),
            **({"came": dict(self.came), "spent": self.spent} if self.came or self.spent else {}),
            "units": [{**dataclasses.asdict(c.unit), "options": [str(o) for o in c.options]} for c in self.curves],
        }
        if self.coupled:  # absent otherwise, so that the hash of curves without it stays what it was
            header["coupled"] = [list(group) for group in self.coupled]
        arrays = {"distortion": np.concatenate([c.distortion for c in self.curves])}
        for metric in self.metrics:
            arrays[f"cost.{metric}"] = np.concatenate([c.cost[metric] for c in self.curves])
        for s in names:
            arrays[f"score.{s}"] = np.concatenate([c.scores[s] for c in self.curves if s in c.scores])
        return header, arrays

    def save(self, path: str | Path) -> Path:
        """Write to an ``.npz`` file in one step. It holds plain arrays and a JSON header, never a pickle.

        Raises
        ------
        FewerError
            When ``meta`` is not JSON, or the file cannot be written.
        """
        header, arrays = self._parts()
        try:
            text = json.dumps(header, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise FewerError(f"the curves cannot be saved: meta must hold JSON values only ({error})") from None
        buffer = io.BytesIO()
        payload: dict[str, Any] = {"header": np.frombuffer(text.encode(), dtype=np.uint8), **arrays}
        np.savez_compressed(buffer, **payload)
        return atomic_write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> CurveSet:
        """Read a file that :meth:`save` wrote.

        Raises
        ------
        FewerError
            When the file is missing, damaged, of another format, or was not written by fewer.
        """
        path = Path(path)
        with refusing(str(path), "sense the model again"):
            try:
                text = read_arrays(path, {"header"}, _LIMIT)["header"].tobytes()
            except KeyError:
                raise FewerError(f"{path} is not a curve file of fewer: it has no header; sense again") from None
            header = parse_json(text, f"the header of {path}", finite=True)
            if header["format"] != _FORMAT:
                raise FewerError(
                    f"{path} holds curves of format {header['format']}, but this version reads format {_FORMAT}; "
                    "sense the model again"
                )
            check_facts(header["meta"], str(path))
            names = {"distortion", *(f"cost.{m}" for m in header["metrics"]), *(f"score.{s}" for s in header["scores"])}
            arrays = read_arrays(path, names, _LIMIT)
            for name in names:
                if name not in arrays:
                    raise FewerError(f"{path} is damaged: it lacks {name}; sense the model again")
                if arrays[name].ndim != 1 or arrays[name].dtype.kind not in "fiu":
                    raise FewerError(f"{path} is damaged: {name} is no list of numbers; sense the model again")
            return cls._from_parts(header, arrays)

    @classmethod
    def _from_parts(cls, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> CurveSet:
        sizes = [len(u["options"]) for u in header["units"]]
        where = dict(zip([u["name"] for u in header["units"]], np.cumsum([0, *sizes[:-1]]), strict=True))
        scores: dict[str, dict[str, np.ndarray]] = {name: {} for name in where}
        for s, names in header["scores"].items():
            at = 0
            for name, size in zip(where, sizes, strict=True):
                if name in names:
                    scores[name][s] = arrays[f"score.{s}"][at : at + size]
                    at += size
        for metric, value in header.get("came", {}).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise FewerError(f"the cost {metric!r} of the model as it came is {value!r}; it must be a number >= 0")
        curves = []
        for facts, size in zip(header["units"], sizes, strict=True):
            options = tuple(Option.parse(o) for o in facts.pop("options"))
            facts["shape"], facts["aliases"] = tuple(facts["shape"]), tuple(facts["aliases"])
            unit = Unit(**facts)
            part = slice(int(where[unit.name]), int(where[unit.name]) + size)
            cost = {m: arrays[f"cost.{m}"][part] for m in header["metrics"]}
            curves.append(Curve(unit, options, cost, arrays["distortion"][part], scores[unit.name]))
        coupled = tuple(tuple(group) for group in header.get("coupled", ()))
        before = {"came": header.get("came", {}), "spent": header.get("spent", 0.0)}
        return cls(tuple(curves), header["fixed"], header["meta"], coupled, **before)


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "none"
