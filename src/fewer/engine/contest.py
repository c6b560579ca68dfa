"""Contest: which way of planning serves this model and budget, judged by putting the plans together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from fewer.core.allocation.allocate import Allocation
from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.engine.plan import BETWEEN, choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn

    from fewer.engine.assembly import Assembly
    from fewer.engine.judge import Judge
    from fewer.engine.prepare import Prepared
    from fewer.engine.sense import Sensed
    from fewer.engine.settings import Settings
    from fewer.engine.work import Work

__all__ = [
    "CONTENDERS",
    "Made",
    "Way",
    "comparable",
    "contest",
    "decide",
    "final",
    "finalists_of",
    "score",
    "together",
    "way_of",
]

CONTENDERS = ("dp", "bold", "lamp", "erk", "uniform", "uniform_plus", "global_magnitude", *BETWEEN)
_MARGIN = 0.02
"""By how much a simple rule must be better: the optimum of the curves is left for a reason only."""
_CLEAR = 0.08
"""The same for the product of all measurements of a whole model."""
_OF_FEW = 0.25
"""What the samples that decide count for beside the calibration's: they are several times fewer, of two or three files.

On 23 cells of small networks any power from 0 to a third takes plans with 1.03 times the error of the best one, at
most 1.2 times; in full they gave 1.05, and once 1.65 (docs/any_network.md).
"""
_LEAST, _BROKEN = 1e-12, 1e12
"""Errors are compared within these bounds: below the one is only rounding, above the other no model that works."""
_CLOSE = 2.0
"""Plans whose joint distortion is at most so many times the lowest are made real, to be measured as whole models."""
_LARGE = 10_000_000
"""Weights from which on a single one of the plans halfway to a rule is made real, as each takes long."""
_MOST_KEPT = 2**31
"""Bytes of finished models that are kept for the report; of larger models it makes its rows anew."""
_COPIES = 4
"""Of a model's weights, where it was judged in a runtime: the model, its copy, the file and the runtime's own."""
_OF_CURVES = ("dp", "bold")  # the others are rules that know nothing of distortion


@dataclass(frozen=True)
class Way:
    """A way to make a model: who plans, and what else than the settings say which weights go and how they are repaired.

    ``magnitude`` is the simplest method there is: one threshold for the whole network, no data, no repair.
    ``rebalanced`` corrects means and BatchNorm's variances after it. ``unrepaired`` is the exact plan, cut by magnitude
    inside each layer and rounded, and left at that; ``bare_lamp`` is LAMP's plan in the same way. A weight that a model
    uses in another place than its layer, as an autoencoder of tied weights does, is served by no repair of that layer.
    """

    name: str
    allocator: str
    score: str | None = None
    compensation: str | None = None

    @property
    def simple(self) -> bool:
        """Whether it does without the least-squares repair."""
        return self.compensation is not None

    def settings(self, settings: Settings) -> Settings:
        """The settings that a model is made with in this way."""
        if self.compensation is None:
            return settings
        return settings.model_copy(update={"score": self.score, "compensation": self.compensation})

    def key(self, choice: np.ndarray) -> bytes:
        """Of a model that is made in this way from a plan's choice."""
        return choice.tobytes() + (self.name.encode() if self.simple else b"")


_SIMPLE = (
    Way("magnitude", "global_magnitude", "magnitude", "none"),
    Way("rebalanced", "global_magnitude", "magnitude", "bias"),
    Way("unrepaired", "dp", "magnitude", "none"),
    Way("bare_lamp", "lamp", "magnitude", "none"),
)


def way_of(name: str) -> Way:
    """The way of a name: an allocator's, or that of a simple method.

    Examples
    --------
    >>> way_of("lamp").allocator, way_of("magnitude").allocator
    ('lamp', 'global_magnitude')
    """
    return next((way for way in _SIMPLE if way.name == name), Way(name, name))


def contest(
    curves: CurveSet,
    budgets: Sequence[Budget],
    judge: Callable[[Allocation], float],
    done: Callable[[str], None] = lambda _name: None,
) -> tuple[str, list[dict[str, Any]]]:
    """Choose an allocator by the joint distortion of its plan.

    The exact DP minimises the *sum* of distortions. Where much is cut, distortions no longer add up, and a rule that
    knows nothing of distortion but spreads the cut evenly can end up lower. The difference shows as soon as the plans
    are put together, which takes seconds, on images that the stored weights were not fitted to.

    Parameters
    ----------
    curves, budgets
        What is to be planned.
    judge
        Joint distortion of a plan.
    done
        Called with the name of each plan that was judged.

    Returns
    -------
    str
        The name of the winner: ``dp``, unless another one is clearly lower.
    list of dict
        ``name``, ``predicted`` (sum of distortions) and ``measured`` (joint distortion) of every contender that meets
        the budgets.

    Raises
    ------
    FewerError
        When even the DP finds no plan.

    Examples
    --------
    >>> from fewer.core.curve import Curve
    >>> from fewer.core.option import Option
    >>> from fewer.core.unit import Unit
    >>> ladder = (Option(), Option("unstructured", 0.5))
    >>> curve = Curve(Unit("a", "linear", (2, 2)), ladder, {"weights": [4, 2]}, [0, 1])
    >>> contest(CurveSet((curve,)), [Budget("weights", 0.5, True)], lambda plan: plan.distortion)
    ('dp', [{'name': 'dp', 'predicted': 1.0, 'measured': 1.0}])
    """
    rows: list[dict[str, Any]] = []
    seen: dict[bytes, str] = {}
    for name in CONTENDERS:
        if name == "bold" and not any("unseen" in curve.scores for curve in curves.curves):
            continue  # the same plan
        try:
            plan = choose(curves, budgets, name)
        except FewerError:
            if name == "dp":
                raise
            continue  # a rule with one free parameter cannot meet every pair of budgets
        key = plan.choice.tobytes()
        if key not in seen:
            seen[key] = name
            rows.append({"name": name, "predicted": plan.distortion, "measured": judge(plan)})
        done(name)
    best = min(rows, key=lambda row: comparable(row["measured"]))
    clearly = comparable(best["measured"]) < (1 - _MARGIN) * comparable(rows[0]["measured"])
    winner = best["name"] if clearly else "dp"
    return winner, rows


def decide(
    work: Work, sensed: Sensed, assembly: Assembly, budgets: Sequence[Budget]
) -> tuple[str, list[dict[str, Any]]]:
    """The allocator to use: the one that was asked for, or the winner of a contest on the sensing images."""
    settings = work.settings
    if settings.allocator != "auto":
        return settings.allocator, []
    # in rounds every round plans a little, and for that the sum of distortions is right
    # and no contender knows of a power term
    if settings.power or settings.schedule == "iterative" or len(sensed.curves) < 2:
        return "dp", []
    batches = work.prepared.sensing_images.split(settings.batch)
    reference = work.prepared.reference(batches)
    with work.progress.stage("contest", len(CONTENDERS)) as stage:
        return contest(
            sensed.curves,
            budgets,
            lambda plan: assembly.distortion(plan.choice, batches, reference),
            lambda name: stage.advance(1, name),
        )


@dataclass(eq=False)
class Made:
    """A plan that was made real: the model, its masks, its seconds, and how far each repair is believed.

    ``used`` is the same model where it will run, if it was judged there.
    """

    model: nn.Module
    masks: dict[str, Tensor]
    seconds: float
    believed: dict[str, float] = field(default_factory=dict)
    used: nn.Module | None = None


def final(
    work: Work, sensed: Sensed, budgets: Sequence[Budget], rows: list[dict[str, Any]]
) -> tuple[str, dict[bytes, Made]]:
    """Make the best plans of a contest real beside the simplest methods, and take what is lowest on other images.

    Between repaired models the product of three errors decides (:func:`score`), since each of them misleads in its own
    way. A simple method is taken as soon as it is lower on the samples that decide, which make and judge no model. What
    was made is kept for the report, which compares with it.

    Parameters
    ----------
    rows
        Of :func:`contest`; what was made gets ``made`` and ``fitted``, its distortion on the samples that decide and
        on those of the calibration, and rows for the simple methods are added.

    Returns
    -------
    str
        The way to use (:func:`way_of`): ``dp``, unless another one is clearly lower.
    dict of bytes to Made
        Models by :meth:`Way.key`, that of this way among them unless it need not be made to be taken.
    """
    from fewer.engine.as_used import runs_elsewhere
    from fewer.engine.judge import judge_of

    prepared, settings = work.prepared, work.settings
    apart = prepared.deciding
    judge = judge_of(prepared, settings, prepared.calibration if apart is None else apart)
    elsewhere = runs_elsewhere(work, sensed)
    finalists = finalists_of(rows, settings.baselines, _halfway(prepared))
    made: dict[bytes, Made] = {}
    if len(finalists) > 1 or apart is not None:
        _finish(work, sensed, budgets, finalists, judge, made, elsewhere=elsewhere)
        if not any("made" in row for row in finalists):  # what does not run where it is to be used is no plan
            elsewhere = False  # unless none does
            _finish(work, sensed, budgets, finalists, judge, made, elsewhere=elsewhere)
        finalists = [row for row in finalists if "made" in row]
    best = _best(finalists)
    for way in _simple_ways(prepared) if apart is not None and settings.compensation == "obs" else ():
        try:
            plan = choose(sensed.curves, budgets, way.allocator)
        except FewerError:
            continue
        one = _make(work, way, sensed, budgets, made)
        found = judge.judge(one.model).distortion
        if elsewhere and comparable(found) < comparable(best["made"]):  # what rounds on the way makes nothing better
            model = _used(work, way, sensed, budgets, one)
            if model is None:
                continue
            found = judge.judge(model).distortion
        rows.append({"name": way.name, "predicted": plan.distortion, "measured": found, "made": found})
        if comparable(found) < comparable(best["made"]):
            best = rows[-1]
        _spare(made, _key(sensed, budgets, best), prepared)
    _spare(made, _key(sensed, budgets, best), prepared)
    return way_of(best["name"]).name, made


def _finish(
    work: Work,
    sensed: Sensed,
    budgets: Sequence[Budget],
    finalists: Sequence[dict[str, Any]],
    judge: Judge,
    made: dict[bytes, Made],
    *,
    elsewhere: bool,
) -> None:
    """Make the plans of some rows real and measure them; with ``elsewhere`` where they will run, if they can."""
    from fewer.engine.judge import judge_of_fitted

    several = work.prepared.deciding is not None and len(finalists) > 1
    fitted = judge_of_fitted(work.prepared, work.settings) if several else None
    for row in finalists:
        way = way_of(row["name"])
        one = _make(work, way, sensed, budgets, made)
        model = _used(work, way, sensed, budgets, one) if elsewhere else one.model
        if model is not None:
            row["made"] = judge.judge(model).distortion
            if fitted is not None:
                row["fitted"] = fitted.judge(model).distortion
        done = [row for row in finalists if "made" in row]
        _spare(made, _key(sensed, budgets, _best(done) if done else finalists[0]), work.prepared)


def score(row: Mapping[str, Any]) -> float:
    """By what repaired models are compared: a product of what each kind of evidence says of a plan.

    The plan put together, ``measured``, is seen on images that its repair was not fitted to, and knows nothing of what
    a repair in order makes good. The finished model on the samples that decide, ``made``, is seen as a user will see
    it, on images of a few files only. On the calibration samples, ``fitted``, it is seen on many, which it has been
    fitted to. So each errs in another way, and in a product an error of one weighs less. The few files count least.

    Examples
    --------
    >>> score({"measured": 2.0, "made": 0.0625, "fitted": 0.25})
    0.25
    """
    few = _OF_FEW if "fitted" in row else 1.0  # without the others, these are all that a finished model was seen on
    return together((row["measured"], comparable(row["made"]) ** few, row.get("fitted", 1.0)))


def together(errors: Iterable[float]) -> float:
    """The product of several errors of one model, in which neither a zero nor what is no number decides alone.

    Examples
    --------
    >>> together((0.5, 0.5))
    0.25
    >>> together((0.0, 1.0)) < together((0.0, 2.0)) < together((0.0, float("nan")))
    True
    """
    return math.prod(comparable(error) for error in errors)


def comparable(error: float) -> float:
    """An error that can be compared: what is no number is that of a model that does not work.

    Examples
    --------
    >>> comparable(0.5), comparable(float("nan")) == comparable(float("inf")) > 1e9
    (0.5, True)
    """
    return min(max(error, _LEAST), _BROKEN) if math.isfinite(error) else _BROKEN


def _best(finalists: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The best of the repaired models: the exact plan, unless another one is clearly lower."""
    best = finalists[0]
    if len(finalists) < 2:
        return best
    lowest = min(finalists, key=score)
    return lowest if score(lowest) < (1 - _CLEAR) * score(best) else best


def _halfway(prepared: Prepared) -> int:
    """How many of the plans halfway to a rule are made real; none where all images were seen by every repair."""
    if prepared.deciding is None:
        return 0
    return len(BETWEEN) if sum(unit.numel for unit in prepared.matched.units) < _LARGE else 1


def _used(work: Work, way: Way, sensed: Sensed, budgets: Sequence[Budget], one: Made) -> nn.Module | None:
    """A model where it will run; None where that is not possible, as a model that was judged in torch says less."""
    from fewer.engine.as_used import model_in_use

    if one.used is None:
        options = sensed.chosen(choose(sensed.curves, budgets, way.allocator).choice)
        try:
            one.used = model_in_use(work, sensed.curves, one.model, one.masks, options)
        except FewerError:
            return None
    return one.used


def _key(sensed: Sensed, budgets: Sequence[Budget], row: Mapping[str, Any]) -> bytes:
    """Of the model of a row."""
    way = way_of(row["name"])
    return way.key(choose(sensed.curves, budgets, way.allocator).choice)


def _spare(made: dict[bytes, Made], winner: bytes, prepared: Prepared) -> None:
    """Keep all models in memory, or of large ones the one that is best so far; what is taken is made again."""
    size = sum(p.numel() * p.element_size() for p in prepared.model.parameters())
    copies = sum(1 if one.used in (None, one.model) else _COPIES for one in made.values())
    if size * copies > _MOST_KEPT:
        for key in [key for key in made if key != winner]:
            del made[key]


def finalists_of(
    rows: Sequence[dict[str, Any]], compared: Sequence[str] = (), halfway: int = len(BETWEEN)
) -> list[dict[str, Any]]:
    """The rows of a contest whose plans are worth being made real: the exact plan first.

    The bold plan comes with it where it is close to the lowest, and so does the best of the simple rules. Plans of the
    same curves are much alike, so that they must not take the place of a rule that errs in another way. Plans halfway
    to a rule have places of their own.

    Parameters
    ----------
    rows
        Of :func:`contest`.
    compared
        Rules that the report compares with. They are made anyway, and so take part however far off they look.
    halfway
        How many of the plans halfway to a rule may be made.

    Examples
    --------
    >>> rows = [{"name": n, "measured": d} for n, d in (("dp", 1.0), ("bold", 1.1), ("lamp", 1.4), ("erk", 1.3))]
    >>> [row["name"] for row in finalists_of(rows)]
    ['dp', 'bold', 'erk']
    >>> [row["name"] for row in finalists_of(rows, ["lamp"])]
    ['dp', 'bold', 'erk', 'lamp']
    """
    lowest = min(comparable(row["measured"]) for row in rows)
    close = [row for row in rows if row["name"] != "dp" and comparable(row["measured"]) <= _CLOSE * lowest]
    close.sort(key=lambda row: comparable(row["measured"]))
    middle = [row for row in close if row["name"] in BETWEEN]
    rules = [row for row in close if row["name"] not in (*_OF_CURVES, *BETWEEN)]
    found = [rows[0], *(row for row in close if row["name"] in _OF_CURVES), *rules[:1], *middle[:halfway]]
    return found + [row for row in rows if row["name"] in compared and row not in found]


def _simple_ways(prepared: Prepared) -> list[Way]:
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = any(isinstance(module, _BatchNorm) for module in prepared.model.modules())
    return [way for way in _SIMPLE if way.name != "rebalanced" or norms]


def _make(work: Work, way: Way, sensed: Sensed, budgets: Sequence[Budget], made: dict[bytes, Made]) -> Made:
    """The model of a way, made now or before."""
    from fewer.engine.apply import apply_options
    from fewer.engine.outer import outer_of

    choice = choose(sensed.curves, budgets, way.allocator).choice
    key = way.key(choice)
    if key not in made:
        began, believed = perf_counter(), {}
        model, masks = apply_options(
            work.under(way.settings(work.settings)),
            sensed.options,
            sensed.chosen(choice),
            outer=outer_of(sensed.curves),
            title=f"try {way.name}",
            believed=believed,
        )
        made[key] = Made(model, masks, perf_counter() - began, believed)
    return made[key]
