"""Joint: one page of a network's plans for two targets, an accelerator and encrypted inference."""

from __future__ import annotations

from pathlib import Path

from fewer.core.errors import FewerError
from fewer.core.files import as_path, explain_os_error
from fewer.core.reading import read_text
from fewer.core.run import RunFolder
from fewer.core.staging import write_together
from fewer.reports import RunReport
from fewer.reports.joint import joint_page
from fewer.reports.page import Page

__all__ = ["joint_report"]


def joint_report(run: str | Path, circuit: str | Path, out: str | Path) -> Path:
    """Write one page of what each step does to a network under both targets.

    ``fewer compress NET --images photos/ --budget cycles=0.5x,he=0.5x --preset joint`` makes both parts and this page.

    Parameters
    ----------
    run
        Folder of a run of :func:`fewer.compress` with the preset ``joint``.
    circuit
        Folder of a circuit of :func:`fewer.private_compile` with ``joint=True`` and a budget. Both are held against the
        network on the same images where the latter was given ``heldout=run.prepared.heldout``.
    out
        Folder for ``report.html`` and ``report.json``.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    FewerError
        When one of the folders holds no plan in steps.

    Examples
    --------
    >>> import fewer
    >>> fewer.joint_report("both/accelerator", "both/encrypted", "both/")  # doctest: +SKIP
    PosixPath('both/report.html')
    """
    from fewer.private.folder import FACTS

    path = as_path(circuit) / FACTS
    if not path.is_file():
        raise FewerError(f"{circuit} holds no {FACTS}; make it with: fewer private compile MODEL --preset joint ...")
    facts = Page.from_json(read_text(path, what="page of a circuit")).data
    report = RunReport.from_json(RunFolder.open(run).read_text("report_json"))
    page = joint_page(report, facts, (str(run), str(circuit)))
    place = as_path(out)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, place, "make the folder") from error
    return write_together(place, {"report.html": page.to_html(), "report.json": page.to_json()})[0]
