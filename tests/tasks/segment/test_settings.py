"""Settings of the verbs of this task."""

from __future__ import annotations

import pytest

from fewer.core.errors import FewerError
from fewer.tasks.segment.settings import EvaluateSettings, PredictSettings, TrainSettings


def test_settings_of_the_other_verbs_are_strict() -> None:
    assert EvaluateSettings.of({"all_data": True}).all_data
    with pytest.raises(FewerError, match="overlap"):
        PredictSettings.of({"overlap": -0.1})
    assert TrainSettings.of({"spacing": "1,1,3"}).spacing == (1.0, 1.0, 3.0)
