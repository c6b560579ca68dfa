"""Device costs of a run: what every option takes on this machine, or on the one whose profile was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.cost.latency import LatencyModel, measure_model
from fewer.verbs.prepare import Prepared
from fewer.verbs.profile import open_profile, use_threads
from fewer.verbs.progress import Progress
from fewer.verbs.settings import Settings

__all__ = ["DeviceCosts", "deploy_example", "device_costs"]


@dataclass(frozen=True, eq=False)
class DeviceCosts:
    """Costs that depend on the device, and where they come from.

    Attributes
    ----------
    units : dict
        Unit name -> metric -> one cost per option.
    fixed : dict
        Metric -> what every plan costs beside its units.
    facts : dict
        JSON values for the report: the device, the model's own latency, how far the timings can be trusted.
    """

    units: dict[str, dict[str, np.ndarray]]
    fixed: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)


def deploy_example(prepared: Prepared, settings: Settings) -> Tensor:
    """A batch of the size at which the model will be used."""
    image = prepared.calibration[:1].float()
    return image.expand(settings.deploy_batch, *image.shape[1:]).contiguous()


def device_costs(
    prepared: Prepared,
    settings: Settings,
    options: Mapping[str, Sequence[Option]],
    progress: Progress,
) -> tuple[DeviceCosts | None, dict[str, tuple[Option, ...]]]:
    """Measure what the settings ask for, and leave out options that are predicted slower than the dense layer.

    Parameters
    ----------
    prepared
        Model and units.
    settings
        ``measure`` names the metrics.
    options
        Of every unit, the dense one first.
    progress
        Shows a stage.

    Returns
    -------
    DeviceCosts or None
        None when nothing is to be measured.
    dict
        The options that are left.

    Raises
    ------
    FewerError
        When the model cannot be timed, or a given profile lacks something.
    """
    kept = {name: tuple(found) for name, found in options.items()}
    if not settings.measure:
        return None, kept
    if prepared.forward is not None:
        raise FewerError("a model with its own forward= cannot be timed; leave latency and energy out of the budget")
    if any(p.is_floating_point() and p.dtype != torch.float32 for p in prepared.model.parameters()):
        raise FewerError("only models in fp32 can be timed; convert this one with model.float() first")
    times, warning = _times(prepared, settings, progress)
    costs = times.costs(kept)
    kept, latency = _not_slower(kept, costs.units)
    units = {name: {"latency": row} for name, row in latency.items()}
    fixed = {"latency": costs.fixed}
    quality = times.profile.quality()
    facts: dict[str, Any] = {
        "device": times.profile.facts,
        "profile": times.profile.name,
        "batch": settings.deploy_batch,
        "dense_ms": times.dense_ms(),
        "points": quality.points,
        "noisy": quality.noisy,
        "warning": warning or "",
    }
    return DeviceCosts(units, fixed, facts), kept


def _times(prepared: Prepared, settings: Settings, progress: Progress) -> tuple[LatencyModel, str | None]:
    patterns = [p.strip() for p in settings.pattern.split(",") if p.strip().startswith("block:")]
    with use_threads(settings.threads), progress.stage("profile", 1.0) as stage:
        profile, warning = open_profile(settings.profile)
        before = 0.0

        def tell(what: str, done: int, steps: int) -> None:
            nonlocal before
            stage.advance(done / steps - before, what)
            before = done / steps

        times = measure_model(
            profile,
            prepared.model,
            prepared.matched.units,
            deploy_example(prepared, settings),
            patterns=patterns,
            precisions=settings.precisions,
            progress=tell,
        )
    return times, warning


def _not_slower(
    options: Mapping[str, Sequence[Option]], latency: Mapping[str, np.ndarray]
) -> tuple[dict[str, tuple[Option, ...]], dict[str, np.ndarray]]:
    """Without the options that would not be quicker than the dense layer as it came."""
    kept, costs = {}, {}
    for name, found in options.items():
        row = latency[name]
        stay = [i for i in range(len(found)) if i == 0 or row[i] < row[0]]
        kept[name], costs[name] = tuple(found[i] for i in stay), row[stay]
    return kept, costs
