"""``fewer profile``: what the layers of a model cost on this machine."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fewer.cli.flags import Shared, cpu_only
from fewer.core.errors import FewerError

if TYPE_CHECKING:
    from fewer.verbs.profile import ProfiledModel

__all__ = ["profile"]


def profile(
    model: str,
    /,
    *,
    deploy_batch: int = 1,
    threads: int | None = None,
    pattern: str | None = None,
    precisions: str | None = None,
    exclude: Annotated[list[str] | None, Parameter(negative="")] = None,
    name: Annotated[str, Parameter(show_default=False)] = "",
    again: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    shared: Shared | None = None,
) -> int:
    """Time every way to run a model's layers on this machine, once; latency and energy budgets are planned from it.

    The timings are kept in the user's cache and never taken twice. With --out they are also written to a file, which
    plans for this machine elsewhere: fewer compress ... --profile FILE

    Parameters
    ----------
    model
        fewer/dinov2-small, timm/NAME, torchvision/NAME, hf/NAME or FILE.py:FUNCTION, which runs the code of that file.
    deploy_batch
        Images at once, as when the model is used.
    threads
        Threads of every timing. By default all CPUs of this process.
    pattern
        Block patterns, comma-separated. By default block:16x4,block:16x16,block:32x32,block:16x1.
    precisions
        By default fp32,bf16,int8.
    exclude
        Layers that will not be touched.
    name
        Of the device, in the file.
    again
        Forget what was measured on this machine and start anew.
    """
    from pathlib import Path

    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json, say, say_would
    from fewer.core.precision import KERNEL_PRECISIONS
    from fewer.cost.latency import PATTERNS
    from fewer.verbs.profile import profile as run_profile

    shared = shared or Shared()
    cpu_only(shared)
    out = Path(shared.out) if shared.out else None
    if out is not None and out.exists() and not shared.overwrite:
        raise FewerError(f"{out} exists already; give another --out, or --overwrite")
    wanted = tuple(p.strip() for p in pattern.split(",")) if pattern else PATTERNS
    numbers = tuple(p.strip() for p in precisions.split(",")) if precisions else KERNEL_PRECISIONS
    if shared.dry_run:
        told = f"would time the layers of {model} at batch {deploy_batch}: {', '.join(wanted)}, {', '.join(numbers)}"
        return say_would([told], shared.json, model=model, out=shared.out)
    made = run_profile(
        model,
        deploy_batch=deploy_batch,
        threads=threads,
        patterns=wanted,
        precisions=numbers,
        exclude=tuple(exclude or ()),
        again=again,
        progress=terminal_progress(),
    )
    if out is not None:
        made.profile.save(out, name or str(made.profile.facts["cpu"]))
    if shared.json:
        as_json({"device": made.profile.facts, "layers": made.rows, "notes": made.words(), "out": shared.out})
        return 0
    say(_table(made), *made.words())
    if out is not None:
        file = shlex.quote(str(out))
        say(f"wrote {out}; to plan for this device elsewhere: fewer compress MODEL ... --profile {file}")
    return 0


def _table(made: ProfiledModel):
    from rich.table import Table

    columns = list(made.rows[0])
    table = Table(title="milliseconds of one layer", box=None, pad_edge=False, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == "layer" else "right", overflow="fold")
    for row in made.rows:
        table.add_row(*(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()))
    return table
