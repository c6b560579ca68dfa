"""The Jinja environment that every page is rendered with."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import jinja2
from markupsafe import Markup

from fewer.reports import numbers

__all__ = ["template_environment"]


def _unbroken(write: Callable[..., str]) -> Callable[..., str]:
    """Keep a number and its unit of measure on one line."""
    return lambda *values: write(*values).replace(" ", "\u00a0")


@cache
def template_environment(room: str = "fewer.reports") -> jinja2.Environment:
    """The templates of a room, with the filters that write numbers.

    Parameters
    ----------
    room
        A package whose folder ``templates`` holds pages of its own; the shared pieces are found from everywhere.

    Examples
    --------
    >>> template_environment().from_string("{{ 1234 | count }}").render()
    '1,234'
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name) for name in dict.fromkeys((room, "fewer.reports"))]),
        # names of layers and files come from strangers
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("significant", "measure", "percent", "times", "count", "data_size", "duration", "quantity"):
        environment.filters[name] = _unbroken(getattr(numbers, name))
    environment.filters["svg"] = Markup  # only for what fewer.reports.figure made
    return environment
