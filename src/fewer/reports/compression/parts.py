"""Parts of a report that say what was looked at, timed and trained; `data.py` puts them together."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from fewer.reports.values import Amount, Count, Fraction, Number, Pairs, Text

__all__ = ["STRICT", "Guess", "Latency", "LayerTime", "Picture", "Recovery", "RuntimeRow", "Runtimes", "WorstImage"]


# frozen is left off: a verb fills the report in as its steps finish, and each assignment is checked
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, validate_assignment=True)
"""What every part of a report has in common."""


class _Part(BaseModel):
    model_config = STRICT


class Guess(_Part):
    """A class that a model names, and its share of the probability."""

    label: Text
    share: Fraction


Picture = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=200_000)]
"""A JPEG in base64."""


class WorstImage(_Part):
    """A held-out image whose output changed much: what the model says of it before and after.

    ``before`` and ``after`` are the most probable classes; ``before_map`` and ``after_map`` stand for outputs that are
    maps, or tokens of patches.
    """

    file: Text
    picture: Picture
    distortion: Amount
    before: list[Guess] = []
    after: list[Guess] = []
    before_map: Picture = ""
    after_map: Picture = ""


class LayerTime(_Part):
    """How one layer runs after acceleration; milliseconds of the batch, None where it was not timed alone."""

    name: Text
    kind: Text
    backend: Text
    precision: Text
    before_ms: Amount | None = None
    after_ms: Amount | None = None
    reason: Text = ""


class Latency(_Part):
    """Milliseconds of one batch on an undisturbed machine: the dense model, the plan's prediction, the model as timed.

    ``plans`` are (predicted, measured) of the plans that were timed before the model was made.
    """

    dense_ms: Amount
    predicted_ms: Amount
    measured_ms: Amount
    spread: Amount | None = None
    batch: Count = 1
    threads: Count = 1
    device: Text = ""
    plans: Pairs = []
    layers: list[LayerTime] = []

    @property
    def error(self) -> float:
        """Relative error of the prediction; 0 is exact, above 0 it was too slow."""
        return self.predicted_ms / self.measured_ms - 1 if self.measured_ms else 0.0


class RuntimeRow(_Part):
    """One runtime as timed by ``fewer bench``: milliseconds per call, and output error against the dense model.

    ``distortion`` is the same measure as everywhere in the report, None where the outputs cannot be compared.
    """

    label: Text
    runtime: Text = ""
    precision: Text = "fp32"
    ours: bool = False
    ms: Amount
    low_ms: Amount | None = None
    high_ms: Amount | None = None
    times_faster: Amount | None = None
    distortion: Amount | None = None
    memory_bytes: Amount | None = None


class Runtimes(_Part):
    """The run beside the runtimes that a user could take instead, timed in turns; errors over ``images`` inputs.

    ``noisy`` are rows whose times spread too widely to be trusted.

    ``times_faster`` of the rows is over the dense model in torch eager. ``missing`` are those that were not timed, with
    the reason.
    """

    rows: list[RuntimeRow]
    missing: dict[Text, Text] = {}
    noisy: list[Text] = []
    threads: Count = 1
    batch: Count = 1
    images: Count = 1
    origin: Text = ""
    created: Text = ""


class Recovery(_Part):
    """Training after the cut: distortion and quality before and after, on held-out images that choose nothing.

    ``points`` are (seconds, distortion on the held-out images that chose the best state) on the way. ``best_step`` 0
    means that no state of the training was better than what it started from. ``refitted``: images of the least-squares
    fit before the training, 0 where there was none or it was not kept.
    """

    before: Amount
    after: Amount
    quality_name: Text = ""
    quality_before: Number | None = None
    quality_after: Number | None = None
    seconds: Amount
    steps: Count
    best_step: Count
    refitted: Count = 0
    images: Count
    choosing: Count
    source: Text = ""
    points: Pairs = []
    command: Text = ""

    @property
    def won(self) -> float:
        """Share of the lost quality that came back; below 0 it got worse."""
        return 1 - self.after / self.before if self.before else 0.0
