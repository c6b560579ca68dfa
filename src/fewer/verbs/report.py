"""Report: write the pages of a run again from its numbers."""

from __future__ import annotations

from pathlib import Path

from fewer.core.errors import FewerError
from fewer.core.run import RunFolder
from fewer.reports import RunReport, write
from fewer.reports.compression.parts import RuntimeRow, Runtimes
from fewer.reports.page import Page, is_page
from fewer.timing.result import BenchResult, Row

__all__ = ["add_to_report", "report", "runtimes_of"]


def report(run: str | Path) -> Path:
    """Write ``report.html`` of a run again from its ``report.json``.

    Parameters
    ----------
    run
        A run folder of a compression, a training, an evaluation or an adaptation.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    FewerError
        When the folder has no report.

    Examples
    --------
    >>> import fewer
    >>> fewer.report("run/")  # doctest: +SKIP
    PosixPath('run/report.html')
    """
    folder = RunFolder.open(run)
    if not folder.has("report_json"):
        if folder.has("curves"):
            raise FewerError(f"{run} has no report yet; make one with: fewer apply {run}")
        raise FewerError(f"{run} has no report; reports come from fewer compress, apply, train and adapt")
    text = folder.read_text("report_json")
    if is_page(text):
        return folder.write_text("report_html", Page.from_json(text).to_html())
    return write(RunReport.from_json(text), folder.path)[0]


def runtimes_of(result: BenchResult, threads: int | None = None) -> Runtimes:
    """The rows of a bench of a run as a section of its report.

    Parameters
    ----------
    result
        Of `fewer.verbs.bench.bench` on a run folder: extras are the run itself.
    threads
        Thread setting; by default the first one.
    """
    threads = threads if threads in result.threads else result.threads[0]
    rows, missing = [], {}
    for row in (r for r in result.rows if r.threads == threads):
        label = _label(row)
        if row.status != "ok" or not row.wall_ms:
            missing[label] = row.reason.rstrip(".")
            continue
        error = row.relative_error
        rows.append(
            RuntimeRow(
                label=label,
                runtime=row.runtime,
                precision=row.precision,
                ours=row.kind == "extra",
                ms=row.wall.median,
                low_ms=row.wall.low,
                high_ms=row.wall.high,
                times_faster=result.versus_eager(row),
                distortion=None if error is None else error**2,
                memory_bytes=row.memory_bytes,
            )
        )
    rows.sort(key=lambda row: row.ms)
    batch = result.input_shapes[0][0] if result.input_shapes else 1
    return Runtimes(
        rows=rows,
        missing=missing,
        noisy=[_label(row) for row in result.noisy_rows(threads)],
        threads=threads,
        batch=batch,
        images=result.judged,
        origin=result.input_origin,
        created=result.created,
    )


def _label(row: Row) -> str:
    if row.kind != "extra":
        return row.label
    return "fewer, on its kernels" if row.name.endswith(" accelerated") else "fewer, in plain torch"


def add_to_report(run: str | Path, result: BenchResult) -> Path | None:
    """Write the section into ``report.json`` and ``report.html`` of a run; None where there is none of a compression.

    Raises
    ------
    FewerError
        When the report cannot be read or written.
    """
    folder = RunFolder.open(run)
    text = folder.read_text("report_json") if folder.has("report_json") else None
    if text is None or is_page(text):  # a page is that of a training
        return None
    report = RunReport.from_json(text)
    planned = report.latency.threads if report.latency is not None else None
    report = report.model_copy(update={"runtimes": runtimes_of(result, planned)})
    return write(report, folder.path)[0]
