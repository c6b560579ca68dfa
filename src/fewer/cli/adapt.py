"""``fewer adapt``: a segmentation from a labelled source to an unlabelled target."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from fewer.cli.adapt_flags import AdaptFlags
from fewer.cli.flags import LogFlags, Shared, given

__all__ = ["adapt"]


def adapt(
    source: str,
    target: str,
    /,
    *,
    test: str | None = None,
    config: str | None = None,
    settings: AdaptFlags | None = None,
    logs: LogFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Train a network on a labelled source so that it segments an unlabelled target.

    Masks in the target folder are ignored. The weights are chosen without target labels. The run folder is read by
    predict, eval and compress like that of a training. Methods: fewer list adaptation

    Parameters
    ----------
    source
        A folder with images/ and masks/, or a raw folder of nnU-Net.
    target
        A folder of images of the other domain.
    test
        A labelled folder of the target domain, which is scored at the very end and never before.
    config
        A TOML file of settings.
    """
    from fewer.cli.config import resolve_as
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json, say_would
    from fewer.cli.work import command_line
    from fewer.tasks.segment.adapt import adapt as run
    from fewer.tasks.segment.adapt import plan_adapt
    from fewer.tasks.segment.adapt_settings import AdaptSettings
    from fewer.training.callbacks import looking_on

    shared = shared or Shared()
    flags = given(settings, shared)
    chosen, _ = resolve_as(AdaptSettings, flags, None, config, folder="segment", names=("source", "target", "task"))
    out = shared.out or "run"
    if shared.dry_run:
        lines = [*plan_adapt(source, target, chosen).lines(), f"out {out}"]
        return say_would(lines, shared.json, settings=chosen.model_dump(), out=out)
    with looking_on((logs or LogFlags()).callbacks()):
        done = run(
            source,
            target,
            out=out,
            settings=chosen,
            test=test,
            overwrite=shared.overwrite,
            resume=shared.resume,
            progress=terminal_progress(),
            tell=None if shared.json or shared.quiet else lambda line: print(line, file=sys.stderr, flush=True),
            command=command_line(),
        )
    if shared.json:
        as_json({"folder": out, **done.to_dict()})
        return 0
    print(*done.lines(), sep="\n")
    print(
        f"report  {Path(out) / 'report.html'}",
        f"next    fewer predict {shlex.quote(out)} INPUTS --out predictions",
        sep="\n",
    )
    return 0
