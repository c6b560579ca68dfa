"""The page: one self-contained HTML file, made of sections.

A section is one partial under ``templates/sections/`` and, where it has a figure, one function of `plots.py` or
`layer_plots.py` beside this file. To add one, write both and put a row into `SECTIONS`; a section whose data is absent
is left out.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fewer.core.files import atomic_write_text
from fewer.reports.compression import layer_plots, plots, words
from fewer.reports.compression.data import RunReport
from fewer.reports.compression.runtimes import runtimes
from fewer.reports.figure import Plot
from fewer.reports.templating import template_environment


@dataclass(frozen=True)
class Section:
    """One section of the page.

    ``name`` is the partial's file name and the anchor, ``title`` the heading, ``wanted`` says whether a report has
    anything for it, and ``figure`` draws its plot. What answers a second question only is ``folded`` away.
    """

    name: str
    title: str
    wanted: Callable[[RunReport], Any]
    figure: Callable[[RunReport], Plot | None] | None = None
    folded: bool = False


SECTIONS = (
    Section("runtimes", "Quality and time beside other runtimes", lambda report: report.runtimes, runtimes),
    Section("comparison", "Against other methods", lambda report: report.baselines, plots.baselines),
    Section("worst", "The worst held-out images", lambda report: report.worst),
    Section("frontier", "Other budgets", lambda report: report.frontier, plots.frontier),
    Section("latency", "Time, predicted and measured", lambda report: report.latency),
    Section("recovery", "Recovery by training", lambda report: report.recovery, plots.recovery),
    Section("layers", "What was done to each layer", lambda report: report.units, layer_plots.allocation),
    Section("integers", "Integers in place of functions", lambda report: report.integers),
    Section("curves", "What was measured first", lambda report: report.curves, layer_plots.curves),
    Section("additivity", "Can the plan be trusted?", lambda report: report.additivity, plots.additivity),
    Section("contest", "Which plan was taken", lambda report: report.contest, folded=True),
    Section("search", "Local search", lambda report: report.search, folded=True),
    Section("sensing", "Cost of measuring", lambda report: report.sensing, folded=True),
    Section(
        "skipped",
        "What was skipped, and why",
        lambda report: report.skipped or (report.data is not None and report.data.skipped),
    ),
    Section(
        "timings", "Time and memory", lambda report: report.timings or report.peak_memory_bytes, plots.timings, True
    ),
    Section("reproduce", "How to get these numbers again", lambda report: report.command or report.environment),
    Section("limits", "What this does not show", lambda report: report.limits),
)


def render(report: RunReport) -> str:
    """Render a report as one HTML file that needs nothing else: no network, no fonts, no scripts of others.

    Parameters
    ----------
    report : RunReport

    Returns
    -------
    str
        The page. The same report gives the same text.

    Examples
    --------
    >>> page = render(RunReport.from_dict({"verdict": {"met": True}, "model": {"name": "toy"}}))
    >>> page.startswith("<!DOCTYPE html>"), "The budget is met." in page
    (True, True)
    """
    sections = [section for section in SECTIONS if section.wanted(report)]
    figures = {section.name: section.figure(report) for section in sections if section.figure}
    environment = template_environment("fewer.reports.compression")
    script = environment.get_template("sort.js").render().strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("report.html.j2").render(
        report=report,
        version=report.fewer_version,
        sections=sections,
        figures=figures,
        words=words,
        finished=plots.finished_point,
        script=Markup(script),
        script_hash=Markup(f"sha256-{digest}"),
    )


def write(report: RunReport, folder: str | Path) -> tuple[Path, Path]:
    """Write ``report.html`` and ``report.json`` into an existing folder, each whole or not at all.

    Raises
    ------
    FewerError
        When the folder is missing or not writable, or the disk is full.

    Examples
    --------
    >>> import tempfile
    >>> report = RunReport.from_dict({"verdict": {"met": True}, "model": {"name": "toy"}})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     [path.name for path in write(report, folder)]
    ['report.html', 'report.json']
    """
    page, data = render(report), report.to_json()
    folder = Path(folder)
    return atomic_write_text(folder / "report.html", page), atomic_write_text(folder / "report.json", data)
