"""The evidence: report data (JSON), the sentences that read it out, and one self-contained HTML page.

In `fewer.reports.compression`, ``data`` holds the strict models, ``words`` the plain sentences, ``plots`` the figures
and ``html`` the page of a run. Names are resolved on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "RunReport": "fewer.reports.compression.data",
    "environment": "fewer.core.stamp",
    "render": "fewer.reports.compression.html",
    "verdict_sentence": "fewer.reports.compression.words",
    "write": "fewer.reports.compression.html",
}

__all__ = ["RunReport", "environment", "render", "verdict_sentence", "write"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'fewer.reports' has no attribute {name!r}")


if TYPE_CHECKING:
    from fewer.core.stamp import environment
    from fewer.reports.compression.data import RunReport
    from fewer.reports.compression.html import render, write
    from fewer.reports.compression.words import verdict_sentence
