"""How numbers are written in a report: one form per kind of number, so that two places never disagree."""

from __future__ import annotations

import math
from collections.abc import Sequence

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES = {"bytes", "byte", "b"}
_SECONDS = {"s", "seconds", "second"}
_JOINED = {"flops": "FLOPs", "macs": "MACs"}


def significant(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, in the plain form where that is short.

    Examples
    --------
    >>> significant(0.11004), significant(0), significant(12.345), significant(2.5e-6), significant(123456)
    ('0.110', '0', '12.3', '2.5e-6', '123,456')
    """
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    if magnitude < -4:
        mantissa, exponent = f"{value:.{digits - 2}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    return f"{value:,.{max(digits - 1 - magnitude, 0)}f}"


def measure(value: float, digits: int = 4) -> str:
    """Write a whole number without a fraction, and any other with so many significant digits.

    Examples
    --------
    >>> measure(2.0), measure(0.91234)
    ('2', '0.9123')
    """
    return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e6 else significant(value, digits)


def percent(fraction: float, digits: int = 1) -> str:
    """Write a fraction as a percentage.

    Examples
    --------
    >>> percent(0.4999), percent(1.0), percent(0.123), percent(0.5, digits=0)
    ('50%', '100%', '12.3%', '50%')
    """
    number = f"{100 * fraction:.{digits}f}"
    return f"{number.removesuffix('.' + '0' * digits) if digits else number}%"  # as people say it


def times(ratio: float) -> str:
    """Write a factor.

    Examples
    --------
    >>> times(1.4167), times(12.3), times(340)
    ('1.42x', '12x', '340x')
    """
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:,.0f}x"


def count(value: float) -> str:
    """Write a count in full below ten thousand, otherwise with an SI prefix.

    Examples
    --------
    >>> count(9999), count(22056576), count(12345)
    ('9,999', '22.1 M', '12.3 k')
    """
    if abs(value) < 10_000:
        return f"{value:,.0f}" if float(value).is_integer() else significant(value)
    # one rounded step below a prefix is already that prefix: 999,950 is 1.00 M, not 1,000 k
    scale, prefix = next((s, p) for s, p in _PREFIXES if abs(value) >= s * 0.9995)
    return f"{significant(value / scale)} {prefix}"


def data_size(value: float) -> str:
    """Write a number of bytes in decimal units.

    Examples
    --------
    >>> data_size(88e6), data_size(2.1e9), data_size(512)
    ('88.0 MB', '2.10 GB', '512 bytes')
    """
    if value < 1000:
        return f"{value:.0f} bytes"
    scale, prefix = next((s, p) for s, p in _PREFIXES if value >= s * 0.9995)
    return f"{significant(value / scale)} {prefix}B"


def duration(seconds: float) -> str:
    """Write a time in the unit that a person would choose.

    Examples
    --------
    >>> duration(0.0123), duration(9.96), duration(75), duration(3700)
    ('12 ms', '10.0 s', '1 min 15 s', '1 h 2 min')
    """
    if seconds == 0:
        return "0 s"
    if seconds < 0.001:
        return f"{significant(seconds * 1e6, 2)} µs"
    if seconds < 0.0995:
        return f"{seconds * 1e3:.0f} ms" if seconds >= 0.00995 else f"{seconds * 1e3:.1f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def quantity(value: float, unit: str) -> str:
    """Write a cost in its unit of measure.

    Examples
    --------
    >>> quantity(1.06e7, "weights"), quantity(46e6, "bytes"), quantity(4.6e9, "flops"), quantity(0.25, "s")
    ('10.6 M weights', '46.0 MB', '4.60 GFLOPs', '0.2 s')
    """
    key = unit.strip().lower()
    if key in _BYTES:
        return data_size(value)
    if key in _SECONDS:
        return duration(value)
    if key in _JOINED:
        return f"{count(value)}{'' if abs(value) >= 10_000 else ' '}{_JOINED[key]}"
    if key == "ms":
        return f"{significant(value)} ms"
    if key == "j":
        return f"{significant(1e3 * value)} mJ" if abs(value) < 1 else f"{significant(value)} J"
    return f"{count(value)} {unit}".strip()


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table as lines of text: the first column on the left, the others on the right.

    Examples
    --------
    >>> aligned(["class", "top-1"], [["cat", "0.9"], ["elephant", "1"]])
    ['class     top-1', 'cat         0.9', 'elephant      1']
    """
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = []
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return lines
