"""What objects look like when their name is typed: short, true, and safe in a notebook."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fewer
from fewer.core.display import Shown, skipped_lines


class Cat(Shown):
    def shown(self) -> tuple[str, list[tuple[str, str]]]:
        return "A <cat>", [("name", "Tom & Co"), ("owner", "")]


def test_a_fact_without_words_is_left_out_and_html_is_escaped() -> None:
    assert repr(Cat()) == str(Cat()) == "A <cat>\n  name  Tom & Co"
    assert "<b>A &lt;cat&gt;</b>" in Cat()._repr_html_() and "Tom &amp; Co" in Cat()._repr_html_()


@pytest.fixture(scope="module")
def run() -> object:
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    quick = fewer.Settings(additivity=0, baselines=("uniform",), workers=1)
    return fewer.compress(net, torch.randn(48, 16), "weights=50%", settings=quick)


@pytest.mark.parametrize("part", ["", "plan", "curves", "report"])
def test_what_a_run_holds_is_told_in_a_few_lines(run: object, part: str) -> None:
    """The whole of it had 29,670 characters."""
    what = getattr(run, part) if part else run
    assert len(repr(what)) < 800 and repr(what).count("\n") < 12
    assert "<table>" in what._repr_html_()


def test_a_run_says_how_to_save_it(run: object) -> None:
    assert "budget met" in repr(run) and "run.save(" in repr(run)


def test_settings_show_what_differs_from_the_defaults() -> None:
    assert repr(fewer.Settings()) == str(fewer.Settings()) == "Settings()"
    assert repr(fewer.Settings(seed=3, search=0)) == "Settings(seed=3)"


def test_what_was_skipped_is_one_line_for_each_reason():
    skipped = [(f"{i}.heic", "is not read") for i in range(1000)] + [("a.png", "is empty")]
    skipped += [(f"x/{i}.png", f"cannot identify image file '/p/x/{i}.png'") for i in range(2)]
    assert skipped_lines(skipped) == [
        "skipped 0.heic, 1.heic, 2.heic and 997 more: is not read",
        "skipped a.png: is empty",
        "skipped x/0.png, x/1.png: cannot identify image file",
    ]
    assert skipped_lines([(f"{i}.png", f"reason {i}") for i in range(12)])[-1] == "and 2 more skipped for other reasons"
