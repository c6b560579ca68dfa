"""The command line: one small file per verb, parsing and printing only."""

from __future__ import annotations

from fewer.cli.main import main

__all__ = ["main"]
