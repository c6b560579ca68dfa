"""The one error that a user should ever see, and the near-match hint that goes with it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from fewer.core.install import working

__all__ = ["FewerError", "UnmetError", "near_match"]

_LONG = re.compile(r"[^\s/]{300,}")  # longer than any name of a file: a value out of a damaged one


class FewerError(Exception):
    """A mistake that the user can fix, told in one clear sentence.

    The sentence says what was wrong, where, the nearest valid name and one fix. The command line prints it
    and exits with code 2; a traceback is shown only with ``--debug``. A word of 300 characters or more is cut: it is a
    value out of a damaged file, which would hide the sentence. Commands that install something are written for the
    Python and the checkout at hand (:mod:`fewer.core.install`).

    Examples
    --------
    >>> raise FewerError("the folder 'photos' does not exist; give a folder of images with --images")
    Traceback (most recent call last):
    ...
    fewer.core.errors.FewerError: the folder 'photos' does not exist; give a folder of images with --images
    >>> len(str(FewerError(f"unknown name {'a' * 5000}")))
    74
    """

    def __init__(self, *facts: object) -> None:
        super().__init__(*(working(_LONG.sub(_cut, fact)) if isinstance(fact, str) else fact for fact in facts))


class UnmetError(FewerError):
    """A budget that nothing meets.

    Attributes
    ----------
    least
        The smallest share of the dense model's cost that can be reached; None where that means nothing.
    """

    def __init__(self, sentence: str, least: float | None = None) -> None:
        super().__init__(sentence)
        self.least = least


def _cut(word: re.Match[str]) -> str:
    return f"{word[0][:40]}... ({len(word[0])} characters)"


def near_match(name: object, known: Iterable[str]) -> str:
    """Say which known name was probably meant, or list what is known.

    Parameters
    ----------
    name
        The name as it was given, or what stands in its place.
    known
        All valid names.

    Returns
    -------
    str
        A clause that starts with a semicolon and ends a sentence: ``"; did you mean 'weights'?"`` or
        ``"; known are a, b, c"`` when nothing is near.

    Examples
    --------
    >>> near_match("wieghts", ["flops", "weights"])
    "; did you mean 'weights'?"
    >>> near_match("banana", ["flops", "weights"])
    '; known are flops, weights'
    >>> near_match(3, ["flops", "weights"])
    '; known are flops, weights'
    """
    names = sorted(set(known))
    by_lower = {n.lower(): n for n in names}
    # a file of JSON may hold a number where a name belongs
    close = difflib.get_close_matches(str(name).lower(), list(by_lower), n=1, cutoff=0.6)
    if close:
        return f"; did you mean {by_lower[close[0]]!r}?"
    if not names:
        return "; none are known"
    shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return f"; known are {shown}"
