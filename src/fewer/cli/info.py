"""``fewer info``: what is in a run folder, or which layers of a model can be cut."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fewer.cli.flags import ModelFlags, Shared
from fewer.core.errors import FewerError

if TYPE_CHECKING:
    from fewer.reports.page import Page

__all__ = ["info"]


def info(
    what: str,
    /,
    *,
    exclude: Annotated[list[str] | None, Parameter(negative="")] = None,
    of_model: ModelFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Show a run folder, or the layers of a model: which can be cut, which are left alone, and why.

    Parameters
    ----------
    what
        A run folder, or a model: fewer/dinov2-small, timm/NAME, torchvision/NAME, hf/NAME or FILE.py:FUNCTION,
        which runs the code of that file.
    exclude
        Layers to leave alone, for example head or 'blocks.0.*'.
    """
    shared = shared or Shared()
    if Path(what).is_dir():
        return _run(what, shared)
    if what.endswith("/") and not what.startswith(("fewer/", "timm/", "hf/")):
        raise FewerError(f"the run folder {what} does not exist")
    import fewer
    from fewer.cli.show import as_json, match_rows, say
    from fewer.models.spec import load_model

    loaded = load_model((of_model or ModelFlags()).spec(what))
    rows = fewer.match_table(loaded, exclude=tuple(exclude or ()))
    if shared.json:
        as_json({"model": what, "preprocess": loaded.preprocess.to_dict(), "layers": rows})
    else:
        say(match_rows(rows), loaded.preprocess.words() + (" This is assumed." if loaded.assumed else ""))
    return 0


def _named(path: str, config: dict[str, Any]) -> str:
    """What a folder without a report holds."""
    from fewer.core.reading import read_json

    recipe = read_json(Path(path) / "recipe.json")
    meta = recipe.get("meta") if isinstance(recipe, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    if meta.get("task"):
        return f"a model of the task {meta['task']}"
    return str(meta.get("model") or config.get("model") or "a model")


def _run(path: str, shared: Shared) -> int:
    from fewer.cli.show import as_json, plan_table, say, verdict_box
    from fewer.core.run import RunFolder
    from fewer.reports import RunReport
    from fewer.reports.page import Page, is_page

    run = RunFolder.open(path)
    config = run.read_config() if run.has("config") else {}
    files = {p.name: p.stat().st_size for p in sorted(run.path.iterdir()) if p.is_file() and p.name[0] != "."}
    plan = run.read_plan() if run.has("plan") else None
    text = run.read_text("report_json") if run.has("report_json") else None
    if text is not None and is_page(text):
        return _page(path, Page.from_json(text), config, files, shared)
    data = RunReport.from_json(text) if text is not None else None
    if shared.json:
        found: dict[str, Any] = {"folder": path, "config": config, "files": files}
        as_json(found | {"plan": plan and plan.model_dump(), "report": data and data.model_dump()})
        return 0
    if data is not None:
        say(verdict_box(data, path, str(run.file("report_html"))))
    else:
        begun = config.get("model", "unknown model")
        if run.has("curves"):
            say(f"{path}: {begun}, sensed; next: fewer plan {path} --budget weights=50%")
        elif run.has("recipe") and run.has("model"):  # a tuned model, or a folder for the Hub
            say(f"{path}: {_named(path, config)}, finished; it has no report")
        else:
            say(f"{path}: {begun}, not finished; run its command again with --resume")
    if plan is not None:
        say(plan_table(plan))
    return 0


def _page(path: str, page: Page, config: dict[str, Any], files: dict[str, int], shared: Shared) -> int:
    from fewer.cli.show import as_json

    if shared.json:
        as_json({"folder": path, "config": config, "files": files, "report": page.model_dump(exclude={"sections"})})
        return 0
    print(f"{path}: {page.title}", page.sentence, *(f"  {t.name}: {t.value} {t.note}" for t in page.tiles), sep="\n")
    print(f"report  {Path(path) / 'report.html'}")
    return 0
