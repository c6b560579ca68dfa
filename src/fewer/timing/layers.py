"""Which layer costs what, and how far it is from what this machine can do at most (the roofline)."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text
from fewer.core.stamp import environment
from fewer.models.running import evaluating
from fewer.timing.inputs import make_inputs
from fewer.timing.prepare import Workshop
from fewer.timing.roofline import attainable_seconds

__all__ = ["Layer", "LayersResult", "bench_layers"]


class Layer(BaseModel):
    """One module (or several alike, after `LayersResult.grouped`) and its own work, children apart.

    Attributes
    ----------
    name, kind : str
        Name in the model and class.
    count : int
        How many modules stand behind it.
    own_ms, share : float
        Milliseconds per pass (CPU time with one thread, else wall time), and the part of the sum over all layers.
    flops, bytes : float, optional
        Per pass; None where they cannot be told from the shapes.
    intensity : float, optional
        FLOPs per byte.
    roofline : float, optional
        Part of the attainable speed that is reached. Above 1 when the data stays in the cache.
    bound : {"compute", "memory"}, optional
        Which roof is the lower one.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    kind: str
    precision: str
    count: int = 1
    own_ms: float
    share: float
    flops: float | None = None
    bytes: float | None = None
    intensity: float | None = None
    roofline: float | None = None
    bound: Literal["compute", "memory"] | None = None


class LayersResult(BaseModel):
    """Costs of all layers of one model in torch eager, and the measured roofline they are held against.

    Attributes
    ----------
    total_ms : float
        Sum of the layers' own times, of which the shares are parts.
    bare_ms, hooked_ms : float
        A whole pass without and with the hooks that time it.
    peaks : dict
        Precision to FLOP/s.
    bandwidth : float
        Bytes per second.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1] = 1
    model: str
    input_shapes: list[list[int]]
    threads: int
    rounds: int
    total_ms: float
    bare_ms: float
    hooked_ms: float
    layers: list[Layer]
    peaks: dict[str, float]
    bandwidth: float
    created: str = ""
    notes: list[str] = Field(default_factory=list)
    environment: dict[str, Any] = Field(default_factory=dict)

    def grouped(self) -> list[Layer]:
        """Layers whose names differ in numbers only, together, the costliest first."""
        groups: dict[tuple[str, str, str], list[Layer]] = {}
        for layer in self.layers:
            key = (re.sub(r"(?<![^.])\d+(?![^.])", "*", layer.name), layer.kind, layer.precision)
            groups.setdefault(key, []).append(layer)
        merged = []
        for (name, kind, precision), members in groups.items():
            one = members[0] if len(members) == 1 else None
            merged.append(
                self._layer(
                    name=one.name if one else name,
                    kind=kind,
                    precision=precision,
                    count=len(members),
                    own_ms=sum(m.own_ms for m in members),
                    flops=_sum([m.flops for m in members]),
                    size=_sum([m.bytes for m in members]),
                )
            )
        return sorted(merged, key=lambda layer: -layer.own_ms)

    def _layer(
        self, *, name: str, kind: str, precision: str, count: int, own_ms: float, flops: Any, size: Any
    ) -> Layer:
        return make_layer(
            name, kind, precision, count, own_ms, flops, size, self.total_ms, self.peaks.get(precision), self.bandwidth
        )

    def to_json(self, path: str | Path | None = None) -> str:
        """As JSON; also into a file if asked."""
        text = json.dumps(self.model_dump(), indent=2, allow_nan=False)
        if path is not None:
            atomic_write_text(Path(path), text + "\n")
        return text


def make_layer(
    name: str,
    kind: str,
    precision: str,
    count: int,
    own_ms: float,
    flops: float | None,
    size: float | None,
    total_ms: float,
    peak: float | None,
    bandwidth: float,
) -> Layer:
    """Hold one layer's time against the roofline.

    Examples
    --------
    >>> make_layer("fc", "Linear", "fp32", 1, 2.0, 1e9, 1e6, 10.0, 1e12, 1e10).roofline
    0.5
    """
    intensity = roofline = None
    bound: Literal["compute", "memory"] | None = None
    if flops is not None and size and peak:
        intensity = flops / size
        least = attainable_seconds(flops, size, peak, bandwidth)
        roofline = least / (own_ms / 1000) if own_ms > 0 else None
        bound = "compute" if flops / peak >= size / bandwidth else "memory"
    return Layer(
        name=name,
        kind=kind,
        precision=precision,
        count=count,
        own_ms=own_ms,
        share=own_ms / total_ms if total_ms > 0 else 0.0,
        flops=flops,
        bytes=size,
        intensity=intensity,
        roofline=roofline,
        bound=bound,
    )


def bench_layers(
    model: str | Path | nn.Module,
    example: Any = None,
    *,
    threads: int = 1,
    rounds: int = 15,
    images: Any = None,
    batch: int = 1,
    seed: int = 0,
    pin: bool = True,
    quick: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> LayersResult:
    """Time every layer of a model in torch eager and hold it against this machine's measured roofline.

    Parameters
    ----------
    model : str, Path or nn.Module
        Spec, run folder (its compressed model is timed) or module.
    example, images, batch, seed, pin
        As in `fewer.timing.bench`.
    threads : int
        One setting.
    rounds : int
        Passes; the median counts.
    quick : bool
        Measure the roofline with small sizes only, for tests.
    progress : callable, optional
        Called with (text, share done).

    Raises
    ------
    FewerError
        When the model does not run on the input, or a number cannot be meant.

    Examples
    --------
    >>> import torch
    >>> result = bench_layers(torch.nn.Sequential(torch.nn.Linear(8, 4)), torch.ones(1, 8), rounds=3, quick=True)
    >>> [layer.name for layer in result.layers]
    ['(model)', '0']
    """
    from fewer.timing.run import RUNTIME_LIBRARIES, check_threads, is_pinned
    from fewer.timing.sources import open_subject

    say = progress or (lambda text, share: None)
    threads = check_threads([threads])[0]
    if rounds < 1:
        raise FewerError(f"the rounds must be at least 1; got {rounds}")
    subject = open_subject(model)
    inputs = make_inputs(subject, example, images, None, batch, seed)
    with tempfile.TemporaryDirectory(prefix="fewer-bench-") as folder, evaluating(subject.model):
        workshop = Workshop(subject, inputs.arguments, inputs.calibration, Path(folder), threads)
        say("loading the model", 0.0)
        found, roof = _measure(workshop, threads, rounds, pin, quick, say)
    total = sum(layer["own_ms"] for layer in found["layers"])
    peaks, bandwidth = roof["peaks"], roof["bandwidth"]
    layers = [
        make_layer(
            layer["name"],
            layer["kind"],
            layer["precision"],
            1,
            layer["own_ms"],
            layer["flops"],
            layer["bytes"],
            total,
            peaks.get(layer["precision"]),
            bandwidth,
        )
        for layer in found["layers"]
    ]
    say("done", 1.0)
    return LayersResult(
        model=f"{subject.name} ({subject.run})" if subject.run else subject.name,
        input_shapes=[list(a.shape) for a in inputs.arguments],
        threads=threads,
        rounds=rounds,
        total_ms=total,
        bare_ms=found["bare_ms"],
        hooked_ms=found["hooked_ms"],
        layers=layers,
        peaks=peaks,
        bandwidth=bandwidth,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        environment=environment([threads], libraries=RUNTIME_LIBRARIES, pinned=is_pinned(pin)),
    )


def _measure(
    workshop: Workshop, threads: int, rounds: int, pin: bool, quick: bool, say: Callable[[str, float], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Times of the layers, and the roofline, both from one process that does nothing else."""
    from fewer.timing.run import load_handle

    subject = workshop.subject
    if subject.run:
        job = workshop.extra_job(subject.run, "fp32", threads)
    else:
        job = workshop.torch_job("torch", "fp32", threads)
    try:
        handle = load_handle(job, workshop.folder / "layers.log", pin)
    except RuntimeError as error:
        raise FewerError(f"{subject.name} does not run on this input in torch: {error}") from None
    try:
        say("measuring the roofline", 0.2)
        roof = handle.ask("peaks", quick=quick)
        say("timing the layers", 0.5)
        return handle.ask("layers", rounds=rounds), roof
    except RuntimeError as error:
        raise FewerError(f"the layers of {subject.name} cannot be timed: {error}") from None
    finally:
        handle.close()


def _sum(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
