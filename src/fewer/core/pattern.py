"""The grammar of patterns: ``dense``, ``unstructured``, ``block:16x4``, ``nm:2:4``, ``columns:16``, ``rows:16``,
``reads:16``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from fewer.core.errors import FewerError

_BLOCK = re.compile(r"block:(\d{1,7})x(\d{1,7})")
_NM = re.compile(r"nm:(\d{1,7}):(\d{1,7})")
_COLUMNS = re.compile(r"columns:(\d{1,7})(?:x(\d{1,7}))?(?::(\d{1,7}(?:\+\d{1,7})+))?")
_ROWS = re.compile(r"rows:(\d{1,7})")
_READS = re.compile(r"reads:(\d{1,7})")


@dataclass(frozen=True)
class Pattern:
    """A sparsity pattern over a weight seen as a matrix of shape (outputs, kernel times inputs per group), see
    :func:`fewer.patterns.to_matrix`.

    Parameters
    ----------
    kind
        ``"dense"``, ``"unstructured"``, ``"block"``, ``"nm"``, ``"columns"``, ``"rows"`` or ``"reads"``.
    height, width
        Tile size in outputs and inputs (``block``); ``columns`` and ``reads`` have a width only, ``rows`` a height
        only. 1 otherwise.
    n, m
        At most ``n`` weights are kept of every ``m`` consecutive inputs (``nm`` only).
    taps
        Taps of the kernel, on each of which an input channel is a column (``columns`` only).
    parts
        How many runs of columns each part has, where several layers make the inputs side by side: the same share of
        each part is removed (``columns`` only). Empty where there is one part.

    Examples
    --------
    >>> Pattern.parse("block:16x4")
    Pattern(kind='block', height=16, width=4, n=0, m=0)
    >>> str(Pattern.parse("2:4"))
    'nm:2:4'
    """

    kind: str
    height: int = 1
    width: int = 1
    n: int = 0
    m: int = 0
    taps: int = field(default=1, repr=False)
    parts: tuple[int, ...] = field(default=(), repr=False)

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern from its text form.

        Raises
        ------
        FewerError
            If the text is not a pattern, or a tile or group is empty.
        """
        text = text.strip().lower()
        if re.search(r"\d{8}", text):
            raise FewerError(f"the pattern '{text[:40]}' is larger than any layer; at most 9999999 is possible")
        if text in ("dense", "unstructured"):
            return cls(text)
        bare = text if ":" in text and not text[0].isdecimal() else ("nm:" + text if ":" in text else "block:" + text)
        if found := _BLOCK.fullmatch(bare):
            height, width = int(found[1]), int(found[2])
            if height and width:
                return cls("block", height, width)
        if found := _NM.fullmatch(bare):
            n, m = int(found[1]), int(found[2])
            if 0 < n <= m:
                return cls("nm", n=n, m=m)
        if (found := _COLUMNS.fullmatch(bare)) and int(found[1]) and int(found[2] or 1):
            parts = tuple(int(part) for part in (found[3] or "").split("+") if part)
            if all(parts):
                return cls("columns", width=int(found[1]), taps=int(found[2] or 1), parts=parts)
        if (found := _ROWS.fullmatch(bare)) and int(found[1]):
            return cls("rows", height=int(found[1]))
        if (found := _READS.fullmatch(bare)) and int(found[1]):
            return cls("reads", width=int(found[1]))
        raise FewerError(
            f"'{text}' is not a pattern: use unstructured, a block such as block:16x4, n:m such as 2:4, or columns."
        )

    def fitted(self, rows: int, cols: int) -> Pattern:
        """The pattern on a matrix of this size: whole columns and whole rows are tiles as high and as wide as it.

        With several taps the tiles are those of a matrix whose columns stand in
        :func:`~fewer.patterns.layout.channel_order`.

        Examples
        --------
        >>> str(Pattern.parse("columns:16").fitted(384, 1536)), str(Pattern.parse("block:16x4").fitted(384, 1536))
        ('block:384x16', 'block:16x4')
        """
        if self.kind in ("columns", "reads"):
            return Pattern("block", rows, self.width * self.taps)
        return Pattern("block", self.height, cols) if self.kind == "rows" else self

    def __str__(self) -> str:
        if self.kind == "block":
            return f"block:{self.height}x{self.width}"
        if self.kind == "columns":
            taps = f"x{self.taps}" if self.taps > 1 else ""
            return f"columns:{self.width}{taps}" + (":" + "+".join(map(str, self.parts)) if self.parts else "")
        if self.kind == "rows":
            return f"rows:{self.height}"
        if self.kind == "reads":
            return f"reads:{self.width}"
        return f"nm:{self.n}:{self.m}" if self.kind == "nm" else self.kind
