"""``fewer info``: what is in a run folder, or which layers of a model can be cut."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from fewer.cli.flags import ModelFlags, Shared, refuse_out
from fewer.core.errors import FewerError

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
    refuse_out(shared, "info")
    if Path(what).is_dir():
        return _run(what, shared)
    if what.endswith("/") and not what.startswith(("fewer/", "timm/", "torchvision/", "hf/")):
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


def _run(path: str, shared: Shared) -> int:
    import fewer
    from fewer.cli.show import as_json, plan_table, say, verdict_box

    found = fewer.info(path)
    facts: dict[str, Any] = {"folder": path, "config": found.config, "files": found.files}
    if found.page is not None:
        if shared.json:
            as_json(facts | {"report": found.page.model_dump(exclude={"sections"})})
            return 0
        tiles = (f"  {tile.name}: {tile.value} {tile.note}" for tile in found.page.tiles)
        print(f"{path}: {found.page.title}", found.page.sentence, *tiles, sep="\n")
        print(f"report  {Path(path) / 'report.html'}")
        return 0
    if shared.json:
        plan, report = found.plan, found.report
        as_json(facts | {"plan": plan and plan.model_dump(), "report": report and report.model_dump()})
        return 0
    say(found.state if found.report is None else verdict_box(found.report, path, str(Path(path) / "report.html")))
    if found.plan is not None:
        say(plan_table(found.plan))
    return 0
