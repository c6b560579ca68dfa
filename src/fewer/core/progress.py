"""How a verb tells what it is doing, without knowing who listens: a terminal, a notebook or nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from time import perf_counter
from typing import Protocol, runtime_checkable

__all__ = ["SILENT", "Progress", "Silent", "Stage", "timed"]


class Stage(Protocol):
    """One stretch of work that is under way."""

    def advance(self, n: float = 1, note: str = "") -> None:
        """Say that ``n`` more of the stage's total are done; ``note`` names the latest, for example a layer."""
        ...


@runtime_checkable
class Progress(Protocol):
    """Someone who is told about stages of work. Any object with this method will do.

    Examples
    --------
    >>> class Printer:
    ...     @contextmanager
    ...     def stage(self, name, total=None):
    ...         print(name, total)
    ...         yield Silent()
    >>> with Printer().stage("sense", 72) as stage:
    ...     stage.advance(note="blocks.0.attn.qkv")
    sense 72
    """

    def stage(self, name: str, total: float | None = None) -> AbstractContextManager[Stage]:
        """Begin a stage.

        Parameters
        ----------
        name
            One or two words, for example ``sense``.
        total
            How much there is to do, in any unit; None when that is not known.

        Returns
        -------
        context manager
            Gives a :class:`Stage`. Leaving it ends the stage, also when an exception passes through.
        """
        ...


class Silent:
    """The default: nobody is told anything. It is its own stage.

    Examples
    --------
    >>> with SILENT.stage("plan", 1) as stage:
    ...     stage.advance()
    """

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Silent]:
        """See :meth:`Progress.stage`."""
        yield self

    def advance(self, n: float = 1, note: str = "") -> None:
        """See :meth:`Stage.advance`."""


SILENT = Silent()


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
