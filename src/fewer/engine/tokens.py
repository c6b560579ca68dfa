"""Tokens: an outer choice. For each schedule of merges the weights are planned anew at what they then cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.cost.stopwatch import Stopwatch
from fewer.engine.deploy import measured_here
from fewer.engine.offers import Offer, choose_offer
from fewer.engine.prepare import Prepared
from fewer.engine.sense import Sensed
from fewer.engine.work import Work
from fewer.kernels.copies import copied_module
from fewer.models.running import model_input, use_threads
from fewer.tokens.blocks import merge_after, merge_quickly, mergeable_blocks
from fewer.tokens.merge import TokenState
from fewer.tokens.schedule import present_tokens, schedules

__all__ = ["choose_tokens", "mergeable", "merging_ms"]


def mergeable(prepared: Prepared) -> tuple[list[str], int, int]:
    """Blocks after which tokens can be merged, how many tokens they see, and how many of these are never merged.

    Raises
    ------
    FewerError
        When there are none.
    """
    if prepared.forward is not None:
        raise FewerError("tokens cannot be merged in a model with its own forward=; leave tokens out")
    return mergeable_blocks(prepared.model, model_input(prepared.model, prepared.example))


def choose_tokens(work: Work, sensed: Sensed, budgets: Sequence[Budget], store: Path | None = None) -> Sensed:
    """The schedule of token merges whose best plan distorts least, none among them, as curves at its costs.

    Costs follow from the tokens that are left in each block (:func:`fewer.engine.outer.choose_offer`).

    Parameters
    ----------
    work
        The model and how it is compressed.
    sensed
        Curves without any merge.
    budgets
        All that must hold.
    store
        Folder with the repaired weights of every option; without it predictions decide.

    Returns
    -------
    Sensed
        As given when merging nothing is best. Otherwise ``curves.meta["tokens"]`` says what to merge and what was
        tried, and ``plain`` holds the curves as given.

    Raises
    ------
    FewerError
        When the model has no blocks after which tokens can be merged, or the budgets cannot be met even with merges.
    """
    prepared = work.prepared
    names, count, protected = mergeable(prepared)
    offered = schedules(count, len(names), protected)

    def offers() -> Iterator[Offer]:
        for label, amounts in offered.items():
            by_block = dict(zip(names, amounts, strict=True))
            left = present_tokens(count, amounts)
            yield Offer(
                label,
                {"amounts": by_block, "protected": protected},
                merge_after(copied_module(prepared.model), by_block, protected),
                left[-1],
                float(np.mean(left)) / count,
                partial(merging_ms, work, sensed.curves, amounts, count),
            )

    return choose_offer(work, sensed, budgets, store, "tokens", count, offers(), len(offered))


def merging_ms(work: Work, curves: CurveSet, amounts: Sequence[int], count: int) -> float:
    """Milliseconds of all merges of a schedule, from one in the middle of it; 0 for a device that is not this one."""
    if not measured_here(curves):
        return 0.0
    width = max(u.cols for u in curves.units if u.kind == "linear" and u.positions >= count)
    places = [(t, a) for t, a in zip(present_tokens(count, amounts), amounts, strict=True) if a]
    tokens, amount = places[len(places) // 2]
    x = torch.randn(work.settings.deploy_batch, tokens, width)
    state = TokenState.fresh(x)
    with use_threads(work.settings.threads):
        watch = Stopwatch()
        ratio = watch.time({"merge": lambda: merge_quickly(x, state, amount)}, budget_ms=30.0)["merge"].ratio
        return len(places) * ratio * watch.reference_ms
