"""Time spent in the stages of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter


@contextmanager
def timed(timings: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds spent inside to an entry of a dictionary.

    Examples
    --------
    >>> spent = {}
    >>> with timed(spent, "sense"):
    ...     pass
    >>> list(spent)
    ['sense']
    """
    began = perf_counter()
    try:
        yield
    finally:
        timings[name] = timings.get(name, 0.0) + perf_counter() - began
