"""What several verbs do alike: the command as it is told."""

from __future__ import annotations

import shlex

from fewer.cli.work import command_line, remember_command


def test_the_command_can_be_typed_again_and_does_not_overwrite():
    remember_command(["compress", "fewer/mobilenet-v2", "--images", "my photos/", "--resume", "--debug", "--overwrite"])
    told = command_line()
    assert shlex.split(told) == ["fewer", "compress", "fewer/mobilenet-v2", "--images", "my photos/"]
