"""The task of sensing: prune one unit at every option, repair it, and measure the distortion on one shard of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from fewer.compensate.moments import Moments
from fewer.compensate.sweep import Repair, Sweep
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.data.samples import Samples
from fewer.distortion.distance import Distance
from fewer.distortion.measured import Measured
from fewer.distortion.taylor import Taylor
from fewer.engine.assembly import stored_as
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.models.layers import Fit, find_layers
from fewer.models.running import Forward
from fewer.patterns import families, option_thresholds


@dataclass(frozen=True)
class SenseTask:
    """Sense one unit on the calibration batches ``start`` to ``stop``.

    ``store`` says whether this task also stores the repaired weights (one shard of each unit does).
    """

    unit: str
    start: int
    stop: int
    store: bool = False

    def __str__(self) -> str:
        return f"{self.unit}[{self.start}:{self.stop}]"


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is known of the layers before any of them is cut.

    Attributes
    ----------
    moments
        Of each unit's input over the whole calibration set.
    gradients
        Root mean square gradient of each unit's weight, for the ``taylor`` score; empty for others.
    sensitivity
        How much the output feels each row of each unit, for the ``obs`` score; empty for others.
    weighing
        The same for those units alone whose score it weighs.
    """

    moments: dict[str, Moments]
    gradients: dict[str, Tensor] = field(default_factory=dict)
    sensitivity: dict[str, Tensor] = field(default_factory=dict)
    weighing: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """How distortion is found out.

    Attributes
    ----------
    name
        ``measured`` or ``taylor``.
    probes, seed
        Of the Taylor probes.
    """

    name: str = "measured"
    probes: int = 4
    seed: int = 0


@dataclass(kw_only=True)
class SenseJob:
    """Everything that the sensing tasks of one model share. Picklable if the model is.

    Parameters
    ----------
    model
        Dense model, or the model of the round before; never changed (each worker copies it).
    units
        In execution order.
    options
        Options of each unit, by name, in the order of rising sparsity; the first one is dense.
    batches
        Fixed calibration batches for distortion.
    reference
        Outputs of the original dense model on the batches.
    statistics
        Of the layers and their inputs.
    repair
        How a layer is cut and repaired.
    estimate
        How distortion is found out.
    alive
        Masks of an earlier round that may only shrink, by unit name.
    forward
        ``forward(model, batch)``.
    store
        Folder for the repaired weights of every option, or None.
    threads
        Of each worker; those of the process by default.
    """

    model: nn.Module
    units: Sequence[Unit]
    options: dict[str, tuple[Option, ...]]
    batches: Sequence[Samples]
    reference: Distance
    statistics: Statistics
    repair: Repair
    estimate: Estimate = Estimate()
    alive: dict[str, Tensor] = field(default_factory=dict)
    forward: Forward | None = None
    store: Path | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        # threads share one job, and with it the gradients that all units' distortion is computed from
        self._shared: dict[tuple[int, int], Taylor] = {}
        self._lock = Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_shared", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def taylor(self, start: int, stop: int, make: Callable[[], Taylor]) -> Taylor:
        """The Taylor estimator of a shard; made by the first worker that asks, while the others wait."""
        with self._lock:
            if (start, stop) not in self._shared:
                made = make()
                made.collect()
                self._shared = {(start, stop): made}
            return self._shared[start, stop]

    def tasks(self, shards: int = 1) -> list[SenseTask]:
        """One task per unit and shard, in the order of execution; shards are whole batches."""
        count = len(self.batches)
        shards = max(1, min(shards, count))
        edges = [round(i * count / shards) for i in range(shards + 1)]
        return [
            SenseTask(unit.name, a, b, store=a == 0 and self.store is not None)
            for a, b in pairwise(edges)
            for unit in self.units
        ]

    def worker(self) -> Callable[[SenseTask], dict[str, Any]]:
        """Copy the model and return the task function."""
        if self.threads:
            torch.set_num_threads(self.threads)
        return _Worker(self)


class _Worker:
    def __init__(self, job: SenseJob) -> None:
        self.job = job
        self.model = set_evaluating(copied_module(job.model))
        self.layers = find_layers(self.model, job.units, job.batches[0][:1], job.forward)
        self.estimators: dict[tuple[int, int], Measured | Taylor] = {}

    def estimator(self, start: int, stop: int) -> Measured | Taylor:
        job = self.job
        if (start, stop) not in self.estimators:
            if job.estimate.name == "taylor":
                made: Measured | Taylor = job.taylor(start, stop, lambda: self._taylor(start, stop))
            else:
                made = Measured(self.model, job.batches[start:stop], job.forward, job.reference.part(start, stop))
            self.estimators = {(start, stop): made}
        return self.estimators[start, stop]

    def _taylor(self, start: int, stop: int) -> Taylor:
        job = self.job
        return Taylor(
            self.model,
            list(self.layers.values()),
            job.batches[start:stop],
            job.forward,
            probes=job.estimate.probes,
            # a shard's directions must not depend on how many shards there are
            seeds=probe_seeds(job.estimate.seed, start, stop),
            reference=job.reference.part(start, stop),
        )

    def __call__(self, task: SenseTask) -> dict[str, Any]:
        job, layer = self.job, self.layers[task.unit]
        started = perf_counter()
        estimator = self.estimator(task.start, task.stop)
        options = job.options[task.unit]
        sweep = Sweep(
            layer.matrix,
            job.statistics.moments[task.unit],
            job.repair,
            centred=layer.centred,
            gradient=job.statistics.gradients.get(task.unit),
            alive=job.alive.get(task.unit),
            sensitivity=job.statistics.weighing.get(task.unit),
        )
        # removing rows that no layer reads any more does no distortion beyond that of the precision
        as_swept = [Option(precision=o.precision) if o.removes == "rows" else o for o in options]
        swept = list(dict.fromkeys(as_swept))
        at = [swept.index(option) for option in as_swept]
        kept: list[int] = []
        lost: list[float] = []
        silent: list[float] = []
        energy = sweep.dense.square() / (float(sweep.dense.square().sum()) or 1.0)
        quiet = energy * silence(sweep.moments, len(energy), job.statistics.sensitivity.get(task.unit))
        stored: dict[str, Tensor] = {}

        def fits() -> Any:
            steps = chain.from_iterable(sweep.run(run) for run in families(swept))
            for step, fit in enumerate(steps):
                index = at.index(step)
                kept.append(int(fit.mask.sum()))
                lost.append(float(energy[~fit.mask].sum()))
                silent.append(float(quiet[~fit.mask].sum()))
                if task.store and index == stored_as(options, index):
                    stored.update(_packed(index, fit))
                yield fit

        distortions = estimator.distortions(layer, fits())[at]
        if stored and job.store is not None:
            try:
                save_file(stored, job.store / f"{job.units.index(layer.unit)}.safetensors")
            except (OSError, SafetensorError) as error:
                raise FewerError(f"repaired weights cannot be written to {job.store}: {error}") from error
        return {
            "distortions": distortions.tolist(),
            "kept": [kept[i] for i in at],
            "lost": [lost[i] for i in at],
            "silent": [silent[i] for i in at],
            "scores": option_thresholds(layer.matrix.cpu(), options) if task.start == 0 else {},
            "passes": estimator.spent(),
            "note": estimator.note,
            "seconds": perf_counter() - started,
        }


_QUIET = 1e-4


def silence(moments: Moments, rows: int, sensitivity: Tensor | None = None) -> Tensor:
    """How far each weight of a layer was silent on the images: 1 where it was of no effect, near 0 where it had one.

    A weight is as silent as its input or as its output, whichever is more. An input counts as half silent when its
    mean square is a ten-thousandth of the layer's median; an output when the network feels it a ten-thousandth as
    much as the layer's median output, such as one that an activation cuts off on all images.

    Parameters
    ----------
    moments
        Of the layer's input.
    rows
        Outputs of the layer.
    sensitivity
        How much the network's output feels each row, shape (rows,) or (rows, 1); unknown for None.

    Returns
    -------
    Tensor
        Shape (rows, columns).

    Examples
    --------
    >>> moments = Moments(1, 3)
    >>> moments.add(torch.tensor([[[0.0, 1.0, 1.0]]]))
    >>> [[round(float(v), 2) for v in row] for row in silence(moments, 2, torch.tensor([1.0, 0.0]))]
    [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    """
    inputs = _quiet(moments.diagonal()).repeat_interleave(rows // moments.groups, 0)
    return inputs if sensitivity is None else torch.maximum(inputs, _quiet(sensitivity.flatten())[:, None])


def _quiet(power: Tensor) -> Tensor:
    """1 where nothing was seen, a half at a ten-thousandth of the median of what was."""
    seen = power[power > 0]
    near = _QUIET * (seen.median() if len(seen) else power.new_ones(()))
    return near / (power + near)


def probe_seeds(seed: int, start: int, stop: int) -> list[int]:
    """Seed of the directions of each batch.

    Examples
    --------
    >>> probe_seeds(1, 0, 2)
    [100003, 100004]
    """
    return [seed * 100_003 + index for index in range(start, stop)]


def _packed(index: int, fit: Fit) -> dict[str, Tensor]:
    # half precision is enough to compare plans with; the final weights are computed anew
    entry = {f"{index}.weight": fit.weight.half().cpu(), f"{index}.shift": fit.shift.contiguous().cpu()}
    if fit.spread is not None:
        entry[f"{index}.spread"] = fit.spread.contiguous().cpu()
    return entry
