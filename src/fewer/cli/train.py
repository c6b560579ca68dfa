"""``fewer train``: a network of a task, from annotated data."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from fewer.cli.flags import LogFlags, Shared, given
from fewer.cli.task_flags import TaskFlags
from fewer.core.errors import FewerError

__all__ = ["train"]


def train(
    data: str | None = None,
    /,
    *,
    task: str | None = None,
    preset: str | None = None,
    config: str | None = None,
    settings: TaskFlags | None = None,
    logs: LogFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Train a network of a task from annotated data.

    The settings of a task are flags: fewer train --task segment --help.

    Parameters
    ----------
    data
        The data set, in the form that the task reads. Check it first: fewer doctor DATA
    task
        See: fewer list tasks. May be left out where one task alone knows the data.
    preset
        Settings with a name. See: fewer list train-presets
    config
        A TOML file of settings; it may also give task, data and preset. The config.toml of a run is one.
    """
    from fewer.cli.config import resolve_as
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json, say_would
    from fewer.cli.work import command_line
    from fewer.core.toml import read_toml
    from fewer.tasks import task_for
    from fewer.training.callbacks import looking_on

    shared = shared or Shared()
    written = {} if config is None else read_toml(config)
    for name in ("data", "task"):
        if not isinstance(written.get(name, ""), str):
            raise FewerError(f"{config}: {name}={written[name]!r}: it must be a text")
    data = data or written.get("data")
    named = task or written.get("task")
    if data is None:
        told = f"give {task_for(named).data}" if named else "give a data set"
        raise FewerError(f"which data? {told}, for example: fewer train DATA --out run")
    doing = task_for(named, data=data)
    flags = given(settings, shared)
    chosen, _ = resolve_as(doing.settings, flags, preset, config, folder=doing.name, names=("data", "task"))
    out = shared.out or "run"
    if shared.dry_run:
        lines = [*doing.plan(data, chosen), f"out {out}"]
        return say_would(lines, shared.json, task=doing.name, data=data, out=out, settings=chosen.model_dump())
    with looking_on((logs or LogFlags()).callbacks()):
        run = doing.train(
            data,
            out=out,
            settings=chosen,
            overwrite=shared.overwrite,
            resume=shared.resume,
            progress=terminal_progress(),
            tell=None if shared.json or shared.quiet else lambda line: print(line, file=sys.stderr, flush=True),
            command=command_line(),
        )
    if shared.json:
        as_json({"folder": out, "task": doing.name, **run.to_dict()})
        return 0
    print(*run.lines(), sep="\n")
    print(
        f"report  {Path(out) / 'report.html'}",
        f"next    fewer predict {shlex.quote(out)} INPUTS --out predictions",
        sep="\n",
    )
    return 0
