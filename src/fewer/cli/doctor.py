"""``fewer doctor``: what is wrong with a data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from fewer.cli.flags import Shared
from fewer.core.errors import FewerError

if TYPE_CHECKING:
    from fewer.tasks.segment.doctor import Checkup

__all__ = ["doctor"]

ILL = 3
"""Exit code when errors were found, for scripts that would go on with the data."""
SHOWN = 8
"""Cases that are listed per check; all of them with --json."""


def doctor(
    data: str,
    /,
    *,
    task: str = "segment",
    fix: Annotated[bool, Parameter(negative="")] = False,
    shared: Shared | None = None,
) -> int:
    """Find what is wrong with a data set: unreadable files, masks that do not fit, label gaps, duplicates, leaks.

    Exit code 0: no error (warnings may be there); 3: errors were found.

    Parameters
    ----------
    data
        A folder with images/ and masks/, or a raw folder of nnU-Net.
    task
        segment
    fix
        Write a repaired copy to --out, as a raw folder of nnU-Net, and say what was changed. The original stays.
    """
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json
    from fewer.tasks import open_task

    shared = shared or Shared()
    if fix and shared.out is None:
        raise FewerError("where to? give a new folder for the repaired copy: --fix --out FOLDER")
    chosen = open_task(task)
    found = chosen.checkup(data, progress=terminal_progress())
    done = chosen.repair(found, shared.out, progress=terminal_progress()) if fix and not shared.dry_run else None
    if shared.json:
        as_json(found.to_dict() | {"repair": done and done.to_dict()})
    else:
        _show(found)
        if done is not None:
            print(f"\nwrote {done.folder} with {done.kept} cases:")
            for line in (*done.changed, *(f"left out: {line}" for line in done.left_out)):
                print(f"  {line}")
            if not done.changed and not done.left_out:
                print("  nothing had to be changed")
    return 0 if found.healthy else ILL


def _show(found: Checkup) -> None:
    from fewer.tasks.segment.doctor import CHECKS

    facts = found.facts
    told = [f"{facts['annotated']} annotated cases, {facts['without mask']} without a mask"]
    told.append(f"{facts['axes']}-D, {facts['channels']} channel" + ("s" if facts["channels"] != 1 else ""))
    if "shape" in facts:
        least, most = (" x ".join(map(str, facts["shape"][name])) for name in ("least", "most"))
        told.append(f"shape {least}" + (f" to {most}" if most != least else ""))
    if "spacing mm" in facts:
        told.append("spacing " + " x ".join(f"{step:g}" for step in facts["spacing mm"]) + " mm")
    print(", ".join(told))
    print("voxels: " + ", ".join(f"{name} {share:.2%}" for name, share in facts["classes"].items()))
    if not found.findings:
        print("nothing is wrong")
    by_check: dict[str, list] = {}
    for finding in found.findings:
        by_check.setdefault(finding.check, []).append(finding)
    for check, findings in by_check.items():
        print(f"\n{findings[0].level}: {CHECKS[check][1]} ({check})")
        for one in findings[:SHOWN]:
            fix = f"; --fix: {one.fix}" if one.fix else ""
            print(f"  {one.case + ': ' if one.case else ''}{one.text}{fix}")
        if len(findings) > SHOWN:
            print(f"  and {len(findings) - SHOWN} more; see all with --json")
