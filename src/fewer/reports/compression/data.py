"""What a report says, as data: strict models of ``report.json``.

Every part but the verdict and the model may be absent; the page then leaves that section out. An unknown key is an
error (a typing mistake must not silently drop evidence), and so is a NaN or an infinity: the message names the field.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from fewer.core.display import Fact, Shown, amount
from fewer.core.errors import FewerError, near_match
from fewer.core.reading import parse_json
from fewer.core.version import __version__
from fewer.reports.compression.parts import STRICT, Latency, Recovery, Runtimes, WorstImage
from fewer.reports.values import Amount, Amounts, Count, Fraction, Number, Pairs, Text, plain

SCHEMA_VERSION = 1
LIMIT_TOLERANCE = 1e-6
"""Relative rounding allowed when a reached cost is compared with its limit."""


class _Part(BaseModel):
    model_config = STRICT


class BudgetResult(_Part):
    """One budget: what was asked, what the dense model costs, what was reached. All three in ``unit``."""

    budget: Text
    metric: Text
    limit: Amount
    dense: Amount
    reached: Amount
    unit: Text

    @property
    def met(self) -> bool:
        """Whether the reached cost is within the limit, up to rounding."""
        return self.reached <= self.limit * (1 + LIMIT_TOLERANCE)


Interval = Annotated[list[Number], Field(min_length=2, max_length=2)]
"""Ends of a 95 % confidence interval."""


class Quality(_Part):
    """A measure of quality beside the distortion, on held-out images; ``dense`` is the dense model's own value.

    ``labelled`` says that it was measured on labelled data, and not against the dense model's output.
    """

    name: Text
    value: Number
    dense: Number | None = None
    higher_is_better: bool = True
    note: Text = ""
    labelled: bool = False
    interval: Interval | None = None
    dense_interval: Interval | None = None


class Verdict(_Part):
    """Whether the budget was met, and at what held-out distortion (relative output error, 0 = same output)."""

    met: bool
    budgets: list[BudgetResult] = []
    distortion: Amount | None = None
    quality: list[Quality] = []

    @model_validator(mode="after")
    def _met_agrees_with_the_numbers(self) -> Verdict:
        missed = [result for result in self.budgets if not result.met]
        if self.met and missed:
            first = missed[0]
            raise ValueError(
                f"met is true, but {first.budget} reached {first.reached:g} {first.unit} over its limit {first.limit:g}"
            )
        return self


class ModelInfo(_Part):
    """The model: parameters of the dense one, bytes of the file it came from and of the one that was written."""

    name: Text
    parameters: Amount | None = None
    source_bytes: Amount | None = None
    artefact_bytes: Amount | None = None


class SkippedFile(_Part):
    """An image that was not used, and why."""

    file: Text
    reason: Text


class DataInfo(_Part):
    """The images: how many steered the cut (calibration), how many judged it (held-out), which were skipped."""

    calibration: Count = 0
    heldout: Count = 0
    source: Text = ""
    skipped: list[SkippedFile] = []
    note: Text = ""


class Baseline(_Part):
    """One method at the same budget.

    ``ours`` marks this library's own allocation, ``compensated`` says whether the weights that stay were updated to
    make up for those that went, ``published`` marks a method of the literature that has nothing of ours in it, and
    ``met`` is false if the method missed the budget.
    """

    name: Text
    label: Text
    ours: bool = False
    distortion: Amount
    quality: dict[Text, Number] = {}
    intervals: dict[Text, Interval] = {}
    seconds: Amount | None = None
    compensated: bool | None = None
    published: bool = False
    met: bool = True
    note: Text = ""


class Step(_Part):
    """One step of a plan alone, or all of them together.

    ``name`` is ``cut``, ``bits``, ``functions`` or ``together``; ``share`` is what it leaves of the dense model's
    ``metric``, and ``distance`` the squared change of the output over how far outputs of images lie apart, on held-out
    images; None where the task measures changes in its own way.
    """

    name: Text
    label: Text
    metric: Text
    share: Amount | None = None
    distance: Amount | None = None
    note: Text = ""


class FrontierPoint(_Part):
    """One budget. ``cost`` is a fraction of the dense cost, or an absolute number in ``Frontier.unit``."""

    budget: Number | None = None
    cost: Amount
    predicted: Amount | None = None
    measured: Amount | None = None


class Frontier(_Part):
    """Distortion against budget: ours, predicted and measured, and the baselines (name -> points)."""

    metric: Text
    label: Text
    unit: Text = ""
    ours: list[FrontierPoint] = []
    baselines: dict[Text, list[FrontierPoint]] = {}


class UnitResult(_Part):
    """What was done to one layer. ``distortion`` is that of its curve at the chosen option (this layer cut alone).

    ``modelled`` has what the layer costs on an accelerator on paper, before and after: cycles, joules.
    """

    name: Text
    kind: Text
    shape: Annotated[list[Count], BeforeValidator(plain)]
    option: Text
    pattern: Text
    sparsity: Fraction
    precision: Text = "fp32"
    kept_weights: Amount
    weights: Amount
    flops: Amount | None = None
    dense_flops: Amount | None = None
    distortion: Amount | None = None
    modelled: dict[Text, Annotated[list[Amount], Field(min_length=2, max_length=2)]] = {}

    @property
    def kept(self) -> float:
        """Kept share of the weights, 0 to 1."""
        return self.kept_weights / self.weights if self.weights else 1.0


class SkippedUnit(_Part):
    """A layer that was left alone, and why."""

    name: Text
    kind: Text = ""
    reason: Text


class UnitCurve(_Part):
    """The sensed curve of one unit: distortion for each sparsity, and the index of the chosen point."""

    unit: Text
    sparsity: Amounts
    distortion: Amounts
    chosen: Count | None = None

    @model_validator(mode="after")
    def _lengths_agree(self) -> UnitCurve:
        if len(self.sparsity) != len(self.distortion):
            raise ValueError(
                f"the curve of {self.unit!r} has {len(self.sparsity)} sparsities but {len(self.distortion)} distortions"
            )
        if self.chosen is not None and self.chosen >= len(self.sparsity):
            raise ValueError(
                f"the curve of {self.unit!r} has {len(self.sparsity)} points; {self.chosen} is not one of them"
            )
        return self


class Additivity(_Part):
    """Does the sum of per-layer distortions predict the joint one? ``points`` are (predicted sum, measured joint)."""

    joint: Amount
    sum: Amount
    ratio: Amount | None = None
    spearman: Annotated[float, BeforeValidator(plain), Field(ge=-1, le=1)] | None = None
    points: Pairs = []
    note: Text = ""


class Contender(_Part):
    """A plan that was put together and measured before one was made real; ``predicted`` is the sum of its distortions.

    ``made`` is the distortion of the whole model, cut in order, on the samples that decide, and ``fitted`` the same on
    the calibration samples; None where it was not made or not measured there.
    """

    name: Text
    label: Text = ""
    predicted: Amount
    measured: Amount
    made: Amount | None = None
    fitted: Amount | None = None
    chosen: bool = False


class Search(_Part):
    """Local search after the plan: distortion before and after, and whether its result was kept."""

    kept: bool
    before: Amount
    after: Amount
    evaluations: Count = 0
    seconds: Amount | None = None
    note: Text = ""


class Sensing(_Part):
    """What measuring the curves cost. A forward equivalent is the work of one full forward pass of the batch."""

    forwards: Amount | None = None
    forward_equivalents: Amount | None = None
    paper_forwards: Amount | None = None
    seconds: Amount | None = None
    note: Text = ""


class IntegerFunction(_Part):
    """One place where integers stand for a function of the model.

    ``distortion`` is the change of the output by this place alone, and ``options`` that of every method that was tried.
    """

    name: Text
    function: Text
    method: Text
    distortion: Number
    options: dict[Text, Number] = {}


class RunReport(Shown, _Part):
    """Everything that one run has to show; the content of ``report.json`` and of the HTML page.

    Only ``verdict`` and ``model`` are required.

    Examples
    --------
    >>> report = RunReport.from_dict({"verdict": {"met": True, "distortion": 0.11}, "model": {"name": "toy"}})
    >>> RunReport.from_json(report.to_json()) == report
    True
    >>> report
    Report of toy: budget met
      distortion  0.11 (0 is the dense model's output)
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    fewer_version: Text = __version__
    created: Text = Field(default_factory=lambda: datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"))
    seed: int = 0
    command: Text = ""
    verdict: Verdict
    model: ModelInfo
    data: DataInfo | None = None
    settings: dict[Text, Text | int | float | bool | None] = {}
    worst: list[WorstImage] = []
    baselines: list[Baseline] = []
    missing: dict[Text, Text] = {}
    steps: list[Step] = []
    frontier: Frontier | None = None
    units: list[UnitResult] = []
    skipped: list[SkippedUnit] = []
    curves: list[UnitCurve] = []
    additivity: Additivity | None = None
    contest: list[Contender] = []
    search: Search | None = None
    integers: list[IntegerFunction] = []
    latency: Latency | None = None
    runtimes: Runtimes | None = None
    recovery: Recovery | None = None
    sensing: Sensing | None = None
    timings: dict[Text, Amount] = {}
    peak_memory_bytes: Amount | None = None
    environment: dict[Text, Text | int | float | None] = {}
    limits: list[Text] = []

    def shown(self) -> tuple[str, list[Fact]]:
        """The verdict, what was measured beside it, and on what."""
        verdict, data = self.verdict, self.data
        budgets = [
            (
                one.budget,
                f"{amount(one.reached)} of {amount(one.dense)} {one.unit}".strip()
                + f", {'met' if one.met else 'missed'}",
            )
            for one in verdict.budgets
        ]
        error = "" if verdict.distortion is None else f"{verdict.distortion:.3g} (0 is the dense model's output)"
        best = min(
            (row for row in self.baselines if row.met and not row.ours), key=lambda row: row.distortion, default=None
        )
        images = f"{data.calibration} steered the cut, {data.heldout} others judged it" if data else ""
        return f"Report of {self.model.name}: budget {'met' if verdict.met else 'NOT met'}", [
            *budgets,
            ("distortion", error),
            ("best simpler method", f"{best.label}, {best.distortion:.3g}" if best else ""),
            *((one.name, f"{one.value:.4g}") for one in verdict.quality),
            ("images", images),
        ]

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> RunReport:
        """Check plain values and make a report of them.

        Raises
        ------
        FewerError
            In one sentence: the field, what is wrong with it and, for an unknown key, the nearest valid one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise FewerError(_sentence(cls, error)) from error

    @classmethod
    def from_json(cls, text: str | bytes) -> RunReport:
        """Read ``report.json``.

        Raises
        ------
        FewerError
            When the text is not JSON, is of another schema version, or a field is unknown, missing or not valid.
        """
        values = parse_json(text, "the report")
        if not isinstance(values, dict):
            raise FewerError("the report must be a JSON object (a dictionary of fields)")
        version = values.get("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise FewerError(
                f"the report has schema version {version!r}; fewer {__version__} reads version {SCHEMA_VERSION}; "
                "make the report again with this version of fewer"
            )
        return cls.from_dict(values)

    def to_json(self) -> str:
        """Write the report as indented JSON, the same text for the same report."""
        return json.dumps(self.model_dump(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _sentence(top: type[BaseModel], error: ValidationError) -> str:
    """Say the first problem of a validation error in one sentence, with the path of the field."""
    problem = error.errors()[0]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in problem["loc"]).lstrip(".")
    more = f" ({error.error_count() - 1} more problems)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        known = _known_keys(top, problem["loc"][:-1])
        return f"report field {where!r} is unknown{near_match(str(problem['loc'][-1]), known)}{more}"
    if problem["type"] == "finite_number":
        return f"report field {where!r} is {problem['input']!r}; every number of a report must be finite{more}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"report field {where or 'report'!r} is not valid: {message[:1].lower()}{message[1:]}{more}"


def _known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Follow a field path through the models and list the keys that are valid at its end."""
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            model = _model_inside(model.model_fields[part].annotation) or model
    return list(model.model_fields)


def _model_inside(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_inside(inner))), None)
