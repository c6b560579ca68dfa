"""Schedules: after which blocks how many tokens are merged."""

from __future__ import annotations

from collections.abc import Sequence

from fewer.tokens.merge import most_merges

__all__ = ["present_tokens", "schedules"]

# share of the patches that is gone at the end
_CONSTANT = (0.25, 0.4, 0.55, 0.7, 0.8, 0.88)
_FALLING = (0.4, 0.6, 0.75)
_FEW = (0.4, 0.6, 0.75)
_QUARTERS = 4


def schedules(tokens: int, blocks: int, protected: int = 1) -> dict[str, tuple[int, ...]]:
    """Schedules worth trying: the same number after every block, fewer and fewer, or all of it in three places.

    Nothing is merged after the last block, where it would save nothing. A merge takes time of its own, so few large
    ones may be quicker than many small ones.

    Parameters
    ----------
    tokens, protected
        Of an image, and how many of them are no patches.
    blocks
        Transformer blocks.

    Returns
    -------
    dict
        Name of the schedule -> tokens to merge after each block.

    Examples
    --------
    >>> schedules(257, 12)["constant 6"]
    (6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 6, 0)
    """
    patches, places = tokens - protected, blocks - 1
    found: dict[str, tuple[int, ...]] = {}
    for share in _CONSTANT:
        each = round(share * patches / places)
        if each:
            found[f"constant {each}"] = (*_possible([each] * places, tokens, protected), 0)
    for share in _FALLING:
        most = 2 * share * patches / places
        falling = [round(most * (places - i) / places) for i in range(places)]
        if falling[0]:
            found[f"falling from {falling[0]}"] = (*_possible(falling, tokens, protected), 0)
    quarters = sorted({blocks * i // _QUARTERS - 1 for i in range(1, _QUARTERS)} - {-1})
    for share in _FEW:
        each = round(share * patches / max(1, len(quarters)))
        if each and blocks > _QUARTERS:
            amounts = [each if i in quarters else 0 for i in range(places)]
            found[f"{len(quarters)} times {each}"] = (*_possible(amounts, tokens, protected), 0)
    return found


def present_tokens(tokens: int, amounts: Sequence[int]) -> list[int]:
    """Tokens that each block works on.

    Examples
    --------
    >>> present_tokens(17, [8, 2, 0])
    [17, 9, 7]
    """
    return [tokens - sum(amounts[:i]) for i in range(len(amounts))]


def _possible(amounts: Sequence[int], tokens: int, protected: int) -> list[int]:
    """Cut down to what can be merged at each place."""
    found: list[int] = []
    for amount in amounts:
        found.append(min(amount, most_merges(tokens - sum(found), protected)))
    return found
