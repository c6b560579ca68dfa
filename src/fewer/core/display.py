"""What an object looks like when a person types its name: a title and a few facts, as text and in a notebook."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

__all__ = ["Fact", "Shown", "Told", "amount", "counted", "skipped_lines"]

Fact = tuple[str, str]
"""A name and what is to be said about it."""


class Shown:
    """An object with a title and facts; its ``repr`` is a few lines, and a notebook shows a table.

    Examples
    --------
    >>> class Cat(Shown):
    ...     def shown(self):
    ...         return "A cat", [("name", "Tom"), ("lives left", "7")]
    >>> Cat()
    A cat
      name        Tom
      lives left  7
    """

    def shown(self) -> tuple[str, Iterable[Fact]]:
        """The title and the facts. A fact without words is left out."""
        raise NotImplementedError

    def __repr__(self) -> str:
        title, facts = self.shown()
        rows = [(name, words) for name, words in facts if words]
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join([title, *(f"  {name:<{width}}  {words}" for name, words in rows)])

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        title, facts = self.shown()
        rows = "".join(
            f'<tr><td style="text-align:left">{html.escape(name)}</td>'
            f'<td style="text-align:left">{html.escape(words)}</td></tr>'
            for name, words in facts
            if words
        )
        return f"<b>{html.escape(title)}</b><table>{rows}</table>"


class Told:
    """An object that says in ``lines`` what a person should read; its ``repr`` is these lines, and a notebook's too.

    Examples
    --------
    >>> class Count(Told):
    ...     def lines(self):
    ...         return ["3 images", "nothing is wrong"]
    >>> Count()
    3 images
    nothing is wrong
    """

    def lines(self) -> Sequence[str]:
        """What a person should read."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def __str__(self) -> str:
        return repr(self)

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"


def amount(number: float) -> str:
    """A number in three digits, with a thousand, a million or a billion as one letter.

    Examples
    --------
    >>> amount(22_050_664), amount(110), amount(0.0123)
    ('22.1M', '110', '0.0123')
    """
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * factor:
            return f"{number / factor:.3g}{letter}"
    return f"{number:.3g}"


def counted(number: int, noun: str) -> str:
    """A number with its noun, which gets an s where there is not just one.

    Examples
    --------
    >>> counted(1, "layer"), counted(0, "layer"), counted(1200, "image")
    ('1 layer', '0 layers', '1,200 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def skipped_lines(skipped: Iterable[tuple[object, str]], names: int = 3, reasons: int = 10) -> list[str]:
    """What was skipped and why: a line for each reason, with the first names; a thousand alike are one line.

    Parameters
    ----------
    skipped
        Files with the reason.
    names, reasons
        Most names in a line, and most lines.

    Examples
    --------
    >>> skipped_lines([("a.png", "is empty"), ("b.heic", "is not read"), ("c.heic", "is not read")], names=1)
    ['skipped a.png: is empty', 'skipped b.heic and 1 more: is not read']
    """
    by_reason: dict[str, list[str]] = {}
    for name, reason in skipped:
        # libraries repeat the file in what they say of it, so that no two reasons would be alike
        plain = re.sub(rf"\s*(['\"])[^'\"]*{re.escape(Path(str(name)).name)}\1", "", reason)
        by_reason.setdefault(plain, []).append(str(name))
    told = []
    for reason, files in list(by_reason.items())[:reasons]:
        more = f" and {len(files) - names} more" if len(files) > names else ""
        told.append(f"skipped {', '.join(files[:names])}{more}: {reason}")
    left = sum(len(files) for files in list(by_reason.values())[reasons:])
    return [*told, f"and {left:,} more skipped for other reasons"] if left else told
