"""Every verb with flags that nobody should give: at most one sentence may come of it."""

from __future__ import annotations

import contextlib
import io
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.fuzz.mutate import FLAG_VALUES

__all__ = ["FLAGS", "TooLong", "limited"]

SECONDS = 60
"""A call that takes longer is a finding: nobody who mistypes a number should wait for hours without a word."""

BASE = {
    "plan": ["run", "--budget"], "info": ["run"], "report": ["run"], "apply": ["run", "--dry-run"],
    "select": ["pool", "--out=o", "--budget=labels=2", "--features=features.npy"],
    "compress": ["fewer/vit-small-16", "--images=pool", "--dry-run", "--budget=weights=50%"],
    "sense": ["fewer/vit-small-16", "--images=pool", "--dry-run", "--out=o"],
    "recover": ["run", "--dry-run"], "export": ["run", "--out=o"], "bench": ["run", "--dry-run"],
    "profile": ["fewer/vit-small-16", "--dry-run"], "list": [], "tune": ["sets/opinions/records.json", "--dry-run"],
    "demo": ["--dry-run"], "adapt": ["sets/masks", "sets/masks", "--dry-run", "--out=o"],
    "study": ["status", "study"], "private": ["query", "circuit", "pool"],
}  # fmt: skip
"""Words of a call that works, or nearly."""

OF_TASKS = {
    "train": ["--dry-run", "--out=o"], "eval": [], "predict": ["--out=o"], "doctor": [],
}  # fmt: skip
SETS = {"classify": "npz", "detect3d": "kitti", "gait": "walks", "segment": "masks", "quality": "opinions/records.json"}


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise :class:`TooLong` where a block takes longer, on the main thread.

    Seconds are those of the processor, so that a busy machine makes no findings; waiting may take ten times as long.
    """

    def ring(*_: object) -> None:
        raise TooLong(f"still busy after {seconds} seconds")

    kinds = (signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 10 * seconds)
    before = [signal.signal(kind, ring) for kind, _, _ in kinds]
    try:
        for _, timer, most in kinds:
            signal.setitimer(timer, most)
        yield
    finally:
        for (kind, timer, _), old in zip(kinds, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(kind, old)


class TooLong(BaseException):
    """No ``Exception``, so that no code which explains exceptions takes it for one."""


def _names(verb: str, task: str) -> list[str]:
    """Flags that the verb has, of its settings too."""
    import inspect

    from fewer.cli.app import TASK_VERBS, make_app
    from fewer.tasks import open_task

    app = make_app()
    flags = {"--seed", "--out", "--device", "--trust", "--task", "--config"}
    with contextlib.suppress(Exception):
        for argument in app[verb].assemble_argument_collection():
            flags |= {name for name in argument.names if name.startswith("--")}
    if verb in TASK_VERBS:
        of = {"train": "settings", "eval": "evaluate_settings", "predict": "predict_settings"}[verb]
        flags |= {f"--{name.replace('_', '-')}" for name in getattr(open_task(task), of).model_fields}
    assert inspect.isfunction(open_task)
    return sorted(flags - {"--help", "--debug", "--version", "--json", "--host", "--port"})


_KNOWN: dict[tuple[str, str], list[str]] = {}


def _words(work: Path, verb: str, task: str, draw: random.Random) -> list[str]:
    data = f"sets/{SETS[task]}"
    if verb in BASE:
        return [verb, *BASE[verb]]
    run = f"trained/{task}/run"
    if (work / "trained" / task).is_dir():
        data = f"trained/{task}/data"
    else:
        run = "run"
    first = [run, data] if verb in ("eval", "predict") else [data]
    return [verb, *first, f"--task={task}", *OF_TASKS[verb]]


def _one(verb: str) -> Callable[[Path, random.Random], None]:
    def run(work: Path, draw: random.Random) -> None:
        from fewer.cli.main import main

        task = draw.choice(sorted(SETS))
        words = _words(work, verb, task, draw)
        key = (verb, task)
        names = _KNOWN.setdefault(key, _names(verb, task))
        for _ in range(draw.choice([1, 1, 2])):
            how = draw.random()
            if how < 0.85:
                words += [f"{draw.choice(names)}={draw.choice(FLAG_VALUES)}"]
            elif how < 0.9:
                words += [draw.choice(names)]
            elif len(words) > 1:
                words[draw.randrange(1, len(words))] = draw.choice(FLAG_VALUES)
        said = io.StringIO()
        silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said)
        with contextlib.chdir(work), silent[0], silent[1], limited(SECONDS):
            code = main(words)
        if code not in (0, 2, 3):
            raise AssertionError(f"exit {code}: fewer {words}: {said.getvalue()[-600:]}")

    return run


FLAGS: dict[str, Callable[[Path, random.Random], None]] = {f"flags-{verb}": _one(verb) for verb in (*BASE, *OF_TASKS)}
