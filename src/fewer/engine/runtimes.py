"""Which runtime a plan is made for: whole models are timed in turns, and the fastest at the wanted budget is taken."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text
from fewer.core.option import Option
from fewer.core.reading import read_json
from fewer.cost.device import device_facts
from fewer.cost.stopwatch import Stopwatch
from fewer.cost.subjects import random_mask
from fewer.data.samples import ListSamples, Samples, leaves
from fewer.engine.parts import part_of
from fewer.engine.prepare import couplings_of
from fewer.engine.runtime_rest import rest_precision
from fewer.engine.settings import FAST_PATTERNS, Settings
from fewer.engine.untimed import refuse_untimed
from fewer.engine.work import Work
from fewer.kernels import native
from fewer.kernels.accelerate import accelerate
from fewer.models.artefact import state_hash
from fewer.models.running import evaluating, use_threads
from fewer.patterns.grid import COLUMNS
from fewer.runtimes.names import EXPORTED, RUNTIMES, missing
from fewer.runtimes.planned import PlannedGraph, arrays_of
from fewer.runtimes.session import Session, open_session, runs_bf16

__all__ = [
    "Chosen",
    "choose_runtime",
    "dense_run",
    "deploy_example",
    "feed",
    "free_axes",
    "planned_graph",
    "settle_runtime",
    "threads_of",
    "undisturbed",
]

_SAME = {"fp32": 1e-3, "bf16": 0.2}
"""How far a runtime's answer may be from torch's before it is left out: other orders of summation, or rounding."""
_TOO_BUSY = 0.8  # spread of the quickest dense model above which nothing that is timed here means anything
_LEVELS = ("fp32", "bf16", "int8", "cut")
"""From no distortion to most; ``cut`` is int8 with three quarters of the blocks zero."""
_CUT = Option("block:16x4", 0.75, "int8")


@dataclass(frozen=True, eq=False)
class Chosen:
    """The runtime to plan for, and what was timed to find it.

    Attributes
    ----------
    runtime
        ``native``, ``onnxruntime`` or ``openvino``.
    dense_ms
        Of the fastest dense runtime in fp32, which ratios refer to.
    against
        Its name.
    torch_ms
        Of torch, as the model came.
    rows
        Every whole model that was timed, or left out: ``runtime``, ``precision``, ``ms``, ``error``, ``reason``.
    """

    runtime: str
    dense_ms: float
    against: str
    torch_ms: float
    rows: list[dict[str, Any]] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """For the report and the curves."""
        return {
            "runtime": self.runtime,
            "against": self.against,
            "against_ms": self.dense_ms,
            "torch_ms": self.torch_ms,
            "runtimes": self.rows,
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Chosen | None:
        """From :meth:`facts`; None where no runtime was chosen."""
        if "against_ms" not in facts:
            return None
        names = ("runtime", "against_ms", "against", "torch_ms", "runtimes")
        for name in names:
            if facts.get(name) is None or (name in ("runtime", "against") and facts[name] not in RUNTIMES):
                raise FewerError(f"the curves of this run say {name}={facts.get(name)!r}; sense the model again")
        return cls(*(facts[name] for name in names))


def settle_runtime(work: Work, budgets: Sequence[Budget], kept: Path | None = None) -> Work:
    """Choose the runtime, and offer the options that it gains by.

    Parameters
    ----------
    work, budgets
        As for :func:`choose_runtime`.
    kept
        A file in which the choice of an interrupted run is found again: timed anew, it might be another one.

    Returns
    -------
    Work
        Its model knows the choice (``shared["runtime"]``), and which channels can go, where the runtime gains by that
        only. In its settings ``runtime`` is never ``auto``; the default pattern is that of the runtime.
    """
    prepared, settings = work.prepared, work.settings
    asked, before = _asked(work, budgets), {}
    if kept is not None and kept.exists():
        before = read_json(kept)
    if isinstance(before, dict) and before.get("asked") == asked:
        chosen = Chosen.of(before)
    else:
        chosen = choose_runtime(work, budgets)
        if kept is not None and chosen is not None:
            atomic_write_text(kept, json.dumps({**chosen.facts(), "asked": asked}))
    if chosen is None:
        return work.under(settings.model_copy(update={"runtime": "native"}))
    prepared.shared["runtime"] = chosen
    changes: dict[str, Any] = {"runtime": chosen.runtime}
    if chosen.runtime in EXPORTED and settings.pattern == FAST_PATTERNS:
        changes["pattern"] = COLUMNS
        # asked for beside another pattern: a model without such channels has its precisions left
        links = couplings_of(prepared.model, prepared.matched, prepared.example.batch(), f"{COLUMNS},{FAST_PATTERNS}")
        prepared = replace(prepared, couplings=links)
    return work.on(prepared).under(settings.model_copy(update=changes))


def _asked(work: Work, budgets: Sequence[Budget]) -> list[Any]:
    """What the choice of a runtime hangs on, but for the machine's mood."""
    settings = work.settings
    named = ("runtime", "threads", "deploy_batch", "pattern", "precisions", "tokens", "measure", "profile")
    facts = [str(getattr(settings, name)) for name in named] + [str(budget) for budget in budgets]
    return [*facts, device_facts(threads_of(settings)), state_hash(work.prepared.model)]


def threads_of(settings: Settings) -> int:
    """Threads of the deployment."""
    return settings.threads or torch.get_num_threads()


def deploy_example(work: Work) -> Tensor | tuple[Tensor, ...]:
    """A batch of the size at which the model will be used: a tensor, or one argument for each sample of its own shape.

    Raises
    ------
    FewerError
        When the model takes anything else: neither timing nor the kernels know such inputs.
    """
    typical = _typical(work.prepared.calibration)
    if (one := _lone_argument(typical)) is not None:
        return (one,) * work.settings.deploy_batch
    batch = typical.batch()
    if not isinstance(batch, Tensor):
        raise FewerError(
            "only models that take one tensor, or one tensor for each sample, can be timed and put on the kernels, and "
            "this one is given something else; give the budget in flops (such as flops=0.5x), weights or size "
            "instead of latency"
        )
    image = batch.float()
    return image.expand(work.settings.deploy_batch, *image.shape[1:]).contiguous()


def _typical(samples: Samples) -> Samples:
    """One sample: the first one, or of samples that differ in length that of the middle length."""
    if not isinstance(samples, ListSamples) or len(samples) < 2:
        return samples[:1]
    sizes = [sum(tensor.numel() for tensor in leaves(item)) for item in samples.items]
    return samples.take([sorted(range(len(sizes)), key=sizes.__getitem__)[len(sizes) // 2]])


def _differ(samples: Samples) -> bool:
    """Whether samples have several shapes."""
    if not isinstance(samples, ListSamples):
        return False
    return len({tuple(tuple(tensor.shape) for tensor in leaves(item)) for item in samples.items}) > 1


def free_axes(work: Work) -> dict[int, str]:
    """Axes of the input along which the model takes any number, and what is counted there, as its task says."""
    key = "free axes"
    if key not in work.prepared.shared:
        part = part_of(work.prepared.loaded.task, work.prepared.model)
        work.prepared.shared[key] = {} if part is None or part.note else dict(part.dynamic)
    return dict(work.prepared.shared[key])


def _lone_argument(example: Samples) -> Tensor | None:
    """The one tensor of a sample that a model takes as an argument of its own, such as a scan; None for others."""
    if not isinstance(example, ListSamples) or example.collate is not tuple or not len(example):
        return None
    first = example.items[0]
    return first.float() if isinstance(first, Tensor) else None


def feed(model: Any, example: Tensor | tuple[Tensor, ...]) -> Any:
    """The model on what :func:`deploy_example` gives."""
    return model(*example) if isinstance(example, tuple) else model(example)


def planned_graph(work: Work) -> PlannedGraph:
    """The dense model, exported once.

    Raises
    ------
    FewerError
        When it cannot be exported; it is not tried twice.
    """
    prepared = work.prepared
    key = f"graph of {work.settings.deploy_batch}"
    if key not in prepared.shared:
        names = {unit.name: (unit.name, *unit.aliases) for unit in prepared.matched.units}
        try:
            with evaluating(prepared.model):
                images = prepared.calibration.tensor
                planned = PlannedGraph.of(prepared.model, names, deploy_example(work), free_axes(work), images)
            if not planned.free and _differ(prepared.calibration):
                raise FewerError("a file of it takes samples of one shape alone, and these have several")
            prepared.shared[key] = planned
        except FewerError as error:
            prepared.shared[key] = error
    found = prepared.shared[key]
    if isinstance(found, FewerError):
        raise found
    return found


def dense_run(work: Work, against: str) -> Callable[[], object]:
    """A call of the dense model in a runtime, for timing beside others."""
    prepared, settings = work.prepared, work.settings
    example = deploy_example(work)
    if against in EXPORTED:
        key = f"dense {against} {settings.deploy_batch} {threads_of(settings)}"
        if key not in prepared.shared:
            file = planned_graph(work).model.SerializeToString()
            prepared.shared[key] = open_session(against, file, threads_of(settings))
        session: Session = prepared.shared[key]
        arrays = arrays_of(example)
        return lambda: session.run(arrays)
    return lambda: feed(prepared.model, example)


def undisturbed(work: Work, against: str, ratio: float, warm: bool = True) -> float:
    """The lowest timing of the dense model in this run, in units of the stopwatch's reference.

    Another job on the machine makes a timing longer, never shorter, and a share of a dense time that is too long looks
    smaller than it is.

    Parameters
    ----------
    work
        Of the run.
    against
        The runtime of the dense model.
    ratio
        A new timing.
    warm
        How it was taken.

    Examples
    --------
    >>> from types import SimpleNamespace as Some
    >>> work = Some(prepared=Some(shared={}), settings=Some(deploy_batch=1, threads=1))
    >>> [undisturbed(work, "openvino", ratio) for ratio in (4.0, 3.0, 5.0)]
    [4.0, 3.0, 3.0]
    """
    settings = work.settings
    key = f"dense ratio {against} {settings.deploy_batch} {threads_of(settings)} {warm}"
    found = min(ratio, work.prepared.shared.get(key, ratio))
    work.prepared.shared[key] = found
    return found


def choose_runtime(work: Work, budgets: Sequence[Budget]) -> Chosen | None:
    """Time the dense model everywhere, and find the runtime that meets the budget with the least distortion.

    Whole models are timed at levels that distort ever more: fp32, bf16, int8, and int8 with most blocks cut, which
    only the native kernels gain from. On the first level at which any runtime meets the limit, the fastest is taken.

    Parameters
    ----------
    work
        The ``runtime`` of its settings names one, or is ``auto``.
    budgets
        That for latency says how far to go.

    Returns
    -------
    Chosen or None
        None where no time is measured here.

    Raises
    ------
    FewerError
        When the runtime that was asked for cannot run the model, or the machine is too busy to time anything.
    """
    settings = work.settings
    if "latency" in settings.measure:
        refuse_untimed(work)
    if "latency" not in settings.measure or settings.profile is not None:
        if settings.runtime in EXPORTED:
            raise FewerError(f"runtime={settings.runtime} needs a budget in latency, measured on this machine")
        return None
    if settings.runtime == "torch":
        raise FewerError(
            "in plain torch no option is faster than the dense model; plan for native, onnxruntime or openvino, and "
            "use fewer.load(run, runtime='torch') where the model shall run in torch"
        )
    if settings.runtime == "auto" and "block" in settings.pattern and settings.pattern != FAST_PATTERNS:
        settings = settings.model_copy(update={"runtime": "native"})  # blocks were asked for, which others do not skip
    if settings.tokens and settings.runtime == "auto":
        settings = settings.model_copy(update={"runtime": "native"})
    if _lone_argument(work.prepared.example) is not None:
        # a graph would be traced on one sample, and hold what depends on its length as constants
        if settings.runtime in EXPORTED:
            raise FewerError(
                f"runtime={settings.runtime} runs models whose samples have one shape; here each has its own, so leave "
                "--runtime out"
            )
        return None
    if settings.runtime in ("native", "auto") and all(missing(name) for name in EXPORTED):
        return None
    if settings.runtime in EXPORTED and settings.tokens:
        raise FewerError("tokens are merged by the native kernels and torch only; leave tokens or the runtime out")
    with work.progress.stage("runtimes", len(RUNTIMES)) as stage, use_threads(settings.threads):
        return _Field(work.under(settings), stage).decide(budgets)


class _Field:
    """The models that are timed side by side."""

    def __init__(self, work: Work, stage: Any) -> None:
        self.work, self.prepared, self.settings, self.stage = work, work.prepared, work.settings, stage
        self.example = deploy_example(work)
        self.rows: list[dict[str, Any]] = []
        self.calls: dict[tuple[str, str], Callable[[], object]] = {}
        self.errors: dict[tuple[str, str], float | None] = {}
        self.ms: dict[tuple[str, str], float] = {}
        asked = self.settings.runtime
        self.wanted = tuple(RUNTIMES) if asked == "auto" else (asked, "torch", *EXPORTED)
        self.precisions = tuple(p for p in ("bf16", "int8") if p in self.settings.precisions)

    def decide(self, budgets: Sequence[Budget]) -> Chosen:
        asked = self.settings.runtime
        self.calls["torch", "fp32"] = lambda: feed(self.prepared.model, self.example)
        for runtime in EXPORTED:
            if runtime in self.wanted:
                self._exported(runtime, plans=asked in ("auto", runtime))
                self.stage.advance(1, RUNTIMES[runtime].label)
        if asked == "auto" and native.available():
            self._native("fp32")
            for precision in self.precisions:
                self._native(precision)
            if "block" in self.settings.pattern and "int8" in self.precisions:
                self._native("cut")
            self.stage.advance(1, RUNTIMES["native"].label)
        self._time()
        dense = {key[0]: ms for key, ms in self.ms.items() if key[1] == "fp32" and key[0] != "native"}
        against = min(dense, key=dense.__getitem__)
        runtime = asked if asked != "auto" else self._pick(budgets, dense[against])
        if runtime in EXPORTED and (runtime, "fp32") not in self.ms:
            why = next(row["reason"] for row in self.rows if row["runtime"] == runtime)
            raise FewerError(f"the plan cannot be made for {RUNTIMES[runtime].label}: {why}; leave --runtime out")
        return Chosen(runtime, dense[against], against, dense["torch"], self.rows)

    def _exported(self, runtime: str, plans: bool) -> None:
        """The dense model in a runtime, and, where plans for it are of interest, rounded as far as it goes."""
        lacking = missing(runtime)
        if lacking is not None:
            self._out(runtime, "fp32", lacking)
            return
        levels = ["fp32"]
        if runs_bf16(runtime):
            levels.append("bf16")
        if plans and "int8" in self.precisions:
            levels.append("int8")
        try:
            planned = planned_graph(self.work)
        except FewerError as error:
            self._out(runtime, "fp32", str(error))
            return
        units = [unit.name for unit in self.prepared.matched.units]
        for level in levels:
            precisions = dict.fromkeys(units, level)
            try:
                # with the ranges of a few images: what int8 costs in quality is measured later, for the plan itself
                file = planned.file(runtime, precisions).SerializeToString()
                precision = rest_precision(self.work, runtime, precisions)
                session = open_session(runtime, file, threads_of(self.settings), precision)
                self._add(runtime, level, session)
            except FewerError as error:
                self._out(runtime, level, str(error))
                if level == "fp32":
                    return

    def _add(self, runtime: str, level: str, session: Session) -> None:
        arrays = arrays_of(self.example)
        error = None
        if level in _SAME:
            from fewer.runtimes.structure import describe

            with torch.no_grad():
                expected = [t.float() for t in describe(feed(self.prepared.model, self.example))[1]]
            got = [torch.from_numpy(a).float() for a in session.run(arrays)]
            error = relative_difference(expected, got)
            if not error <= _SAME[level]:
                raise FewerError(f"its answer differs from that of torch by {error:.2g}, relatively")
        self.calls[runtime, level], self.errors[runtime, level] = lambda: session.run(arrays), error

    def _native(self, level: str) -> None:
        units = self.prepared.matched.units
        masks: dict[str, Tensor] = {}
        if level == "cut":
            masks = {u.name: random_mask(u.shape, _CUT, seed) for seed, u in enumerate(units) if u.groups == 1}
        precision = "int8" if level == "cut" else level
        try:
            fast, _ = accelerate(
                self.prepared.model,
                masks,
                example=self.example,
                precision={u.name: precision for u in units},
                budget_ms=8.0,
            )
        except Exception as error:  # a stranger's model: whatever it raises, other runtimes are left
            self._out("native", level, str(error).splitlines()[0] if str(error) else type(error).__name__)
            return
        self.calls["native", level] = lambda: feed(fast, self.example)

    def _out(self, runtime: str, level: str, reason: str) -> None:
        self.rows.append({"runtime": runtime, "precision": level, "ms": None, "error": None, "reason": reason})

    def _time(self) -> None:
        watch = Stopwatch(runtimes=True)
        with evaluating(self.prepared.model):
            calls = {" ".join(key): call for key, call in self.calls.items()}
            found = watch.time(calls, budget_ms=250.0, rounds=5, warm=True)
        for key in self.calls:
            timing = found[" ".join(key)]
            self.ms[key] = timing.ratio * watch.reference_ms
            self.rows.append(
                {
                    "runtime": key[0],
                    "precision": key[1],
                    "ms": self.ms[key],
                    "error": self.errors.get(key),
                    "reason": "",
                }
            )
        quickest = min(self.ms, key=self.ms.__getitem__)
        if (spread := found[" ".join(quickest)].spread) > _TOO_BUSY:
            raise FewerError(
                f"this machine is too busy to time anything: the same model took times that lie {spread:.0%} apart; "
                "run it when nothing else runs, or plan from a profile with --profile"
            )

    def _pick(self, budgets: Sequence[Budget], dense_ms: float) -> str:
        limit = next((b for b in budgets if b.metric == "latency"), None)
        wanted = float("inf")
        if limit is not None:
            wanted = limit.value * dense_ms if limit.relative else limit.value
        best = "native" if native.available() else "torch"
        for level in _LEVELS:
            here = {runtime: ms for (runtime, at), ms in self.ms.items() if at == level and runtime != "torch"}
            if here:
                best = min(here, key=here.__getitem__)
                if here[best] <= wanted and level != "fp32":
                    return best
        least = {r: min(ms for (n, _), ms in self.ms.items() if n == r) for r, _ in self.ms if r != "torch"}
        return min(least, key=least.__getitem__) if least else best


def relative_difference(expected: Sequence[Tensor], got: Sequence[Tensor]) -> float:
    """Length of the difference over that of what is expected; infinite where shapes differ or a number is none.

    Examples
    --------
    >>> relative_difference([torch.ones(4)], [torch.ones(4) * 1.5])
    0.5
    """
    if [t.shape for t in expected] != [t.shape for t in got]:
        return float("inf")
    change = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(expected, got, strict=True))
    total = sum(float(a.double().square().sum()) for a in expected)
    ratio = (change / max(total, 1e-60)) ** 0.5
    return ratio if ratio == ratio else float("inf")
