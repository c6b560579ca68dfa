"""The table of verbs. Each one's file is imported only when its help is shown or it is run."""

from __future__ import annotations

import importlib.util

from cyclopts import App

from fewer import __version__
from fewer.core.errors import near_match

__all__ = ["VERBS", "app", "near_flag"]

VERBS = ("demo", "compress", "sense", "plan", "apply", "report", "bench", "info", "list")

app = App(
    name="fewer",
    version=f"fewer {__version__}",
    help="Give it a vision model, images and a budget; get back a model that meets it, and the evidence.\n\n"
    "fewer demo   shows it on a real Vision Transformer and real photos.",
    help_format="plaintext",
    version_flags=["--version"],
)
for _order, _verb in enumerate(VERBS):
    if importlib.util.find_spec(f"fewer.cli.{_verb}") is not None:  # a verb may still be on its way
        app.command(f"fewer.cli.{_verb}:{'list_' if _verb == 'list' else _verb}", name=_verb, sort_key=_order)


def near_flag(words: list[str]) -> str:
    """A hint for a mistyped flag that stands before any verb; empty otherwise."""
    if words and words[0].startswith("-"):
        return near_match(words[0], ["--help", "--version"])
    return ""
