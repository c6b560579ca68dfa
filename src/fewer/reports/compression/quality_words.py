"""What is said of a model's quality beside its distortion."""

from __future__ import annotations

from collections.abc import Sequence

from fewer.reports.compression.data import Quality, RunReport
from fewer.reports.numbers import measure

__all__ = ["counted_words", "enough_words", "interval_words"]


def counted_words(report: RunReport, quality: Quality) -> str:
    """A share of the held-out images as people say it; empty for what is no such share.

    Examples
    --------
    >>> report = RunReport.from_dict({
    ...     "verdict": {"met": True, "quality": [{"name": "top-1 agreement", "value": 0.875}]},
    ...     "model": {"name": "toy"},
    ...     "data": {"heldout": 32},
    ... })
    >>> counted_words(report, report.verdict.quality[0])
    '28 of 32'
    """
    images = report.data.heldout if report.data else 0
    same = quality.value * images
    if quality.name != "top-1 agreement" or not images or abs(same - round(same)) > 1e-3:
        return ""
    return f"{round(same)} of {images}"


def enough_words(report: RunReport) -> str:
    r"""Say what is known of the question whether the model is good enough for its task; empty when nothing is.

    Examples
    --------
    >>> report = RunReport.from_dict({
    ...     "verdict": {"met": True, "quality": [{"name": "top-1 agreement", "value": 0.875}]},
    ...     "model": {"name": "toy"},
    ...     "data": {"heldout": 32},
    ... })
    >>> print(enough_words(report).replace(". ", ".\n"))
    The first class is that of the dense model on 28 of 32 held-out images.
    Only labels tell whether that is enough for your task: --labelled shows accuracy before and after.
    """
    labelled = next((one for one in report.verdict.quality if one.labelled and one.dense is not None), None)
    if labelled is not None and labelled.dense is not None:
        after, before = measure(labelled.value, 3), measure(labelled.dense, 3)
        told = f"On labelled data, {labelled.name} is {after} after and {before} before."
        ends, dense_ends = labelled.interval, labelled.dense_interval
        if not ends or not dense_ends:
            return told
        apart = ends[1] < dense_ends[0] or dense_ends[1] < ends[0]
        return f"{told} The 95 % intervals " + (
            "are apart." if apart else "overlap: so few labels cannot tell the two models apart."
        )
    likeness = next((one for one in report.verdict.quality if not one.labelled), None)
    if likeness is None:
        return ""
    if counted := counted_words(report, likeness):
        told = f"The first class is that of the dense model on {counted} held-out images."
    else:
        told = f"The {likeness.name} with the dense model is {measure(likeness.value, 3)}."
    return f"{told} Only labels tell whether that is enough for your task: --labelled shows accuracy before and after."


def interval_words(ends: Sequence[float] | None) -> str:
    """Write a confidence interval.

    Examples
    --------
    >>> interval_words([0.699, 0.972])
    '95 %: 0.699 to 0.972'
    """
    return f"95 %: {measure(ends[0], 3)} to {measure(ends[1], 3)}" if ends else ""
