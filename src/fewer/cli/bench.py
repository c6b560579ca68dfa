"""``fewer bench``: time a model or a run beside the runtimes that a user could take instead."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fewer.cli.flags import Shared, cpu_only
from fewer.core.errors import FewerError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from fewer.timing.result import BenchResult

__all__ = ["bench"]

Switch = Annotated[bool, Parameter(negative="", show_default=False)]


def bench(
    model: str,
    /,
    *,
    vs: Annotated[list[str] | None, Parameter(consume_multiple=True, negative="")] = None,
    threads: str | None = None,
    deploy_batch: int = 1,
    images: str | None = None,
    rounds: int | None = None,
    time: str = "20s",
    layers: Switch = False,
    keep_report: Switch = False,
    shared: Shared | None = None,
) -> int:
    """Time a model or a run folder beside torch, torch.compile, onnxruntime and OpenVINO, on the same input.

    Parameters
    ----------
    model
        A model spec (fewer/dinov2-small, timm/NAME, file.py:function, whose code is run) or a run folder.
    vs
        Peers or groups, also comma-separated: torch, compile, onnxruntime, openvino, all, or one like openvino-int8.
    threads
        Thread settings, comma-separated, for example 1,4. By default 1 and all CPUs.
    deploy_batch
        Images at once, as when the model is used.
    images
        Folder of images: input and calibration. By default those of the run, else photos of installed packages.
    rounds
        Rounds per thread setting. By default as many as fit into --time.
    time
        How long the rounds of one thread setting should take: 20s or 2min.
    layers
        Instead of peers: which layer costs what, held against the measured roofline.
    keep_report
        Leave the report of a run folder as it is. Otherwise what was found becomes its first section.
    """
    from fewer.core.duration import parse_duration

    shared = shared or Shared()
    cpu_only(shared)
    seconds = parse_duration(time)
    if rounds is not None and rounds < 1:
        raise FewerError("--rounds must be at least 1")
    counts = _counts(threads)
    if layers and counts is not None and len(counts) != 1:
        raise FewerError("--layers takes one thread setting, for example --threads 1")
    out = Path(shared.out) if shared.out else None
    files = _files(out, ("layers.json",) if layers else ("bench.json", "bench.svg"), shared.overwrite)
    if shared.dry_run:
        return _dry_run(model, vs, counts, layers, files, shared.json)
    inputs: dict[str, Any] = {"images": images, "seed": shared.seed or 0}
    silent = shared.json or shared.quiet
    if layers:
        return _time_layers(model, counts, rounds, inputs | {"batch": deploy_batch}, files, shared.json, silent)
    with _Bar(silent) as bar:
        from fewer.verbs.bench import bench as run_bench

        inputs |= {"deploy_batch": deploy_batch, "progress": bar}
        result = run_bench(model, vs=vs, threads=counts, rounds=rounds, time=seconds, **inputs)
    return _tell(model, result, files, not keep_report, shared.json)


def _time_layers(
    model: str,
    threads: list[int] | None,
    rounds: int | None,
    inputs: dict[str, Any],
    files: list[Path],
    json: bool,
    quiet: bool,
) -> int:
    """What ``--layers`` asks for, in place of peers."""
    from fewer.timing.layers import bench_layers
    from fewer.timing.table import layers_table

    with _Bar(quiet) as bar:
        count = threads[0] if threads else 1
        found = bench_layers(model, threads=count, rounds=15 if rounds is None else rounds, progress=bar, **inputs)
    if files:
        _make_folder(files[0].parent)
        found.to_json(files[0])
    _show(found.to_json() if json else layers_table(found, _width()), files)
    return 0


def _tell(model: str, result: BenchResult, files: list[Path], report: bool, json: bool) -> int:
    """Write and show what was found; the report of a run gets it too, if wanted."""
    from fewer.timing.plot import to_svg
    from fewer.timing.sources import is_run
    from fewer.timing.table import bench_tables

    if files:
        result.to_json(files[0])
        to_svg(result, files[1])
    refused: FewerError | None = None
    if report and is_run(model):
        from fewer.verbs.report import add_to_report

        try:
            page = add_to_report(model, result)
        except FewerError as why:  # what took minutes to measure is shown all the same
            page, refused = None, why
        files = [*files, page] if page is not None else files
    _show(result.to_json() if json else bench_tables(result, _width()), files)
    if refused is not None:
        raise refused
    return 0


def _counts(threads: str | None) -> list[int] | None:
    if threads is None:
        return None
    try:
        return [int(part) for part in threads.split(",") if part.strip()]
    except ValueError:
        raise FewerError(f"--threads takes numbers such as 1 or 1,4; got {threads!r}") from None


def _files(out: Path | None, names: tuple[str, ...], overwrite: bool) -> list[Path]:
    if out is None:
        return []
    if out.exists() and not out.is_dir():
        raise FewerError(f"--out {out} is a file; give a folder")
    files = [out / name for name in names]
    there = [str(path) for path in files if path.exists()]
    if there and not overwrite:
        raise FewerError(f"{', '.join(there)} exists already; give another --out, or --overwrite")
    return files


def _make_folder(folder: Path) -> None:
    from fewer.core.files import explain_os_error

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, folder, "make") from None


def _dry_run(
    model: str, vs: list[str] | None, threads: list[int] | None, layers: bool, files: list[Path], json: bool
) -> int:
    from fewer.cli.show import say_would
    from fewer.timing.peers import missing_extra, parse_peers
    from fewer.timing.run import check_threads
    from fewer.timing.sources import open_subject

    peers = [] if layers else parse_peers(vs)
    settings = [1] if layers and threads is None else check_threads(threads)
    subject = open_subject(model)
    what = "its layers" if layers else "with these peers"
    lines = [f"would time {subject.name}, input {subject.input_size}, threads {settings}, {what}:"]
    lines = [lines[0].removesuffix(":")] if layers else lines
    for peer in peers:
        extra = missing_extra(peer)
        lines.append(f"  {peer.label}" + (f" (skipped: {extra})" if extra else ""))
    lines += [f"would write {path}" for path in files]
    return say_would(lines, json, model=subject.name, threads=settings, files=[str(path) for path in files])


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((100, 24)).columns


def _show(what: RenderableType, files: list[Path]) -> None:
    if isinstance(what, str):
        sys.stdout.write(what + "\n")
        return
    from fewer.cli.terminal import safe_console

    safe_console(width=_width(), highlight=False).print(what)
    for path in files:
        print(f"wrote {path}")


class _Bar:
    """A progress bar with an estimate on the error stream; silent when that is no terminal or JSON is wanted."""

    def __init__(self, quiet: bool) -> None:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        from fewer.cli.terminal import safe_console

        console = safe_console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            console=console,
            transient=True,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=1.0)

    def __enter__(self) -> _Bar:
        self._bar.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._bar.stop()

    def __call__(self, text: str, share: float) -> None:
        self._bar.update(self._task, description=text, completed=share)
