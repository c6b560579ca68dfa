"""Adapt: a segmentation from a labelled source to an unlabelled target."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fewer.core.errors import FewerError, near_match
from fewer.core.progress import usual_progress
from fewer.training.callbacks import Callback, looking_on

if TYPE_CHECKING:
    from fewer.tasks.segment.adapt import AdaptedRun
    from fewer.tasks.segment.adapt_settings import AdaptSettings

__all__ = ["adapt"]


def adapt(
    source: str | Path,
    target: str | Path,
    *,
    settings: AdaptSettings | None = None,
    callbacks: Sequence[Callback] = (),
    **options: Any,
) -> AdaptedRun:
    """Train a network on a labelled source so that it segments an unlabelled target.

    Parameters
    ----------
    source
        A folder with images and masks, or a raw folder of nnU-Net.
    target
        A folder of images of another modality, scanner or stain, without masks.
    settings
        See :class:`~fewer.tasks.segment.adapt_settings.AdaptSettings`.
    callbacks
        Called before and after steps and validations of every stage, such as
        :class:`fewer.training.callbacks.TensorBoard`; the stage is ``fit.name``.
    **options
        Single settings by name, and what :func:`fewer.tasks.segment.adapt.adapt` takes: ``out``, ``test``,
        ``overwrite``, ``resume``, ``progress``.

    Returns
    -------
    AdaptedRun
        The network, the stages of its training, and scores on the test folder if one was given.

    Raises
    ------
    FewerError
        When the domains do not fit each other, or a name is unknown.

    Examples
    --------
    >>> import fewer
    >>> run = fewer.adapt("t1/", "flair/", method="ms-mt", out="run/", test="flair-labelled/")  # doctest: +SKIP
    >>> run.evaluation.overall.dice  # doctest: +SKIP
    0.71
    """
    from fewer.tasks.segment.adapt import adapt as run
    from fewer.tasks.segment.adapt_settings import AdaptSettings

    own = {name: options.pop(name) for name in list(options) if name in AdaptSettings.model_fields}
    if settings is not None and own:
        raise FewerError("give settings=, or single settings by name, not both")
    takes = ("out", "test", "overwrite", "resume", "progress", "tell", "command")
    for name in options:
        if name not in takes:
            raise FewerError(f"adapt knows no {name!r}{near_match(name, (*takes, *AdaptSettings.model_fields))}")
    options["progress"] = options.get("progress") or usual_progress()
    with looking_on(callbacks):
        return run(source, target, settings=settings or AdaptSettings.of(own), **options)
