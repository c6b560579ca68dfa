"""An option: one way to spend less on a unit."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from fewer.core.errors import FewerError, near_match

__all__ = ["Option"]

_PRECISION = re.compile(r"(?:fp|bf|int)(\d+)")
_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "int4")
_PATTERN_FORMS = ("dense", "unstructured", "block:16x4", "nm:2:4", "columns:16", "rows:16")


@dataclass(frozen=True)
class Option:
    """One way to store and run a unit: which weights stay, and in which number format.

    The text form is ``pattern[@sparsity][/precision]``; ``Option.parse(str(option)) == option`` always holds.

    Parameters
    ----------
    pattern
        ``"dense"``, ``"unstructured"``, ``"block:ROWSxCOLS"`` (whole tiles go), ``"nm:N:M"`` (N of every M stay),
        ``"columns:G"`` (input channels go in runs of G; ``"columns:GxT"`` where each has T taps of a kernel) or
        ``"rows:G"`` (outputs go, because another layer's columns do).
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
        name, *sizes = re.split(r"[:x]", self.pattern)
        counts = {"dense": 0, "unstructured": 0, "block": 2, "nm": 2, "columns": 1, "rows": 1}
        joint = {"block": "x", "columns": "x", "nm": ":"}.get(name, "")
        well_formed = (
            name in counts
            and (len(sizes) == counts[name] or (name == "columns" and len(sizes) == 2))
            and all(re.fullmatch(r"[1-9]\d{0,6}", s) for s in sizes)
            and (not sizes or self.pattern == f"{name}:{joint.join(sizes)}")
        )
        if not well_formed:
            raise FewerError(f"unknown pattern {self.pattern!r}{near_match(self.pattern, _PATTERN_FORMS)}")
        if not _PRECISION.fullmatch(self.precision):
            raise FewerError(f"unknown precision {self.precision!r}{near_match(self.precision, _PRECISIONS)}")
        sparsity = float(self.sparsity)
        if not (math.isfinite(sparsity) and 0.0 <= sparsity <= 1.0):
            raise FewerError(f"the sparsity of {self.pattern!r} must be from 0 to 1, not {self.sparsity}")
        if name == "dense" and sparsity != 0.0:
            raise FewerError(f"a dense option has no sparsity, but {self.sparsity} was given; use 'unstructured'")
        if name == "nm":
            n, m = int(sizes[0]), int(sizes[1])
            if n > m:
                raise FewerError(
                    f"pattern {self.pattern!r} keeps more weights than there are; write nm:N:M with N <= M"
                )
            if sparsity not in (0.0, 1.0 - n / m):
                raise FewerError(
                    f"pattern {self.pattern!r} has sparsity {1.0 - n / m}, not {self.sparsity}; leave it out"
                )
            sparsity = 1.0 - n / m
        object.__setattr__(self, "sparsity", sparsity)

    def __str__(self) -> str:
        text = self.pattern
        if self.pattern != "dense" and not self.pattern.startswith("nm:"):
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
        match = _PRECISION.fullmatch(self.precision)
        assert match is not None  # the constructor checked it
        return int(match.group(1))

    @property
    def is_dense(self) -> bool:
        """Whether every weight stays, in whatever precision."""
        return self.pattern == "dense"

    @property
    def removes(self) -> str | None:
        """``"columns"`` or ``"rows"`` for an option that makes a dense matrix smaller, else None.

        Such an option is one side of a cut: the units of a coupled group take one of equal sparsity, or none of them.

        Examples
        --------
        >>> Option("columns:16", 0.5).removes, Option("block:16x4", 0.5).removes
        ('columns', None)
        """
        kind = self.pattern.partition(":")[0]
        return kind if kind in ("columns", "rows") else None

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
