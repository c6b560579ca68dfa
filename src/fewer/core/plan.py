"""The plan: one option per unit as a small JSON file that a person can read, compare and edit."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from fewer.core.budget import Budget, format_amount, parse_budgets
from fewer.core.couple import in_step
from fewer.core.curve import CurveSet
from fewer.core.display import Fact, Shown, counted
from fewer.core.errors import FewerError, near_match
from fewer.core.files import atomic_write_text
from fewer.core.option import Option
from fewer.core.reading import parse_json, read_text

__all__ = ["Allocation", "Plan", "PlannedUnit", "first_mistake"]


class PlannedUnit(BaseModel):
    """What one unit gets, with its own part of the predictions."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    option: str
    distortion: float
    cost: dict[str, float]

    @field_validator("option")
    @classmethod
    def _readable(cls, text: str) -> str:
        try:
            return str(Option.parse(text))
        except FewerError as error:
            raise ValueError(str(error)) from None


class Plan(Shown, BaseModel):
    """One option per unit, the budgets that it is for, and the predictions.

    To change a plan by hand, edit the ``option`` of a unit and call :meth:`refreshed`, which looks the numbers up
    again. A plan that is applied is first held against the curves (or the unit names) it is for.

    Parameters
    ----------
    schema_version
        1.
    curves
        SHA-256 of the curves that the plan was made from, see :meth:`fewer.core.curve.CurveSet.hash`.
    method
        How it was chosen: ``"dp"``, a baseline's name, ``"search"``, ``"edited"``.
    budgets
        Their text forms.
    cost, dense
        Predicted and dense cost of the whole model per metric, fixed costs included, in base units (bytes, ms, J).
    distortion
        Predicted distortion: the sum over units.
    units
        For each unit name its option and its part of the predictions, in model order.

    Raises
    ------
    FewerError
        From :meth:`from_json`, with the first mistake, where it is, and the name that was probably meant.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.unit import Unit
    >>> from fewer.core.allocation.allocate import allocate
    >>> options = (Option(), Option("unstructured", 0.5))
    >>> curve = Curve(Unit("head", "linear", (2, 2)), options, {"weights": [4, 2]}, [0, 1])
    >>> curves = CurveSet((curve,))
    >>> plan = Plan.from_allocation(curves, "weights=50%", allocate(curves, "weights=50%"))
    >>> plan.units["head"].option
    'unstructured@0.5'
    >>> Plan.from_json(plan.to_json()) == plan
    True
    >>> plan
    Plan of 1 unit for weights=50%, by dp
      weights               2 of 4 (50 %)
      predicted distortion  1
      options               unstructured@0.5
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    schema_version: Literal[1] = 1
    curves: str
    method: str = "dp"
    budgets: list[str]
    cost: dict[str, float]
    dense: dict[str, float]
    distortion: float
    units: dict[str, PlannedUnit]

    @field_validator("budgets")
    @classmethod
    def _budgets_parse(cls, texts: list[str]) -> list[str]:
        try:
            return [str(b) for b in parse_budgets(texts)] if texts else []
        except FewerError as error:
            raise ValueError(str(error)) from None

    def shown(self) -> tuple[str, list[Fact]]:
        """What the plan costs, what it is predicted to distort, and its most common options."""
        title = (
            f"Plan of {counted(len(self.units), 'unit')} for {', '.join(self.budgets) or 'no budget'}, by {self.method}"
        )
        facts = [
            (
                metric,
                f"{format_amount(metric, cost)} of {format_amount(metric, dense)}"
                + (f" ({100 * cost / dense:.3g} %)" if dense else ""),
            )
            for metric, cost in self.cost.items()
            if (dense := self.dense[metric]) is not None
        ]
        counts = Counter(unit.option for unit in self.units.values()).most_common()
        told = [option + (f" x {number}" if number > 1 else "") for option, number in counts[:4]]
        more = f" and {len(counts) - 4} more" if len(counts) > 4 else ""
        return title, [
            *facts,
            ("predicted distortion", f"{self.distortion:.3g}"),
            ("options", ", ".join(told) + more),
        ]

    @classmethod
    def from_allocation(
        cls,
        curves: CurveSet,
        budgets: str | Budget | Iterable[str | Budget],
        allocation: Allocation,
        method: str = "dp",
    ) -> Plan:
        """Write an allocation down."""
        return cls._of_choice(curves, [str(b) for b in parse_budgets(budgets)], allocation.choice, method)

    @classmethod
    def _of_choice(cls, curves: CurveSet, budgets: list[str], choice: Sequence[int] | np.ndarray, method: str) -> Plan:
        return cls(
            curves=curves.hash(),
            method=method,
            budgets=budgets,
            cost={m: curves.total(m, choice) for m in curves.metrics},
            dense={m: curves.dense(m) for m in curves.metrics},
            distortion=curves.distortion(choice),
            units={
                c.unit.name: PlannedUnit(
                    option=str(c.options[k]),
                    distortion=float(c.distortion[k]),
                    cost={m: float(c.cost[m][k]) for m in curves.metrics},
                )
                for c, k in zip(curves.curves, choice, strict=True)
            },
        )

    def options(self) -> dict[str, Option]:
        """The option of each unit, parsed."""
        return {name: Option.parse(unit.option) for name, unit in self.units.items()}

    def check_units(self, names: Iterable[str]) -> None:
        """Check that the plan is for exactly these units.

        Raises
        ------
        FewerError
            When a unit is unknown to the model or has no option in the plan.
        """
        known = list(names)
        for name in self.units:
            if name not in known:
                raise FewerError(
                    f"the plan has the unit {name!r}, which the model does not have{near_match(name, known)}"
                )
        for name in known:
            if name not in self.units:
                raise FewerError(f'the plan has no option for the unit {name!r}; add it, as "dense" to leave it alone')

    def choice(self, curves: CurveSet, *, same_curves: bool = True) -> np.ndarray:
        """Look the options up in the curves.

        Parameters
        ----------
        curves
            The curves that the plan is for.
        same_curves
            Whether the plan must have been made from these very curves.

        Returns
        -------
        np.ndarray
            (L,) option index per unit, in the order of the curves.

        Raises
        ------
        FewerError
            When the curves are others, the units differ, an option was not sensed, or coupled units do not agree.
        """
        if same_curves and self.curves != curves.hash():
            raise FewerError(
                f"the plan was made from other curves ({self.curves[:12]}) than these ({curves.hash()[:12]}); "
                "plan again"
            )
        self.check_units(u.name for u in curves.units)
        choice = []
        for curve in curves.curves:
            names = [str(o) for o in curve.options]
            wanted = self.units[curve.unit.name].option
            if wanted not in names:
                raise FewerError(
                    f"unit {curve.unit.name!r} was not sensed with option {wanted!r}{near_match(wanted, names)}"
                )
            choice.append(names.index(wanted))
        found = np.array(choice, dtype=np.int64)
        together = in_step([c.options for c in curves.curves], curves.groups, found)
        for group in curves.groups:
            if (found[list(group)] != together[list(group)]).any():
                coupled = " and ".join(f"{curves.curves[i].unit.name!r}" for i in group)
                raise FewerError(
                    f"the units {coupled} are coupled: all of them remove the same share, or none does; in this plan "
                    + ", ".join(f"{curves.curves[i].unit.name} is {curves.curves[i].options[found[i]]}" for i in group)
                )
        return found

    def refreshed(self, curves: CurveSet) -> Plan:
        """Return the plan after an edit by hand: the same options, with costs and distortion looked up again.

        Budgets that the edited plan no longer meets are dropped from it, as a plan states only what it holds.
        """
        choice = self.choice(curves, same_curves=False)
        held = [b for b in self.budgets if curves.total((p := Budget.parse(b)).metric, choice) <= p.limit(curves)]
        return self._of_choice(curves, held, choice, "edited")

    def to_json(self) -> str:
        """Write as JSON text with one unit per line, so that two plans can be compared line by line."""
        head = self.model_dump(exclude={"units"})
        lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
        units = ",\n".join(
            f"    {json.dumps(name)}: {json.dumps(unit.model_dump())}" for name, unit in self.units.items()
        )
        return "{\n" + ",\n".join([*lines, '  "units": {\n' + units + "\n  }"]) + "\n}\n"

    @classmethod
    def from_json(cls, text: str, where: str = "the plan") -> Plan:
        """Read JSON text, and say what is wrong with it if anything is."""
        data = parse_json(text, where, pairs=_no_key_twice)
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise FewerError(f"{where}: {first_mistake(error, cls)}") from None

    def save(self, path: str | Path) -> Path:
        """Write to a file in one step."""
        return atomic_write_text(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read from a file."""
        return cls.from_json(read_text(path, what="plan"), str(path))


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} is there twice")
        found[key] = value
    return found


def first_mistake(error: ValidationError, model: type[BaseModel]) -> str:
    """Tell the first mistake of a pydantic model in one clause: where it is, and the key that was probably meant.

    Examples
    --------
    >>> try:
    ...     PlannedUnit.model_validate({"optoin": "dense", "distortion": 0.0, "cost": {}})
    ... except ValidationError as error:
    ...     first_mistake(error, PlannedUnit)
    "unknown key 'optoin'; did you mean 'option'?"
    """
    # an unknown key usually explains a missing one, so it is told first
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    *path, last = [str(p) for p in first["loc"]] or [""]
    place = f" in {'.'.join(path)}" if path else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {last!r}{place}{near_match(last, _keys_at(model, first['loc'][:-1]))}"
    if first["type"] == "missing":
        return f"the key {last!r} is missing{place}"
    message = first["msg"].removeprefix("Value error, ")
    return f"the value of {'.'.join([*path, last])!r} is wrong: {message}" if last else message


def _keys_at(model: type[BaseModel], path: Iterable[Any]) -> list[str]:
    """Field names of the model that is nested at a place; dictionaries on the way are looked through."""
    at: Any = model
    for part in path:
        fields = getattr(at, "model_fields", {})
        if part in fields:
            note = fields[part].annotation
            inner = [a for a in getattr(note, "__args__", ()) if isinstance(a, type) and issubclass(a, BaseModel)]
            at = inner[0] if inner else note
    return list(getattr(at, "model_fields", {}))


@dataclass(frozen=True, eq=False)
class Allocation:
    """One option per unit, with what it is predicted to cost and to distort.

    Parameters
    ----------
    choice
        int64 vector: index of the option of each unit.
    cost
        For every metric of the curves the predicted cost of the whole model, fixed costs included.
    distortion
        Predicted distortion, the sum over units.
    slack
        For each budgeted metric that was solved in buckets: no plan that costs at most ``limit - slack`` has a lower
        (penalised) distortion than the one found before polishing. 0 means that rounding hid nothing.
    bound
        No plan within the budgets has a distortion below this; minus infinity when nothing was proved.

    Examples
    --------
    >>> Allocation(np.array([0]), {"weights": 4.0}, 0.0).slack
    {}
    """

    choice: np.ndarray
    cost: dict[str, float]
    distortion: float
    slack: dict[str, float] = field(default_factory=dict)
    bound: float = -math.inf
