"""What a trained run says of itself: how images become its input, and which cases it has not seen."""

from __future__ import annotations

from fewer.core.errors import FewerError
from fewer.models.spec import LoadedModel
from fewer.tasks.facts import facts_of
from fewer.tasks.segment.dataset import Case, SegmentData
from fewer.tasks.segment.preparation import Preparation

__all__ = ["preparation_of", "unseen_cases"]


def preparation_of(loaded: LoadedModel) -> Preparation:
    """How images become the input of a trained model.

    Raises
    ------
    FewerError
        When the model was not trained by this task.
    """
    found = facts_of(loaded, "segment").preparation
    if found is None:
        raise FewerError(f"{loaded.name} was not trained for segmentation; train it with: fewer train")
    return Preparation.of(found)


def unseen_cases(loaded: LoadedModel, data: SegmentData) -> tuple[Case, ...]:
    """The annotated cases that judged, if the model was trained on this very data; else all of them."""
    split = facts_of(loaded, "segment").split
    if split is None or not split.is_of(data.root, (case.name for case in data.cases)):
        return data.cases
    names = set(split.val)
    return tuple(case for case in data.cases if case.name in names)
