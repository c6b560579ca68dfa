"""Profile: what the layers of a model cost on this machine, in every pattern, sparsity and precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.precision import KERNEL_PRECISIONS, check_precision
from fewer.core.progress import Progress, usual_progress
from fewer.cost.latency import PATTERNS, LatencyModel, measure_model
from fewer.cost.profile import DeviceProfile
from fewer.engine.untimed import refuse_other_numbers
from fewer.models.matching import match
from fewer.models.running import use_threads
from fewer.models.spec import load_untouched
from fewer.reports.numbers import aligned

__all__ = ["ProfiledModel", "profile"]

_SHOWN = (Option("block:16x4", 0.5), Option("block:16x4", 0.8))


@dataclass(frozen=True, eq=False, repr=False)
class ProfiledModel(Told):
    """What :func:`profile` returns.

    Attributes
    ----------
    profile
        The device and its timings; ``profile.save("laptop.json")`` writes them for use elsewhere.
    times
        What every option of every layer takes, and the whole model.
    rows
        One per kind of layer: ``layer``, ``count``, and milliseconds as it came and for some options.
    folder
        Where the timings are kept.
    """

    profile: DeviceProfile
    times: LatencyModel
    rows: list[dict[str, Any]]

    def lines(self) -> list[str]:
        """Milliseconds of every kind of layer, and :meth:`words`."""
        head = list(self.rows[0]) if self.rows else []
        rows = [[f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()] for row in self.rows]
        return [*(aligned(head, rows) if rows else []), *self.words()]

    def words(self) -> list[str]:
        """What a person should know: how much was timed, how far it can be trusted."""
        q = self.profile.quality()
        lines = [
            f"{q.points} timings ({self.profile.measured} new), median spread {100 * q.spread:.0f} %; sparsities "
            f"that were left out are predicted to {100 * q.error:.0f} % (median), {100 * q.worst:.0f} % (worst)",
            f"the model as it came takes {self.times.dense_ms():.2f} ms on {self.profile.facts['cpu']}, "
            f"{self.profile.facts['threads']} thread(s), undisturbed",
        ]
        if q.noisy:
            lines.append(
                f"{q.noisy} of the timings kept a spread above 25 % although they were repeated: this machine is busy; "
                "measure once more with --again when it is quiet"
            )
        return lines


def profile(
    model: Any,
    example: Tensor | None = None,
    *,
    deploy_batch: int = 1,
    threads: int | None = None,
    patterns: Sequence[str] = PATTERNS,
    precisions: Sequence[str] = KERNEL_PRECISIONS,
    exclude: Sequence[str] = (),
    again: bool = False,
    progress: Progress | None = None,
) -> ProfiledModel:
    """Time every way to run the layers of a model on this machine; what was timed before is not timed again.

    Parameters
    ----------
    model
        Spec or ``nn.Module``.
    example
        The model's input; by default a batch of noise of the model's own size.
    deploy_batch
        Images at once, where there is no example.
    threads
        By default what torch uses now.
    patterns, precisions
        Block patterns and precisions to time.
    exclude
        Shell patterns of layers that will not be touched: they count as a part of the rest.
    again
        Forget what was measured on this machine, and start anew.
    progress
        Shows a stage.

    Raises
    ------
    FewerError
        When the model cannot be loaded, or a name is unknown.

    Examples
    --------
    >>> import fewer
    >>> print(*fewer.profile("fewer/mobilenet-v2", deploy_batch=8).words(), sep="\\n")  # doctest: +SKIP
    """
    progress = progress or usual_progress()
    if deploy_batch < 1:
        raise FewerError(f"deploy_batch must be at least 1, not {deploy_batch}")
    if threads is not None and threads < 1:
        raise FewerError(f"the threads must be at least 1, not {threads}")
    for precision in precisions:
        check_precision(precision, KERNEL_PRECISIONS)
    for pattern in patterns:
        if not Option(pattern).pattern.startswith("block:"):
            raise FewerError(f"only block patterns become faster; {pattern!r} needs no profile, use block:16x4")
    loaded = load_untouched(model)
    refuse_other_numbers(loaded.model)
    if example is None:
        example = torch.randn(deploy_batch, *loaded.input_size, generator=torch.Generator().manual_seed(0))
    matched = match(loaded.model, example[:1], exclude=tuple(exclude))
    with use_threads(threads), progress.stage("profile", 1.0) as stage:
        done_before = 0.0

        def tell(what: str, done: int, steps: int) -> None:
            nonlocal done_before
            stage.advance(done / steps - done_before, what)
            done_before = done / steps

        device = DeviceProfile.here(again=again)
        times = measure_model(
            device, loaded.model, matched.units, example, patterns=patterns, precisions=precisions, progress=tell
        )
        return ProfiledModel(device, times, _rows(times, patterns))


def _rows(times: LatencyModel, patterns: Sequence[str]) -> list[dict[str, Any]]:
    """One row per kind of layer, by total time."""
    groups: dict[str, list[str]] = {}
    for name, subject in times.subjects.items():
        groups.setdefault(subject.key, []).append(name)
    shown = [o for o in _SHOWN if o.pattern in patterns] or [Option(patterns[0], o.sparsity) for o in _SHOWN]
    rows = []
    for names in groups.values():
        row: dict[str, Any] = {"layer": names[0], "count": len(names), "as it came": times.alone(names[0], Option())}
        for p in times.precisions:
            row[f"{p} dense"] = times.alone(names[0], Option(shown[0].pattern, 0.0, p))
            for option in shown:
                label = f"{p} {100 * option.sparsity:.0f} %"
                row[label] = times.alone(names[0], Option(option.pattern, option.sparsity, p))
        rows.append(row)
    return sorted(rows, key=lambda r: -r["as it came"] * r["count"])
