"""The grammar of patterns: ``dense``, ``unstructured``, ``block:16x4``, ``nm:2:4``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fewer.core.errors import FewerError

_BLOCK = re.compile(r"block:(\d+)x(\d+)")
_NM = re.compile(r"nm:(\d+):(\d+)")


@dataclass(frozen=True)
class Pattern:
    """A sparsity pattern over a weight seen as a matrix of shape (outputs, kernel times inputs per group), see
    :func:`fewer.patterns.to_matrix`.

    Parameters
    ----------
    kind
        ``"dense"``, ``"unstructured"``, ``"block"`` or ``"nm"``.
    height, width
        Tile size in outputs and inputs (``block`` only; 1 x 1 otherwise).
    n, m
        At most ``n`` weights are kept of every ``m`` consecutive inputs (``nm`` only).

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

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern from its text form.

        Raises
        ------
        FewerError
            If the text is not a pattern, or a tile or group is empty.
        """
        text = text.strip().lower()
        if text in ("dense", "unstructured"):
            return cls(text)
        bare = text if ":" in text and not text[0].isdigit() else ("nm:" + text if ":" in text else "block:" + text)
        if found := _BLOCK.fullmatch(bare):
            height, width = int(found[1]), int(found[2])
            if height and width:
                return cls("block", height, width)
        if found := _NM.fullmatch(bare):
            n, m = int(found[1]), int(found[2])
            if 0 < n <= m:
                return cls("nm", n=n, m=m)
        raise FewerError(
            f"'{text}' is not a pattern: use unstructured, a block such as block:16x4, or n:m such as 2:4."
        )

    def __str__(self) -> str:
        if self.kind == "block":
            return f"block:{self.height}x{self.width}"
        return f"nm:{self.n}:{self.m}" if self.kind == "nm" else self.kind
