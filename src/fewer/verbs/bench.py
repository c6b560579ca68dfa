"""Bench: the same work in every runtime that a user could take instead, side by side on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from typing_extensions import Unpack

from fewer.core.errors import FewerError
from fewer.core.options import split_options
from fewer.core.progress import Progress, in_shares, usual_progress
from fewer.core.stamp import environment
from fewer.engine.parts import Entry, entry_of
from fewer.models.running import evaluating
from fewer.runtimes.folder import RUNTIME_FILE, read_record
from fewer.runtimes.names import RUNTIMES, missing
from fewer.timing.inputs import make_inputs
from fewer.timing.peers import parse_peers
from fewer.timing.prepare import Workshop
from fewer.timing.result import BenchResult
from fewer.timing.run import RUNTIME_LIBRARIES, Course, Extra, check_threads, is_pinned
from fewer.timing.settings import BenchChoices, BenchSettings
from fewer.timing.sources import open_subject

__all__ = ["bench"]


class BenchOptions(BenchChoices, total=False):
    """What :func:`bench` can be told beside model and peers."""

    calibration: Tensor | None
    progress: Progress | Callable[[str, float], None] | None


def bench(
    model: str | Path | nn.Module,
    example: Tensor | Sequence[Tensor] | None = None,
    *,
    vs: Iterable[str] | str | None = None,
    threads: Sequence[int] | None = None,
    images: Any = None,
    extra: Mapping[str, Any] | None = None,
    **options: Unpack[BenchOptions],
) -> BenchResult:
    """Time a model in every runtime a user could take instead, on the same input, interleaved, on this machine.

    Each competitor runs in a process of its own, limited to the CPUs and threads of the setting; the processes take
    turns (A B C A B C). torch eager in fp32 is always among them: the ratios are to it, paired round by round.

    Parameters
    ----------
    model : str, Path or nn.Module
        Spec, run folder, or module. Of a run, the peers run the dense original, and the compressed model is two extra
        rows: in plain torch, and accelerated.
    example : Tensor or sequence of Tensor, optional
        The model's argument(s), batch first.
    vs : names, optional
        Peers or groups of `fewer.timing.peers`; by default all but the bf16 modes of torch.
    threads : sequence of int, optional
        Thread settings; by default 1 and all that this process may use.
    images : folder, tensor or iterable, optional
        Where there is no ``example``: a batch of these is the input, and the next 32 calibrate the int8 peers. By
        default photos of installed packages, else seeded noise of the model's input size.
    extra : mapping, optional
        Name to callable, run folder (Path) or `Extra`.
    **options
        Settings by name, see :class:`~fewer.timing.settings.BenchSettings`: ``time="2min"`` or seconds, the wanted
        time of the rounds per thread setting (20 seconds); ``rounds``, in place of it; ``deploy_batch``, samples at
        once where there is no ``example``; ``seed``; ``pin``. And ``calibration``, other inputs for the int8 peers
        (with an ``example`` and without this, the example itself); ``progress`` as for :func:`fewer.compress`, or
        a function that is called with (text, share done).

    Returns
    -------
    BenchResult
        A competitor that lacks a package or fails is a row with the reason.

    Raises
    ------
    FewerError
        On a name, number, run or input that cannot be meant.

    Examples
    --------
    >>> import torch
    >>> net = torch.nn.Linear(8, 4)
    >>> result = bench(net, torch.ones(2, 8), vs="torch-fp32", threads=[1], rounds=3)
    >>> result.versus_eager(result.row("torch-fp32"))
    1.0
    """
    peers = parse_peers(vs)
    settings = check_threads(threads)
    own, named = split_options("bench", options, ("calibration", "progress"), BenchSettings.model_fields)
    how = BenchSettings().changed(named)
    if how.rounds is not None and how.rounds < 1:
        raise FewerError(f"the rounds must be at least 1; got {how.rounds}")
    subject = open_subject(model)
    entry = Entry(subject) if example is not None else entry_of(subject, images, how.seed)
    subject, images = entry.subject, images if entry.images is None else entry.images
    inputs = make_inputs(subject, example, images, own.get("calibration"), how.deploy_batch, how.seed)
    extras = {name: value if isinstance(value, Extra) else Extra(value) for name, value in (extra or {}).items()}
    for name in extras:
        if name in {peer.name for peer in peers}:
            raise FewerError(f"the extra {name!r} has the name of a peer; choose another name")
    if entry.extras:
        extras = {**{name: Extra(*row) for name, row in entry.extras.items()}, **extras}
    elif subject.run is not None:
        extras = {**_run_extras(subject.run), **extras}
    with tempfile.TemporaryDirectory(prefix="fewer-bench-") as folder, evaluating(subject.model):
        workshop = Workshop(subject, inputs.arguments, inputs.calibration, Path(folder), max(settings))
        workshop.judge(inputs.judged)
        with in_shares(own.get("progress") or usual_progress(), "bench") as tell:
            course = Course(workshop, peers, extras, how.rounds, how.time, how.pin, tell)
            rows, repeated, notes = course.run(settings)
    return BenchResult(
        model=subject.name,
        input_shapes=[list(a.shape) for a in inputs.arguments],
        rounds=max((len(row.wall_ms) for row in rows), default=0),
        rows=rows,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        repeated=repeated,
        input_origin=inputs.origin,
        judged=max(1, len(inputs.judged)) * len(inputs.arguments[0]),
        notes=[*subject.notes, *notes],
        environment=environment(settings, libraries=RUNTIME_LIBRARIES, pinned=is_pinned(how.pin)),
    )


def _run_extras(run: Path) -> dict[str, Extra]:
    """The compressed model twice: as plain torch runs it, zeros included, and on the kernels that skip them."""
    from fewer.timing.sources import AcceleratedRun, RuntimeFile, load_run

    record = read_record(run)
    if record is not None and missing(record.runtime) is None:  # the runtime that it was planned for
        precision = "int8" if "int8" in record.about else record.precision
        file = RuntimeFile(run / RUNTIME_FILE, record.runtime, record.precision)
        note = f"the file that the plan was made for: {record.about}"
        return {
            f"fewer {run}": Extra(run, Extra(load_run(run)).declared_precision()),
            f"fewer {run} {RUNTIMES[record.runtime].label}": Extra(file, precision, note),
        }
    fast = AcceleratedRun(run)
    note = "each layer on the fastest kernel measured here, at the precision that the plan gave it"
    return {
        f"fewer {run}": Extra(run, Extra(load_run(run)).declared_precision()),
        f"fewer {run} accelerated": Extra(fast, fast.precision(), note),
    }
