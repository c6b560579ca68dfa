"""The flags of a compression are its settings, one each, and nothing is given until it is."""

from __future__ import annotations

from dataclasses import fields

from fewer.cli.flags import given
from fewer.cli.setting_flags import SettingFlags
from fewer.engine.settings import Settings


def test_each_setting_is_a_flag_but_for_those_of_every_verb() -> None:
    assert {field.name for field in fields(SettingFlags)} == set(Settings.model_fields) - {"seed", "device"}
    assert given(SettingFlags()) == {}
    assert Settings.of(given(SettingFlags(pattern="2:4", additivity=0))).pattern == "2:4"
