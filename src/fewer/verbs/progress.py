"""How a verb tells what it is doing. The command line draws bars; Python callers see nothing unless they ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Stage(Protocol):
    """One stretch of work."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """``n`` more pieces of the total are done."""
        ...


class Progress(Protocol):
    """Something that shows stages."""

    def stage(self, name: str, total: int | None = None):
        """Context manager that yields a :class:`Stage`; ``total`` pieces, or None when that is not known."""
        ...


class _Silent:
    def advance(self, n: int = 1, note: str = "") -> None:
        pass


class Silent:
    """Shows nothing.

    Examples
    --------
    >>> with Silent().stage("sense", 2) as stage:
    ...     stage.advance()
    """

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[_Silent]:
        """See :class:`Progress`."""
        yield _Silent()
