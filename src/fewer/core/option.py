"""An option: one way to spend less on a unit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from fewer.core.errors import FewerError, near_match
from fewer.core.pattern import Pattern
from fewer.core.precision import precision_of

__all__ = ["Option"]

_PATTERN_FORMS = ("dense", "unstructured", "block:16x4", "nm:2:4", "columns:16", "rows:16")
_NO_MASK = re.compile(r"diagonal|approximate:[a-z0-9-]{1,40}")
"""What is no mask of a weight: diagonals of a packed matrix, and other ways to compute a function."""


@dataclass(frozen=True)
class Option:
    """One way to store and run a unit: which weights stay, and in which number format.

    The text form is ``pattern[@sparsity][/precision]``; ``Option.parse(str(option)) == option`` always holds.

    Parameters
    ----------
    pattern
        ``"dense"``, ``"unstructured"``, ``"block:ROWSxCOLS"`` (whole tiles go), ``"nm:N:M"`` (N of every M stay),
        ``"columns:G"`` (input channels go in runs of G; ``"columns:GxT"`` where each has T taps of a kernel;
        ``"columns:G:A+B"`` where two layers make A and B of the runs, and lose the same share),
        ``"rows:G"`` (outputs go, because another layer's columns do), ``"reads:G"`` (inputs go for the same reason),
        ``"diagonal"`` (whole diagonals of a matrix that is packed for encryption) or ``"approximate:NAME"`` (a function
        without weights is computed in another way).
    sparsity
        Share of the weights that go, 0 to 1. For ``nm`` it follows from the pattern and may be left out.
    precision
        Number format of the weights that stay: ``"fp32"``, ``"bf16"``, ``"int8"``, ...

    Raises
    ------
    FewerError
        When the pattern or precision is unknown, or the sparsity does not fit the pattern.

    Examples
    --------
    >>> str(Option("block:16x4", 0.75))
    'block:16x4@0.75'
    >>> Option.parse("nm:2:4/int8")
    Option(pattern='nm:2:4', sparsity=0.5, precision='int8')
    >>> Option().is_dense, Option("dense", precision="int8").is_dense
    (True, True)
    """

    pattern: str = "dense"
    sparsity: float = 0.0
    precision: str = "fp32"

    def __post_init__(self) -> None:
        circuit = _NO_MASK.fullmatch(self.pattern)
        pattern = Pattern(circuit[0].partition(":")[0]) if circuit else self._parsed()
        name = pattern.kind
        precision_of(self.precision)
        sparsity = float(self.sparsity)
        if not (math.isfinite(sparsity) and 0.0 <= sparsity <= 1.0):
            raise FewerError(f"the sparsity of {self.pattern!r} must be from 0 to 1, not {self.sparsity}")
        if name == "dense" and sparsity != 0.0:
            raise FewerError(f"a dense option has no sparsity, but {self.sparsity} was given; use 'unstructured'")
        if name == "nm":
            n, m = pattern.n, pattern.m
            if sparsity not in (0.0, 1.0 - n / m):
                raise FewerError(
                    f"pattern {self.pattern!r} has sparsity {1.0 - n / m}, not {self.sparsity}; leave it out"
                )
            sparsity = 1.0 - n / m
        object.__setattr__(self, "sparsity", sparsity)

    def _parsed(self) -> Pattern:
        """The pattern, which must be written in its one full form: options are compared by their text."""
        sizes = re.fullmatch(r"nm:(\d{1,7}):(\d{1,7})", self.pattern)
        if sizes and int(sizes[1]) > int(sizes[2]):
            raise FewerError(f"pattern {self.pattern!r} keeps more weights than there are; write nm:N:M with N <= M")
        try:
            found = Pattern.parse(self.pattern)
        except FewerError:
            found = None
        if found is None or str(found) != self.pattern:
            raise FewerError(f"unknown pattern {self.pattern!r}{near_match(self.pattern, _PATTERN_FORMS)}")
        return found

    def __str__(self) -> str:
        text = self.pattern
        if self.pattern != "dense" and not self.pattern.startswith(("nm:", "approximate:")):
            text += f"@{self.sparsity!r}"
        return text if self.precision == "fp32" else f"{text}/{self.precision}"

    @classmethod
    def parse(cls, text: str) -> Option:
        """Read the text form back.

        Raises
        ------
        FewerError
            When the text is not ``pattern[@sparsity][/precision]``.

        Examples
        --------
        >>> Option.parse("unstructured@0.5")
        Option(pattern='unstructured', sparsity=0.5, precision='fp32')
        """
        head, slash, precision = text.strip().partition("/")
        pattern, at, sparsity = head.partition("@")
        try:
            value = float(sparsity) if at else 0.0
        except ValueError:
            raise FewerError(f"cannot read the sparsity {sparsity!r} of the option {text!r}; write it as 0.5") from None
        return cls(pattern, value, precision if slash else "fp32")

    @property
    def bits(self) -> int:
        """Bits of one weight that stays."""
        return precision_of(self.precision).bits

    @property
    def is_dense(self) -> bool:
        """Whether every weight stays, in whatever precision."""
        return self.pattern == "dense"

    @property
    def removes(self) -> str | None:
        """``"columns"`` or ``"rows"`` for an option that makes a dense matrix smaller, else None.

        Such an option is one side of a cut: the units of a coupled group take one of equal sparsity, or none of them.
        The columns say which channels go, all others follow: ``"rows"`` stands for ``reads`` as well.

        Examples
        --------
        >>> Option("columns:16", 0.5).removes, Option("block:16x4", 0.5).removes
        ('columns', None)
        """
        kind = self.pattern.partition(":")[0]
        return {"columns": "columns", "rows": "rows", "reads": "rows"}.get(kind)

    @property
    def kept_bits(self) -> float:
        """Bits kept per weight of the dense layer, without any index: ``(1 - sparsity) * bits``."""
        return (1.0 - self.sparsity) * self.bits

    @property
    def family(self) -> str:
        """What the options of one sweep have in common: the pattern, or ``nm:*:16`` for every n of 16.

        Examples
        --------
        >>> Option("nm:2:4").family, Option("block:16x4", 0.5, "int8").family
        ('nm:*:4', 'block:16x4')
        """
        return f"nm:*:{self.pattern.split(':')[2]}" if self.pattern.startswith("nm:") else self.pattern
