"""From the fields of a form to the answer that is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewer.core.errors import FewerError

__all__ = ["read_answer"]

_LONGEST = 4000  # characters of a text


def read_answer(form: str, values: Mapping[str, str], seconds: str = "") -> tuple[dict[str, Any], float | None]:
    """Check an answer.

    Parameters
    ----------
    form
        Of :data:`~fewer.study.settings.FORMS`.
    values
        ``description`` and ``conclusion``, or ``choice``.
    seconds
        How long it took, as the page says; left out when it is no sensible number.

    Raises
    ------
    FewerError
        In words for the rater.

    Examples
    --------
    >>> read_answer("acr", {"choice": "4"}, "2.5")
    ({'level': 4}, 2.5)
    """
    try:
        took: float | None = float(seconds)
        took = took if took is not None and 0 <= took < 86400 else None
    except ValueError:
        took = None
    choice = values.get("choice", "")
    if form == "pathway":
        texts = {}
        for name in ("description", "conclusion"):
            text = " ".join(values.get(name, "").split())
            if not text:
                raise FewerError(f"please write the {name} too")
            if len(text) > _LONGEST:
                raise FewerError(f"the {name} has {len(text)} characters; {_LONGEST} are possible")
            texts[name] = text
        if len(texts["description"].split()) < 4:
            raise FewerError("please describe a little more: what looks good or bad, and where")
        return texts, took
    if form == "acr" and choice in ("1", "2", "3", "4", "5"):
        return {"level": int(choice)}, took
    if form == "pair" and choice in ("left", "right", "same"):
        return {"better": choice}, took
    if form == "yes-no" and choice in ("yes", "no"):
        return {"answer": choice}, took
    raise FewerError("please choose one of the answers")
