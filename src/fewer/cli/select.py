"""``fewer select``: which images of an unlabelled pool to annotate first."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fewer.cli.flags import WORK, Shared, cpu_only
from fewer.core.errors import FewerError

__all__ = ["select"]


def select(
    pool: str | None = None,
    /,
    *,
    budget: Annotated[list[str] | None, Parameter(negative="")] = None,
    method: str = "coverage",
    features: str | None = None,
    layer: str | None = None,
    input_size: int | None = None,
    continue_: Annotated[bool, Parameter(name="--continue", negative="", show_default=False)] = False,
    labels: str | None = None,
    predictions: str | None = None,
    to: str = "labelstudio,coco",
    batch: Annotated[int, Parameter(group=WORK)] = 32,
    backend: Annotated[str, Parameter(group=WORK)] = "thread",
    workers: Annotated[int | None, Parameter(group=WORK, show_default=False)] = None,
    shared: Shared | None = None,
) -> int:
    """Choose the images of a pool that should be labelled first, and say why.

    The queue folder holds the plan (plan.json, queue.csv), a page with pictures (gallery.html) and exports for
    annotation tools. When labels are back: fewer select --continue --out queue/ --labels export.json --budget labels=50

    Parameters
    ----------
    pool
        A folder of images. With --continue: the queue, or nothing.
    budget
        labels=100, or labels=5% of the images that can be chosen.
    method
        coverage, random, kcenter, typiclust, probcover, saal and others; see: fewer list selection
    features
        A model, warm-up (a network that learns from the pool), quality (statistics of how images look, to choose what
        raters see) or an .npy file, a row per image [fewer/dinov2-small].
    layer
        Layer of the model whose output is used [what stands before the classifier, or the class token].
    input_size
        Side of the model's input in pixels [the model's own; 128 for warm-up].
    continue_
        A further round of the queue at --out; labelled and queued images are never chosen again.
    labels
        Labels that came back: a Label Studio, COCO or CVAT export, masks, a .csv (name,label) or a list of names.
    predictions
        Predictions of a model trained meanwhile: an .npz file, or a folder of .npy maps.
    to
        Exports: labelstudio, coco, cvat, masks; several with commas, or none.
    batch
        Images per forward pass.
    backend
        Of the embedding: serial, thread, process or ray.
    workers
        Tasks at once [one per core].
    """
    shared = shared or Shared()
    if not budget:
        raise FewerError("which budget? give one, for example --budget labels=100")
    cpu_only(shared)
    formats = [] if to.strip() == "none" else [name.strip() for name in to.split(",") if name.strip()]
    pool, out = _places(pool, shared.out, continue_)
    if shared.dry_run:
        return _dry_run(pool, budget, method, features, formats, out, shared)
    from fewer.cli.progress import terminal_progress
    from fewer.cli.work import command_line
    from fewer.verbs.select import select

    done = select(
        pool,
        ",".join(budget),
        out=out,
        method=method,
        features=features,
        layer=layer,
        input_size=input_size,
        labels=labels,
        predictions=predictions,
        to=formats,
        seed=shared.seed or 0,
        batch=batch,
        backend=backend,
        workers=workers,
        proceed=continue_,
        resume=shared.resume,
        overwrite=shared.overwrite,
        progress=terminal_progress(),
        command=command_line(),
    )
    if shared.json:
        from fewer.cli.show import as_json

        written = [str(path) for path in done.written]
        as_json({"folder": str(done.folder), "chosen": [a.model_dump() for a in done.chosen], "written": written})
        return 0
    _show(done)
    return 0


def _places(pool: str | None, out: str | None, proceed: bool) -> tuple[str | None, str]:
    """Where the images are and where the queue is; a further round may name the queue itself, as people do."""
    if proceed and pool is not None and out is None and (Path(pool) / "plan.json").is_file():
        return None, pool
    return pool, out or "queue"


def _dry_run(
    pool: str | None,
    budget: list[str],
    method: str,
    features: str | None,
    formats: list[str],
    out: str,
    shared: Shared,
) -> int:
    from fewer.cli.show import as_json
    from fewer.data.images import list_images
    from fewer.selection.export import check_formats
    from fewer.selection.methods import check_method
    from fewer.verbs.select import FEATURES, one_budget

    check_method(method)
    check_formats(formats)
    if pool is None:
        raise FewerError("which pool? give a folder of images; a dry run does not open a queue")
    files = list_images(pool)
    count = one_budget(",".join(budget)).count(len(files))
    facts: dict[str, Any] = {
        "dry_run": True,
        "pool": pool,
        "images": len(files),
        "choose": count,
        "method": method,
        "features": features or FEATURES,
        "exports": formats,
        "out": out,
    }
    if shared.json:
        as_json(facts)
    else:
        print("dry run, nothing is written:", *(f"{k} {v}" for k, v in facts.items() if k != "dry_run"), sep="\n  ")
    return 0


def _show(done: Any) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from fewer.cli.show import console, say, shorten
    from fewer.core.display import skipped_lines

    plan, last = done.plan, done.plan.rounds[-1]
    say(Text(f"round {last.round}: {last.chosen} of {last.pool} images to label, chosen by {last.method}", "bold"))
    if done.returned is not None:
        told = f"{len(done.returned.labels)} labels came back"
        if done.returned.unknown:
            named = ", ".join(shorten(name, 40) for name in done.returned.unknown[:3])
            told += f"; {len(done.returned.unknown)} names are not of this pool: {named}"
        say(Text(told))
    earlier = [a for a in plan.waiting() if a.round < last.round]
    if earlier:
        say(Text(f"{len(earlier)} images of earlier rounds still wait for a label"))
    if done.lost:
        named = ", ".join(shorten(name, 40) for name in done.lost[:3]) + (", ..." if len(done.lost) > 3 else "")
        say(Text(f"{len(done.lost)} of the images that wait cannot be opened any more and are in no export: {named}"))
    for line in skipped_lines((shorten(s.name, 40), s.reason) for s in plan.skipped):
        say(Text(line))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    table.add_column("", justify="right")
    table.add_column("image", no_wrap=True)
    table.add_column("why", overflow="fold")
    for asked in done.chosen[:10]:
        table.add_row(str(asked.rank), shorten(asked.name, max(16, console().width // 3)), asked.why)
    say(table)
    if len(done.chosen) > 10:
        say(Text(f"and {len(done.chosen) - 10} more in {done.folder / 'queue.csv'}"))
    for path in done.written:
        say(Text(f"wrote {path}"))
    queue = shlex.quote(str(done.folder))
    say(Text(f"next: label them, then fewer select --continue --out {queue} --labels EXPORT --budget labels=N"))
