"""``fewer eval``: scores of a trained run, or of a folder of masks."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from fewer.cli.flags import Shared

__all__ = ["eval_"]


def eval_(
    target: str,
    data: str,
    /,
    *,
    task: str = "segment",
    every: Annotated[bool, Parameter(name="--all-cases", negative="")] = False,
    shared: Shared | None = None,
) -> int:
    """Score a trained run, or a folder of predicted masks, on annotated cases.

    Structures that were missed or made up are counted beside every mean. If the run was trained on the same data, only
    cases that did not train are scored.

    Parameters
    ----------
    target
        A run folder of fewer train (or of fewer compress on one), or a folder of masks named like the cases.
    data
        A folder with images/ and masks/, or a raw folder of nnU-Net.
    task
        segment
    every
        Score the cases that trained as well.
    """
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json
    from fewer.cli.train import show_evaluation
    from fewer.cli.work import command_line
    from fewer.tasks import open_task

    shared = shared or Shared()
    if shared.dry_run:
        print(f"dry run: would score {target} on {data}" + (f" and write to {shared.out}" if shared.out else ""))
        return 0
    result = open_task(task).evaluate(
        target,
        data,
        out=shared.out,
        every=every,
        overwrite=shared.overwrite,
        device=shared.device or "cpu",
        progress=terminal_progress(),
        command=command_line(),
    )
    if shared.json:
        as_json(result.to_dict())
        return 0
    show_evaluation(result)
    if shared.out is not None:
        print(f"report  {shared.out}/evaluation.html")
    return 0
