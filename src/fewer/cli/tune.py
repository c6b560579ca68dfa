"""``fewer tune``: a vision-language model learns from conversations about images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fewer.cli.flags import LogFlags, Shared, flags_of, given
from fewer.tasks.quality.settings import TuneSettings

__all__ = ["tune"]

if TYPE_CHECKING:
    TuneFlags = Any
else:
    TuneFlags = flags_of(TuneSettings, "TuneFlags")


def tune(
    records: str,
    /,
    *,
    settings: TuneFlags | None = None,
    logs: LogFlags | None = None,
    shared: Shared | None = None,
) -> int:
    """Tune a vision-language model on conversations about how images look (visual instruction tuning).

    --dry-run says what would train and how much memory it would take. See also: fewer eval RUN QUESTIONS

    Parameters
    ----------
    records
        Conversations in the JSON form of LLaVA-v1.5; the images are beside the file, or in --images.
    """
    from fewer.cli.progress import terminal_progress
    from fewer.cli.show import as_json, say_would
    from fewer.cli.work import command_line
    from fewer.tasks import open_task
    from fewer.training.callbacks import looking_on

    shared = shared or Shared()
    doing = open_task("quality")
    chosen = TuneSettings.of(given(settings, shared), "command line")
    if shared.dry_run:
        return say_would(doing.plan(records, chosen), shared.json)
    with looking_on((logs or LogFlags()).callbacks()):
        made = doing.train(
            records,
            out=shared.out or "tuned",
            settings=chosen,
            overwrite=shared.overwrite,
            resume=shared.resume,
            progress=terminal_progress(),
            command=command_line(),
        )
    if shared.json:
        as_json(made.to_dict())
    else:
        print(*made.lines(), sep="\n")
    return 0
