"""Text for a terminal: names of files and layers may hold characters that would move its cursor or change its title."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["guard_terminal", "in_json", "printable", "safe_console"]

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with every character spelled out that a terminal would act on, or that turns text around.

    Examples
    --------
    >>> printable("a\\x1b[31m.png")
    'a\\\\x1b[31m.png'
    """
    return _CONTROL.sub(lambda found: _spelled(found.group()), text)


def in_json(text: str) -> str:
    """JSON text in which these characters have the escapes of JSON.

    Examples
    --------
    >>> in_json('"\\x9b"')
    '"\\\\u009b"'
    """
    return _CONTROL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def _spelled(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is no UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class _Guarded:
    """A stream that spells out what a terminal would act on."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(printable(text))

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def guard_terminal() -> None:
    """Let nothing that this process prints act on a terminal; colours come from :func:`safe_console` alone."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, _Guarded):
            setattr(sys, name, _Guarded(stream))


def safe_console(*, stderr: bool = False, **options: Any) -> Console:
    """A console of rich, whose own colours reach the terminal, and whose text is made :func:`printable` first.

    Words in brackets and between colons are words: a layer, a file or a folder may be called ``head[0]``.
    """
    from rich.console import Console

    class Safe(Console):
        def render_str(self, text: str, *arguments: Any, **options: Any) -> Any:
            return super().render_str(printable(text), *arguments, **options)

    stream = sys.stderr if stderr else sys.stdout
    raw: Any = stream._stream if isinstance(stream, _Guarded) else stream
    return Safe(file=raw, stderr=False, markup=False, emoji=False, **options)
