"""The colour of a page of segmentation: no success where masks hardly overlap."""

from __future__ import annotations

import pytest

from fewer.tasks.segment.evaluation import Evaluation, Score
from fewer.tasks.segment.pages import case_strips, evaluation_page


@pytest.mark.parametrize(("dice", "good"), [(0.09, False), (0.8, True)])
def test_no_green_badge_over_masks_that_hardly_overlap(dice: float, good: bool) -> None:
    score = Score("a", "lesion", "found", 8, 2, 2, dice, dice / (2 - dice), 1.0, 0.5)
    assert evaluation_page("lesions", Evaluation((score,)), None, "fewer eval").good is good


def test_every_case_is_a_dot_and_a_missed_one_counts_as_nothing() -> None:
    found = Score("a", "lesion", "found", 8, 2, 2, 0.8, 0.667, 1.0, 0.5)
    missed, absent = Score("b", "lesion", "missed", 0, 0, 9), Score("c", "lesion", "absent", 0, 0, 0)
    (strip,) = case_strips(Evaluation((found, missed, absent)))
    (row,) = strip.rows
    assert (row.label, row.names, row.values, row.missing) == (
        "lesion (2 cases)",
        ["a", "b"],
        [0.8, 0.0],
        [False, True],
    )
    assert case_strips(Evaluation((absent,))) == []
    page = evaluation_page("lesions", Evaluation((found, missed)), None, "fewer eval").to_html()
    assert "Dice of every case" in page and "missed or spurious: counts as 0" in page
