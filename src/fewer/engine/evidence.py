"""What a run knows when its model is made, as the report is written from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fewer.core.allocation.allocate import Allocation
from fewer.core.budget import Budget
from fewer.core.plan import Plan
from fewer.engine.approximate import Approximated
from fewer.engine.contest import Made
from fewer.engine.deploy import Deployed
from fewer.engine.prepare import Prepared
from fewer.engine.sense import Sensed
from fewer.engine.settings import Settings
from fewer.engine.shrink import Shrunk
from fewer.tasks import Quality


@dataclass(frozen=True, eq=False)
class Evidence:
    """Everything that a run knows when its model is made.

    Attributes
    ----------
    prepared, settings
        The original model and its inputs, and how it was compressed.
    sensed
        Curves, and how they were made.
    plan, allocation
        One option per unit, and what that was expected to cost and to distort.
    model, masks
        What became of the model, and where a weight was kept.
    budgets
        Those that were asked for.
    timings
        Seconds by stage; the stages that follow add theirs.
    command
        The command line, if there was one.
    quality
        Judges a model on labelled data.
    search
        What local search gained, where it ran.
    tried
        Plans that were timed: ``predicted`` and ``measured`` milliseconds.
    under
        What was planned under: budgets whose time was corrected by what the timed plans missed.
    contest, made
        Rows of the contest of allocators, and the models that it has made.
    believed
        Share of each layer's repair that other files bear out.
    shrunk, deployed
        The model with its removed channels taken out, and on its kernels, once that is done.
    approximated
        The model with integers in place of functions, where that was asked for.
    """

    prepared: Prepared
    settings: Settings
    sensed: Sensed
    plan: Plan
    allocation: Allocation
    model: nn.Module
    masks: dict[str, Tensor]
    budgets: Sequence[Budget]
    timings: dict[str, float]
    command: str | None = None
    quality: Quality | None = None
    search: dict[str, Any] | None = None
    tried: Sequence[dict[str, float]] = ()
    under: Sequence[Budget] = ()
    contest: Sequence[dict[str, Any]] = ()
    made: dict[bytes, Made] = field(default_factory=dict)
    believed: dict[str, float] = field(default_factory=dict)
    shrunk: Shrunk | None = None
    deployed: Deployed | None = None
    approximated: Approximated | None = None
