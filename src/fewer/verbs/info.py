"""Info: what a run folder holds, and how far it is. Layers of a model are told by ``match_table``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewer.core.display import Fact, Shown
from fewer.core.errors import FewerError
from fewer.core.plan import Plan
from fewer.core.reading import read_json
from fewer.core.run import RunFolder
from fewer.reports import RunReport
from fewer.reports.numbers import data_size
from fewer.reports.page import Page, is_page

__all__ = ["RunInfo", "info"]


@dataclass(eq=False, repr=False)
class RunInfo(Shown):
    """What :func:`info` returns.

    Attributes
    ----------
    folder
        Of the run.
    config
        Model, images, budget and settings, as ``config.toml`` has them.
    files
        Bytes of every file, by name.
    plan
        One option per layer, where there is one.
    report
        Of a compression; None for other runs and before there is one.
    page
        What the report of a training, an evaluation or an adaptation says.
    state
        In words, where there is no report.
    """

    folder: Path
    config: dict[str, Any]
    files: dict[str, int]
    plan: Plan | None
    report: RunReport | None
    page: Page | None
    state: str

    def shown(self) -> tuple[str, list[Fact]]:
        """What the report says, or how far the run is; then its files."""
        files = ", ".join(f"{name} ({data_size(size)})" for name, size in self.files.items())
        after: list[Fact] = [("files", files), ("folder", str(self.folder))]
        if self.report is not None:
            title, facts = self.report.shown()
            return title, [*facts, *after]
        if self.page is not None:
            told = [(tile.name, f"{tile.value} {tile.note}".strip()) for tile in self.page.tiles]
            return f"{self.page.title}: {self.page.sentence}", [*told, *after]
        return self.state, after


def info(run: str | Path) -> RunInfo:
    """What a run folder holds, and how far it is.

    Parameters
    ----------
    run
        A run folder in any state, or a folder for the Hugging Face Hub.

    Raises
    ------
    FewerError
        When it is no run. Layers of a model are told by :func:`fewer.match_table`.

    Examples
    --------
    >>> import fewer
    >>> fewer.info("run/").report.verdict.distortion  # doctest: +SKIP
    0.059
    """
    kind, slash, _ = str(run).partition("/")
    if slash and kind in ("fewer", "timm", "torchvision", "hf") and not Path(run).exists():
        raise FewerError(f"{run} is a model, and no run; its layers: fewer.match_table({str(run)!r})")
    folder = RunFolder.open(run)
    config = folder.read_config() if folder.has("config") else {}
    files = {p.name: p.stat().st_size for p in sorted(folder.path.iterdir()) if p.is_file() and p.name[0] != "."}
    plan = folder.read_plan() if folder.has("plan") else None
    text = folder.read_text("report_json") if folder.has("report_json") else None
    page = Page.from_json(text) if text is not None and is_page(text) else None
    report = RunReport.from_json(text) if text is not None and page is None else None
    return RunInfo(folder.home, config, files, plan, report, page, "" if text else _state(folder, str(run), config))


def _state(run: RunFolder, path: str, config: Mapping[str, Any]) -> str:
    """How far a run without a report is."""
    begun = config.get("model", "unknown model")
    if run.has("curves"):
        return f"{path}: {begun}, sensed; next: fewer plan {shlex.quote(path)} --budget weights=50%"
    if run.has("recipe") and run.has("model"):  # a tuned model, or a folder for the Hub
        return f"{path}: {_named(run, config)}, finished; it has no report"
    return f"{path}: {begun}, not finished; run its command again with --resume"


def _named(run: RunFolder, config: Mapping[str, Any]) -> str:
    """What a folder without a report holds."""
    recipe = read_json(run.file("recipe"))
    meta = recipe.get("meta") if isinstance(recipe, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    if meta.get("task"):
        return f"a model of the task {meta['task']}"
    return str(meta.get("model") or config.get("model") or "a model")
