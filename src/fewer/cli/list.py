"""``fewer list``: the names that the other verbs take."""

from __future__ import annotations

from collections.abc import Callable

from fewer.cli.flags import Shared, refuse_out
from fewer.core.errors import FewerError, near_match
from fewer.verbs import list_names as names

__all__ = ["LISTS", "list_"]


def _demos() -> dict[str, str]:
    from fewer.cli.demo import DEMOS

    return DEMOS


LISTS: dict[str, Callable[[], dict[str, str]]] = {"demos": _demos, **names.LISTS}
"""Those of :func:`fewer.list_names`, and what only the command line has."""


def list_(what: str | None = None, /, *, shared: Shared | None = None) -> int:
    """List models, presets, patterns and every table of methods.

    Parameters
    ----------
    what
        A name of these lists; all of them when left out.
    """
    from fewer.cli.show import as_json, say

    shared = shared or Shared()
    refuse_out(shared, "list")
    if what is not None and what not in LISTS:
        raise FewerError(f"there is no list of {what!r}{near_match(what, LISTS)}")
    found = {name: LISTS[name]() for name in ([what] if what else LISTS)}
    if shared.json:
        as_json(found[what] if what else found)
        return 0
    from rich.table import Table
    from rich.text import Text

    for name, entries in found.items():
        table = Table.grid(padding=(0, 3))
        table.add_column(no_wrap=True)
        table.add_column(style="dim")
        for entry, note in entries.items():
            table.add_row(Text(f"  {entry}" if what is None else entry), Text(note))
        say(*([] if what else [Text(name, style="bold")]), table)
    return 0
