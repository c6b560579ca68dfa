"""Tune: a vision-language model learns from conversations about images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.core.progress import usual_progress
from fewer.tasks.task import knowing, take_settings
from fewer.training.callbacks import Callback, looking_on

if TYPE_CHECKING:
    from fewer.tasks.quality.settings import TuneSettings
    from fewer.tasks.quality.tuning import Tuned

__all__ = ["tune"]


def tune(
    records: str | Path | Sequence[Any],
    *,
    settings: TuneSettings | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> Tuned:
    """Tune a vision-language model on conversations about how images look (visual instruction tuning).

    Parameters
    ----------
    records
        Conversations, or a file of them in the JSON form of LLaVA-v1.5; the images are beside the file, or in
        ``images=``.
    settings
        See :class:`~fewer.tasks.quality.settings.TuneSettings`.
    callbacks
        As for :func:`fewer.train`.
    **options
        Single settings by name, and what :func:`fewer.tasks.quality.tuning.tune` takes: ``out``, ``overwrite``,
        ``resume``, ``progress``, ``start``, ``encoder``.

    Raises
    ------
    FewerError
        When data or packages are missing, or a name is unknown.

    Examples
    --------
    >>> import fewer
    >>> fewer.tune("records.json", images="photos/", out="tuned/", steps=200)  # doctest: +SKIP
    """
    from fewer.tasks.quality.settings import TuneSettings
    from fewer.tasks.quality.tuning import tune as run

    chosen = take_settings(TuneSettings, settings, options)
    options["progress"] = options.get("progress") or usual_progress()
    with knowing("tune", options, TuneSettings), looking_on(callbacks):
        return run(records, settings=chosen, **options)
