"""The colour of a page of segmentation: no success where masks hardly overlap."""

from __future__ import annotations

import pytest

from fewer.tasks.segment.evaluation import Evaluation, Score
from fewer.tasks.segment.pages import evaluation_page


@pytest.mark.parametrize(("dice", "good"), [(0.09, False), (0.8, True)])
def test_no_green_badge_over_masks_that_hardly_overlap(dice: float, good: bool) -> None:
    score = Score("a", "lesion", "found", 8, 2, 2, dice, dice / (2 - dice), 1.0, 0.5)
    assert evaluation_page("lesions", Evaluation((score,)), None, "fewer eval").good is good
