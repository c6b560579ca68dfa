"""Keyword arguments that many functions share, typed once: an editor completes them, a wrong one is told.

A public function names what most people give. The rest comes as ``**options: Unpack[...]``, a ``TypedDict`` of what
such a function can be told beside it: how work on a folder is done, and the fields of a settings model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from typing_extensions import TypedDict

from fewer.core.errors import FewerError, near_match
from fewer.core.progress import Progress

__all__ = ["RunOptions", "split_options"]


class RunOptions(TypedDict, total=False):
    """What work that writes a folder can be told.

    Attributes
    ----------
    overwrite, resume
        What to do with a folder that is there: start anew, or go on where it was interrupted.
    progress
        Shows what is going on; see :mod:`fewer.core.progress`.
    command
        The command line, for the report.
    """

    overwrite: bool
    resume: bool
    progress: Progress | None
    command: str | None


def split_options(
    verb: str, options: Mapping[str, Any], own: Collection[str], settings: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part what a function was given into its own options and values of settings.

    Parameters
    ----------
    verb
        Name of the function, for the message.
    options
        As they were given.
    own, settings
        Names that are known.

    Raises
    ------
    FewerError
        For a name that is neither, with the nearest one.

    Examples
    --------
    >>> split_options("compress", {"resume": True, "seed": 3}, RunOptions.__annotations__, ["seed"])
    ({'resume': True}, {'seed': 3})
    >>> split_options("compress", {"sed": 3}, RunOptions.__annotations__, ["seed"])
    Traceback (most recent call last):
    fewer.core.errors.FewerError: fewer.compress knows no 'sed'; did you mean 'seed'?
    """
    for name in options:
        if name not in own and name not in settings:
            raise FewerError(f"fewer.{verb} knows no {name!r}{near_match(name, [*own, *settings])}")
    return (
        {name: value for name, value in options.items() if name in own},
        {name: value for name, value in options.items() if name not in own},
    )
