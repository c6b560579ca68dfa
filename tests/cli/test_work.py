"""What several verbs do alike: the command as it is told, and budgets as they are meant."""

from __future__ import annotations

import shlex

import pytest

from fewer.cli.work import command_line, meant_budgets, remember_command
from fewer.core.errors import FewerError


def test_the_command_can_be_typed_again_and_does_not_overwrite():
    remember_command(["compress", "fewer/mobilenet-v2", "--images", "my photos/", "--resume", "--debug", "--overwrite"])
    told = command_line()
    assert shlex.split(told) == ["fewer", "compress", "fewer/mobilenet-v2", "--images", "my photos/"]


@pytest.mark.parametrize("text", ["weights=50", "flops = 7", "latency=0.5x,weights=100"])
def test_a_number_that_lacks_its_percent_sign_is_asked_about(text):
    with pytest.raises(FewerError, match="% for a share of the model"):
        meant_budgets(text)


@pytest.mark.parametrize(
    "text", ["weights=50%", "weights=0.05k", "flops=0.5x", "size=8MB", ["weights=50%", "size=8MB"]]
)
def test_other_budgets_are_taken_as_they_are(text):
    assert len(meant_budgets(text)) == (2 if isinstance(text, list) else 1)
