"""The networks among which was chosen: rows, a table and words that say whether the choice was right."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from torch import nn

from fewer.adaptation.problem import Member
from fewer.tasks.segment.adapt_members import member_rows, members_csv, members_section


def run(dice: dict[str, float] | None = None, more: int = 0) -> Any:
    """Two networks, of which the second was kept."""
    members = [
        Member("source-only", nn.Identity(), 6, {"trust": 0.5, "mirror": 0.6, "agrees": 0.4}),
        Member("curves", nn.Identity(), 8, {"trust": 0.7, "mirror": 0.8, "agrees": 1.0}, kept=True),
    ]
    scored = {name: SimpleNamespace(overall=SimpleNamespace(dice_pooled=value)) for name, value in (dice or {}).items()}
    return SimpleNamespace(adapted=SimpleNamespace(members=members, steps_after_choice=more), members=scored)


def test_without_a_test_folder_the_dice_is_empty() -> None:
    rows = member_rows(run())
    assert [row["member"] for row in rows] == ["source-only", "curves"] and rows[1]["kept"] and rows[0]["dice"] is None
    assert members_csv(run()).splitlines() == [
        "member,steps,kept,trust,mirror,agrees,dice",
        "source-only,6,False,0.5000,0.6000,0.4000,",
        "curves,8,True,0.7000,0.8000,1.0000,",
    ]
    assert not any("Dice" in head for head in members_section(run()).tables[0].head)


@pytest.mark.parametrize(
    ("dice", "words"),
    [
        ({"source-only": 0.1, "curves": 0.6}, "It was the best one"),
        ({"source-only": 0.8, "curves": 0.6}, "The best one was source-only"),
    ],
)
def test_the_page_says_whether_the_choice_was_right(dice: dict[str, float], words: str) -> None:
    section = members_section(run(dice, more=40))
    assert (
        section.words[0].startswith("curves is kept, because its trust is the highest.") and words in section.words[-1]
    )
    assert "for 40 steps" in section.words[1] and section.tables[0].rows[1][-2:] == ["0.600", "kept"]


def test_a_network_that_was_trusted_more_and_left_out_is_explained() -> None:
    made = run()
    made.adapted.members[0].signs["trust"] = 0.9
    assert "source-only is not believed" in members_section(made).words[0]
