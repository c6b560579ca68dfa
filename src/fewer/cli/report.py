"""``fewer report``: the page of a run, written again from its numbers."""

from __future__ import annotations

from fewer.cli.flags import Shared
from fewer.core.errors import FewerError

__all__ = ["report"]


def report(run: str, /, *, shared: Shared | None = None) -> int:
    """Write report.html of a run again from its report.json, and say the verdict.

    Parameters
    ----------
    run
        A run folder.
    """
    import fewer
    from fewer.cli.show import as_json, say, verdict_box
    from fewer.core.run import RunFolder
    from fewer.reports import RunReport
    from fewer.reports.page import Page, is_page

    shared = shared or Shared()
    if shared.out is not None:
        raise FewerError(
            "the page is written into the run itself; leave --out out, or copy report.html, which needs nothing"
        )
    folder = RunFolder.open(run)
    page = folder.file("report_html") if shared.dry_run else fewer.report(run)
    text = folder.read_text("report_json")
    if is_page(text):
        found = Page.from_json(text)
        if shared.json:
            as_json({"page": str(page), "report": found.model_dump(exclude={"sections"})})
        else:
            print(found.sentence, page, sep="\n")
        return 0
    data = RunReport.from_json(text)
    if shared.json:
        as_json({"page": str(page), "report": data.model_dump()})
    else:
        say(verdict_box(data, run, str(page)))
    return 0
