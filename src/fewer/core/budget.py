"""Budgets: how much may be spent, as a person writes it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError, near_match

__all__ = ["METRICS", "Budget", "format_amount", "model_budgets", "parse_budgets"]

_COUNT = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}
# metric -> unit of measure -> factor to the base unit (the one with factor 1). Millijoules and megajoules differ in
# one letter's case only, so a joule unit must be written exactly; the others are read in any case.
METRICS: dict[str, dict[str, float]] = {
    "weights": _COUNT,
    "flops": _COUNT,
    "macs": _COUNT,
    "size": _BYTES,
    "latency": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "energy": {"uJ": 1e-6, "mJ": 1e-3, "J": 1.0},
    "labels": _COUNT,
    "cycles": _COUNT,
    "he": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "rotations": _COUNT,
    "levels": _COUNT,
}
_EXAMPLE = {
    "weights": "weights=50%",
    "flops": "flops=0.5x",
    "macs": "macs=2.3G",
    "size": "size=8MB",
    "latency": "latency=12ms",
    "energy": "energy=5mJ",
    "labels": "labels=100",
    "cycles": "cycles=20M",
    "he": "he=900ms",
    "rotations": "rotations=100",
    "levels": "levels=7",
}
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z%]*)\s*")


@dataclass(frozen=True)
class Budget:
    """The most that a plan may cost, in one metric.

    Text forms: ``weights=50%`` and ``flops=0.5x`` are shares of the dense model (fixed costs included);
    ``macs=2.3G``, ``size=8MB``, ``latency=12ms``, ``energy=5mJ`` are amounts. Counts take ``k M G T`` (powers of
    1000). Bytes take ``B kB MB GB`` (powers of 1000: 1 MB = 1 000 000 bytes) and ``KiB MiB GiB`` (powers of 1024).
    Time takes ``us ms s``; energy takes ``uJ mJ J``. ``labels=100`` and ``labels=5%`` say how many images of a pool are
    annotated; a share is one of the pool. ``cycles`` are those of a modelled accelerator; ``he`` (time),
    ``rotations`` and ``levels`` those of a circuit over encrypted numbers.

    Parameters
    ----------
    metric
        One of ``weights flops macs size latency energy labels cycles he rotations levels``.
    value
        A share in (0, 1] when ``relative``; otherwise an amount in the base unit (count, bytes, ms, J).
    relative
        Whether ``value`` is a share of the dense cost.

    Raises
    ------
    FewerError
        When the metric is unknown, or the value is not positive or is a share above 1.

    Examples
    --------
    >>> Budget.parse("size=8MB")
    Budget(metric='size', value=8000000.0, relative=False)
    >>> str(Budget("flops", 0.5, True))
    'flops=0.5x'
    """

    metric: str
    value: float
    relative: bool

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise FewerError(f"unknown budget metric {self.metric!r}{near_match(self.metric, METRICS)}")
        object.__setattr__(self, "value", float(self.value))
        if not (math.isfinite(self.value) and self.value > 0):
            raise FewerError(f"a budget must be more than 0, but {self.metric} was given {self.value:g}")
        if self.relative and self.value > 1:
            whole = "the pool has" if self.metric == "labels" else "the dense model costs"
            raise FewerError(
                f"a budget of {100 * self.value:g} % ({self.value:g}x) of {self.metric} is more than {whole}; "
                "give at most 100% (1x)"
            )

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read one budget such as ``"weights=50%"``.

        Raises
        ------
        FewerError
            With one sentence that says what could not be read and shows a form that can.

        Examples
        --------
        >>> Budget.parse("weights = 50 %")
        Budget(metric='weights', value=0.5, relative=True)
        >>> Budget.parse("size=1MiB").value
        1048576.0
        """
        metric, equals, amount = text.partition("=")
        metric = metric.strip().removesuffix("<").strip()
        if not text.strip():
            raise FewerError("the budget is empty; write for example weights=50% or size=8MB")
        if not equals:
            raise FewerError(f"the budget {text.strip()!r} has no '='; write for example weights=50% or size=8MB")
        if metric not in METRICS:
            raise FewerError(f"unknown budget metric {metric!r} in {text.strip()!r}{near_match(metric, METRICS)}")
        match = _NUMBER.fullmatch(amount)
        if match is None:
            raise FewerError(
                f"cannot read the amount {amount.strip()!r} of the budget {text.strip()!r}; "
                f"write for example {_EXAMPLE[metric]} or {metric}=0.5x"
            )
        number, unit = float(match.group(1)), match.group(2)
        if not number > 0:
            raise FewerError(f"the budget {text.strip()!r} asks for nothing at all; it must be more than 0")
        if unit == "%":
            return cls(metric, number / 100, True)
        if unit in ("x", "X"):
            return cls(metric, number, True)
        one_label = (
            metric in ("labels", "levels", "rotations") and number == 1
        )  # one weight is surely a mistake, one label is not
        if unit == "" and (number <= 1 or "" not in METRICS[metric]) and not one_label:
            hint = f"{metric}={number:g}x" if number <= 1 else _EXAMPLE[metric]
            raise FewerError(f"the budget {text.strip()!r} has no unit of measure; write for example {hint}")
        return cls(metric, number * _factor(metric, unit, text), False)

    def limit(self, curves: CurveSet) -> float:
        """Return the most that may be spent, fixed costs included, in the metric's base unit.

        Raises
        ------
        FewerError
            When the curves do not measure the metric; the sentence names those they do.
        """
        curves.require(self.metric)
        if not self.relative:
            return self.value
        limit = self.value * curves.dense(self.metric)
        # 0.29 * 100 is 28.999999999999996 in floating point, but 29 % of 100 weights are 29 weights
        nearest = float(round(limit))
        return nearest if abs(limit - nearest) <= 1e-12 * abs(limit) else limit

    def count(self, total: int) -> int:
        """Return how many of ``total`` images a budget of labels pays for; a share is rounded down, but is at least 1.

        Raises
        ------
        FewerError
            When the budget is not one of labels, is not a whole number, or is more than there is.

        Examples
        --------
        >>> Budget.parse("labels=5%").count(1000), Budget.parse("labels=20").count(1000)
        (50, 20)
        """
        if self.metric != "labels":
            raise FewerError(f"images are chosen under a budget of labels, not of {self.metric}; write labels=100")
        if total == 0:
            raise FewerError("no image is left to choose: all that can be read are labelled or in the queue already")
        if self.relative:
            return max(1, int(self.value * total * (1 + 1e-12)))
        if self.value != int(self.value):
            raise FewerError(f"a budget of {self.value:g} labels is not a whole number; write labels={self.value:.0f}")
        if self.value > total:
            raise FewerError(
                f"the budget of {self.value:.0f} labels is more than the pool can give: {total} images can be chosen; "
                f"give at most labels={total}"
            )
        return int(self.value)

    def __str__(self) -> str:
        if not self.relative and _lacks_percent(self.metric, f"{self.value:.17g}"):
            return f"{self.metric}={self.value / 1000:g}k"  # as whoever means so few writes it
        if not self.relative:
            return f"{self.metric}={format_amount(self.metric, self.value, digits=None)}"
        percent = f"{100 * self.value:.15g}"
        if self.metric in ("weights", "size", "labels") and float(percent) / 100 == self.value:
            return f"{self.metric}={percent}%"
        return f"{self.metric}={self.value!r}x"


def _factor(metric: str, unit: str, text: str) -> float:
    units = METRICS[metric]
    if unit in units:
        return units[unit]
    if metric != "energy":
        for known, factor in units.items():
            if known.lower() == unit.lower():
                return factor
    names = ", ".join(u for u in units if u)
    raise FewerError(f"unknown unit of measure {unit!r} in the budget {text.strip()!r}; {metric} takes %, x, {names}")


def format_amount(metric: str, value: float, digits: int | None = 3) -> str:
    """Write an amount with a fitting unit of measure; rounded up, so that it can be used as a budget again.

    Parameters
    ----------
    metric
        Which units of measure to use.
    value
        Amount in the metric's base unit.
    digits
        Significant digits, or ``None`` for a text that reads back as exactly ``value``.

    Examples
    --------
    >>> format_amount("size", 3_234_567), format_amount("macs", 4.6e9), format_amount("latency", 0.5)
    ('3.24MB', '4.6G', '500us')
    """
    factors = {u: f for u, f in METRICS[metric].items() if not u.endswith("iB")}
    fits = [u for u, f in factors.items() if f <= abs(value)] or [min(factors, key=lambda u: factors[u])]
    for unit in sorted(fits, key=lambda u: -factors[u]):
        scaled = Decimal(value) / Decimal(factors[unit])
        if digits is None:
            if float(repr(float(scaled))) * factors[unit] == value:
                return repr(float(scaled)).removesuffix(".0") + unit
        elif scaled == 0:
            return f"0{unit}"
        else:
            places = min(digits - 1 - scaled.adjusted(), 12)
            up = scaled.quantize(Decimal(1).scaleb(-max(places, 0)), rounding=ROUND_CEILING)
            text = f"{up:f}"
            return (text.rstrip("0").rstrip(".") if "." in text else text) + unit
    base = next(u for u, f in factors.items() if f == 1.0)
    return repr(value).removesuffix(".0") + base


def parse_budgets(budgets: str | Budget | Iterable[str | Budget]) -> tuple[Budget, ...]:
    """Read one or several budgets that must all hold at once.

    Parameters
    ----------
    budgets
        ``"weights=50%,flops=0.6x"``, one :class:`Budget`, or an iterable of either.

    Raises
    ------
    FewerError
        When there is none, one cannot be read, or a metric is given twice.

    Examples
    --------
    >>> [str(b) for b in parse_budgets("weights=50%, flops=0.6x")]
    ['weights=50%', 'flops=0.6x']
    """
    parts: Sequence[str | Budget] = (
        [budgets] if isinstance(budgets, (str, Budget)) or not isinstance(budgets, Iterable) else list(budgets)
    )
    found: list[Budget] = []
    for part in parts:
        if isinstance(part, Budget):
            found.append(part)
        elif not isinstance(part, str):
            raise FewerError(f"a budget is text, for example weights=50%; got {str(part)[:60]}")
        else:
            found += [Budget.parse(p) for p in part.split(",")]
    if not found:
        raise FewerError("no budget was given; write for example weights=50% or size=8MB")
    for i, budget in enumerate(found):
        if any(b.metric == budget.metric for b in found[:i]):
            raise FewerError(f"the budget metric {budget.metric!r} is given twice; give each metric once")
    return tuple(found)


CIRCUIT_METRICS = ("he", "rotations", "levels")
"""What a circuit over encrypted numbers is planned for."""

_ELSEWHERE = {
    "labels": "images to annotate; use: fewer select POOL --budget {0}",
    **dict.fromkeys(
        CIRCUIT_METRICS,
        "a circuit over encrypted numbers; use: fewer private compile MODEL --images FOLDER --budget {0} --out CIRCUIT",
    ),
}


def for_circuit(budgets: str | Budget | Iterable[str | Budget]) -> bool:
    """Whether budgets are those of a circuit over encrypted numbers, all of them.

    Examples
    --------
    >>> for_circuit("he=0.5x,levels=3"), for_circuit("weights=50%")
    (True, False)
    """
    return all(budget.metric in CIRCUIT_METRICS for budget in parse_budgets(budgets))


def by_target(budgets: str | Budget | Iterable[str | Budget]) -> tuple[tuple[Budget, ...], tuple[Budget, ...]]:
    """Budgets of a model, and those of a circuit over encrypted numbers.

    Examples
    --------
    >>> [[str(b) for b in part] for part in by_target("cycles=0.5x,he=0.5x")]
    [['cycles=0.5x'], ['he=0.5x']]
    """
    found = parse_budgets(budgets)
    circuit = tuple(b for b in found if b.metric in CIRCUIT_METRICS)
    return tuple(b for b in found if b not in circuit), circuit


def _lacks_percent(metric: str, amount: str) -> bool:
    """Whether a count is so small that a share must be meant: a model has thousands of weights."""
    return metric in ("weights", "flops", "macs") and amount.isdecimal() and len(amount) <= 3 and int(amount) <= 100


def _as_meant(text: str) -> None:
    """Ask about a number that surely lacks its percent sign: it would be that many weights in all."""
    for part in text.split(","):
        metric, _, amount = (word.strip() for word in part.partition("="))
        metric = metric.removesuffix("<").strip()
        if _lacks_percent(metric, amount) and int(amount) > 1:
            raise FewerError(
                f"the budget {metric}={amount} is {amount} {metric} in all; write {metric}={amount}% for a share of "
                f"the model, or {metric}={int(amount) / 1000:g}k if you mean it"
            )


def model_budgets(budgets: str | Budget | Iterable[str | Budget]) -> tuple[Budget, ...]:
    """Budgets that a compressed model can have.

    Raises
    ------
    FewerError
        Also for those of other work; the sentence names the command for them. And for a number that surely lacks its
        percent sign.

    Examples
    --------
    >>> model_budgets("weights=50")
    Traceback (most recent call last):
    ...
    fewer.core.errors.FewerError: the budget weights=50 is 50 weights in all; write weights=50% for a share of the \
model, or weights=0.05k if you mean it
    >>> model_budgets("he=0.5x")
    Traceback (most recent call last):
    ...
    fewer.core.errors.FewerError: he is no budget of a model, but of a circuit over encrypted numbers; use: fewer \
private compile MODEL --images FOLDER --budget he=0.5x --out CIRCUIT
    """
    found = parse_budgets(budgets)
    texts = [budgets] if isinstance(budgets, (str, Budget)) else list(budgets)
    for text in texts:
        if isinstance(text, str):
            _as_meant(text)
    for one in found:
        if one.metric in _ELSEWHERE:
            raise FewerError(f"{one.metric} is no budget of a model, but of {_ELSEWHERE[one.metric].format(one)}")
    return found
