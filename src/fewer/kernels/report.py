"""What :func:`fewer.kernels.accelerate.accelerate` reports about each layer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class LayerReport:
    """What became of one layer.

    Attributes
    ----------
    name, kind : str
        Module name (empty for the whole model); ``linear``, ``conv2d``, ``sparse conv``,
        ``block`` or ``model``.
    backend, precision : str
        How it runs now: ``native``, ``native block``, ``native depthwise``, ``gather``, ``dense folded`` or ``dense``.
    sparsity : float
        Share of weights that the mask prunes.
    skipped : float
        Share of the work that the stored blocks save; 0 for a mask without whole empty blocks.
    ms_before, ms_after : float
        Median milliseconds on the example input, dense fp32 and as chosen; NaN where it was not measured alone.
    reason : str
        Why, in one sentence.
    """

    name: str
    kind: str
    backend: str
    precision: str
    sparsity: float
    skipped: float
    ms_before: float
    ms_after: float
    reason: str

    @property
    def speedup(self) -> float:
        """Times faster than before; NaN where it was not measured.

        Examples
        --------
        >>> LayerReport("head", "linear", "native", "bf16", 0.5, 0.5, 2.0, 1.0, "").speedup
        2.0
        """
        return self.ms_before / self.ms_after if self.ms_after > 0 else math.nan

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers that were not measured are None."""
        values = {**asdict(self), "speedup": self.speedup}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}
