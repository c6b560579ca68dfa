"""The flags of an adaptation are its settings."""

from __future__ import annotations

from dataclasses import fields

from fewer.cli.adapt_flags import AdaptFlags
from fewer.cli.flags import given
from fewer.tasks.segment.adapt_settings import UNUSED, AdaptSettings


def test_each_setting_is_a_flag_and_a_time_is_written_as_people_do() -> None:
    assert {field.name for field in fields(AdaptFlags)} == set(AdaptSettings.model_fields) - {"seed", "device", *UNUSED}
    assert AdaptSettings.of(given(AdaptFlags(time="2min"))).time == 120.0
