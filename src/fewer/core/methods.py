"""A table of methods: one row per method, the same columns in every room, so that lists, flags and tests follow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from fewer.core.errors import FewerError, near_match

__all__ = ["Method", "MethodTable"]

F = TypeVar("F")


@dataclass(frozen=True)
class Method(Generic[F]):
    """One row of a table.

    Attributes
    ----------
    name
        What a user types.
    run
        The function or class that does it; all rows of one table have the same signature.
    note
        What it does, in one line for ``fewer list``.
    paper
        Where it comes from, such as ``SAAL (EMBC 2022)``; empty where no paper is behind it.
    needs
        What it cannot do without beside the common arguments, such as ``predictions`` or ``extra:select``.
    """

    name: str
    run: F
    note: str
    paper: str = ""
    needs: tuple[str, ...] = ()


class MethodTable(Mapping[str, Method[F]]):
    """Methods of one kind by name; an unknown name is an error that says the nearest one.

    Parameters
    ----------
    kind
        What the rows are, in the singular, for messages: ``selection method``.
    rows
        In the order of lists; the first one is the default.

    Raises
    ------
    ValueError
        When two rows have one name.

    Examples
    --------
    >>> table = MethodTable("greeting", [Method("hello", str.upper, "loud"), Method("bye", str.lower, "soft")])
    >>> table["hello"].run("Ann"), table.default
    ('ANN', 'hello')
    >>> table["helo"]
    Traceback (most recent call last):
    fewer.core.errors.FewerError: unknown greeting 'helo'; did you mean 'hello'?
    """

    def __init__(self, kind: str, rows: Iterable[Method[F]]) -> None:
        self.kind = kind
        self._rows: dict[str, Method[F]] = {}
        for row in rows:
            if row.name in self._rows:
                raise ValueError(f"two {kind}s are called {row.name!r}")
            self._rows[row.name] = row

    def __getitem__(self, name: str) -> Method[F]:
        try:
            return self._rows[name]
        except KeyError:
            raise FewerError(f"unknown {self.kind} {name!r}{near_match(name, self._rows)}") from None

    def __contains__(self, name: object) -> bool:
        return name in self._rows

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def default(self) -> str:
        """Name of the first row."""
        return next(iter(self._rows))

    def notes(self) -> dict[str, str]:
        """What each method does, by name, with its paper where there is one."""
        return {name: row.note + (f" [{row.paper}]" if row.paper else "") for name, row in self._rows.items()}
