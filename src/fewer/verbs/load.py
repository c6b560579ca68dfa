"""Load: the model of a run folder, in plain torch or on the fast kernels."""

from __future__ import annotations

from fewer.models.load import load

__all__ = ["load"]
