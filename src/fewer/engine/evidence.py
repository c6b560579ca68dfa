"""Report: measure a compressed model on held-out images beside simpler methods, and write everything down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fewer.core.allocation.allocate import Allocation
from fewer.core.budget import Budget
from fewer.core.plan import Plan
from fewer.engine.contest import Made
from fewer.engine.deploy import Deployed
from fewer.engine.prepare import Prepared
from fewer.engine.sense import Sensed
from fewer.engine.settings import Settings
from fewer.engine.shrink import Shrunk
from fewer.tasks import Quality


@dataclass(eq=False)
class Evidence:
    """Everything that a run knows when its model is made."""

    prepared: Prepared
    settings: Settings
    sensed: Sensed
    plan: Plan
    allocation: Allocation
    model: nn.Module
    masks: dict[str, Tensor]
    budgets: Sequence[Budget]
    timings: dict[str, float]
    search: dict[str, Any] | None
    command: str | None
    quality: Quality | None = None
    tried: list[dict[str, float]] = field(default_factory=list)
    deployed: Deployed | None = None
    under: Sequence[Budget] = ()
    contest: list[dict[str, Any]] = field(default_factory=list)
    made: dict[bytes, Made] = field(default_factory=dict)
    shrunk: Shrunk | None = None
    believed: dict[str, float] = field(default_factory=dict)
