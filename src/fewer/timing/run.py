"""The bench itself: prepare, load, warm up, time in turn, repeat once on a noisy machine, and gather the rows."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.precision import KERNEL_PRECISIONS, check_precision
from fewer.core.stamp import usable_cores
from fewer.timing.peers import REFERENCE, Peer
from fewer.timing.prepare import Skip, Workshop
from fewer.timing.process import Handle, InProcess, OwnProcess
from fewer.timing.result import Row
from fewer.timing.runtimes import Job
from fewer.timing.schedule import Samples, choose_rounds, interleave
from fewer.timing.spread import spread

__all__ = ["RUNTIME_LIBRARIES", "Course", "Extra", "check_threads", "is_pinned", "load_handle"]

Progress = Callable[[str, float], None]
"""Called with what is going on and the share that is done, 0 to 1."""


@dataclass(frozen=True)
class Extra:
    """Something to time beside the peers, and the precision whose dense peers it must beat.

    Attributes
    ----------
    call : callable or Path
        Takes the same input as the model; or a run folder.
    precision : {"fp32", "bf16", "int8"}, optional
        By default the lowest that a module of it declares in ``.precision``, else fp32.
    note : str
        Printed below the table.

    Examples
    --------
    >>> Extra(abs, precision="bf16").declared_precision()
    'bf16'
    """

    call: Any
    precision: str | None = None
    note: str = ""

    def declared_precision(self) -> str:
        """The precision that the ratios of this row refer to."""
        if self.precision is not None:
            check_precision(self.precision, KERNEL_PRECISIONS)
            return self.precision
        modules = self.call.modules() if isinstance(self.call, nn.Module) else ()
        found = {str(getattr(module, "precision", "")) for module in modules}
        return next((p for p in reversed(KERNEL_PRECISIONS) if p in found), "fp32")


RUNTIME_LIBRARIES = ("torch", "numpy", "onnx", "onnxruntime", "openvino", "nncf")
"""Packages whose versions decide what a bench shows."""


def is_pinned(pin: bool) -> bool:
    """Whether processes are really held to their CPUs: only Linux lets a process ask for that."""
    return pin and sys.platform.startswith("linux")


def check_threads(threads: Sequence[int] | int | None) -> list[int]:
    """The thread settings, checked against the CPUs at hand; None takes 1 and all of them."""
    most = usable_cores()
    if threads is None:
        return list(dict.fromkeys([1, most]))
    threads = [threads] if isinstance(threads, int) else threads
    chosen = list(dict.fromkeys(int(n) for n in threads))
    if not chosen or min(chosen) < 1:
        raise FewerError(f"threads must be numbers from 1 to {most}; got {list(threads)}")
    if max(chosen) > most:
        raise FewerError(f"{max(chosen)} threads were asked for, but this process may use {most} CPUs; ask for fewer")
    return chosen


@dataclass
class _Entry:
    """One competitor: its row's fixed part, and how its job is made for a thread setting."""

    name: str
    label: str
    runtime: str
    precision: str
    kind: str
    job: Callable[[int], tuple[Job, str]]

    def row(self, threads: int, **more: Any) -> Row:
        return Row(
            name=self.name,
            label=self.label,
            runtime=self.runtime,
            precision=self.precision,
            kind="peer" if self.kind == "peer" else "extra",
            threads=threads,
            **more,
        )


class Course:
    """The order of events of one bench."""

    def __init__(
        self,
        workshop: Workshop,
        peers: Sequence[Peer],
        extras: Mapping[str, Extra],
        rounds: int | None,
        seconds: float,
        pin: bool,
        progress: Progress,
    ) -> None:
        self.workshop, self.rounds, self.seconds, self.pin, self.progress = workshop, rounds, seconds, pin, progress
        self.entries = [self._peer(peer) for peer in peers]
        self.entries += [self._extra(name, extra) for name, extra in extras.items()]
        self.reference: np.ndarray | None = None
        self.stopped = False

    def _peer(self, peer: Peer) -> _Entry:
        def job(threads: int) -> tuple[Job, str]:
            return self.workshop.job(peer, threads)

        return _Entry(peer.name, peer.label, peer.runtime, peer.precision, "peer", job)

    def _extra(self, name: str, extra: Extra) -> _Entry:
        precision = extra.declared_precision()

        def job(threads: int) -> tuple[Job, str]:
            return self.workshop.extra_job(extra.call, precision, threads), extra.note

        return _Entry(name, name, "extra", precision, "extra", job)

    def run(self, settings: Sequence[int]) -> tuple[list[Row], list[int], list[str]]:
        """Rows of all thread settings, the settings that were repeated, and notes."""
        rows: list[Row] = []
        repeated: list[int] = []
        for index, threads in enumerate(settings):
            if self.stopped:
                break

            def say(text: str, share: float, index: int = index, threads: int = threads) -> None:
                unit = "thread" if threads == 1 else "threads"
                self.progress(f"{threads} {unit}: {text}", (index + share) / len(settings))

            more, again = self._setting(threads, say)
            rows += more
            repeated += [threads] if again else []
        notes = ["Stopped early: the rounds that were finished count."] if self.stopped else []
        self.progress("done", 1.0)
        return rows, repeated, notes

    def _setting(self, threads: int, say: Progress) -> tuple[list[Row], bool]:
        rows: dict[str, Row] = {}
        loaded: dict[str, Handle] = {}
        estimates: dict[str, float] = {}
        with contextlib.ExitStack() as stack:
            for number, entry in enumerate(self.entries):
                say(f"preparing {entry.label}", 0.5 * number / len(self.entries))
                try:
                    rows[entry.name], loaded[entry.name], estimates[entry.name] = self._load(entry, threads, stack)
                except Skip as why:
                    rows[entry.name] = entry.row(threads, status="skipped", reason=str(why))
                except RuntimeError as error:
                    if entry.name == REFERENCE:
                        name = self.workshop.subject.name
                        raise FewerError(f"{name} does not run on this input in torch: {error}") from None
                    rows[entry.name] = entry.row(threads, status="failed", reason=str(error))
            again = self._rounds(loaded, estimates, rows, lambda text, share: say(text, 0.5 + 0.5 * share))
            for name, handle in loaded.items() if not self.stopped else ():
                if rows[name].status == "ok" and handle.isolated:
                    with contextlib.suppress(RuntimeError):
                        rows[name].memory_bytes = handle.ask("memory")["memory"]
        return [rows[entry.name] for entry in self.entries], again

    def _load(self, entry: _Entry, threads: int, stack: contextlib.ExitStack) -> tuple[Row, Handle, float]:
        job, note = entry.job(threads)
        log = self.workshop.folder / f"{self.entries.index(entry)}-{threads}.log"
        handle = load_handle(job, log, self.pin)
        stack.callback(handle.close)
        about, outputs = handle.about(self.workshop.folder)
        flat = np.concatenate([a.ravel() for a in outputs]) if outputs else np.zeros(0, np.float32)
        if self.workshop.judged is not None:
            flat = handle.judge(self.workshop.judged, self.workshop.folder)
        if entry.name == REFERENCE and self.reference is None:
            self.reference = flat
        row = entry.row(
            threads,
            note="; ".join(filter(None, [note, about["note"]])),
            load_s=about["load_s"],
            load_memory_bytes=about["load_memory"] if handle.isolated else None,
            relative_error=_relative_error(flat, self.reference),
            own_process=handle.isolated,
        )
        return row, handle, handle.ask("warm")["estimate_ms"]

    def _rounds(
        self, loaded: Mapping[str, Handle], estimates: Mapping[str, float], rows: Mapping[str, Row], say: Progress
    ) -> bool:
        times = [estimates[name] for name in loaded]
        rounds = self.rounds or choose_rounds(times, self.seconds)
        first = self._interleave(loaded, times, rounds, lambda done: say(f"round {done} of {rounds}", done / rounds))
        again = not self.stopped and any(_noisy(sample) for sample in first)
        chosen = first
        if again:
            second = self._interleave(
                loaded, times, rounds, lambda done: say(f"noisy machine, once more: round {done} of {rounds}", 1.0)
            )
            if _unrest(second) < _unrest(first) and len(second[0].wall_ms) == rounds:
                chosen = second
        for name, sample in zip(loaded, chosen, strict=True):
            rows[name].wall_ms, rows[name].cpu_ms = sample.wall_ms, sample.cpu_ms
            if sample.error is not None:
                rows[name].status, rows[name].reason = "failed", sample.error
        return again

    def _interleave(
        self, loaded: Mapping[str, Handle], times: Sequence[float], rounds: int, on_round: Callable[[int], None]
    ) -> list[Samples]:
        try:
            return interleave(list(loaded.values()), times, rounds, on_round)
        except KeyboardInterrupt as stop:
            samples: list[Samples] = getattr(stop, "samples", [])
            if not samples or len(samples[0].wall_ms) < 3:
                raise
            self.stopped = True
            return samples


def load_handle(job: Job, log: Path, pin: bool) -> Handle:
    """Load a job in a process of its own; in this one when another process cannot rebuild the model.

    Raises
    ------
    RuntimeError
        When it does not load or run.
    """
    if job.target is None or job.payload is not None:
        try:
            return OwnProcess(job, log, pin)
        except RuntimeError:
            if job.target is None:
                raise
    # a class of the calling script or a closure cannot be rebuilt elsewhere; a model that is broken fails again here
    try:
        return InProcess(job)
    except Exception as error:
        text = str(error).strip().splitlines()
        raise RuntimeError(f"{type(error).__name__}: {text[0][:300] if text else ''}") from error


def _noisy(sample: Samples) -> bool:
    return sample.error is None and len(sample.wall_ms) > 2 and spread(sample.wall_ms).noisy


def _unrest(samples: Iterable[Samples]) -> float:
    spreads = [spread(s.wall_ms).relative for s in samples if s.error is None and s.wall_ms]
    return float(np.mean(spreads)) if spreads else float("inf")


def _relative_error(outputs: np.ndarray, reference: np.ndarray | None) -> float | None:
    if reference is None or outputs.shape != reference.shape or not reference.size:
        return None
    error = float(np.linalg.norm(outputs.astype(np.float64) - reference) / max(np.linalg.norm(reference), 1e-30))
    return error if np.isfinite(error) else None
