"""The evidence: report data (JSON), the sentences that read it out, and one self-contained HTML page.

`fewer.report.data` holds the strict models, `fewer.report.words` the plain sentences, `fewer.report.plots` the figures
and `fewer.report.html` the page. Names are resolved on first use, so that importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_PUBLIC = {
    "RunReport": "fewer.report.data",
    "environment": "fewer.report.stamp",
    "render": "fewer.report.html",
    "verdict_sentence": "fewer.report.words",
    "write": "fewer.report.html",
}

__all__ = ["RunReport", "environment", "render", "verdict_sentence", "write"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'fewer.report' has no attribute {name!r}")


if TYPE_CHECKING:
    from fewer.report.data import RunReport
    from fewer.report.html import render, write
    from fewer.report.stamp import environment
    from fewer.report.words import verdict_sentence
