"""Settings of an adaptation: those of a training with other defaults, and the outputs that MS-MT supervises."""

from __future__ import annotations

import pytest

from fewer.core.errors import FewerError
from fewer.tasks.segment.adapt_settings import AdaptSettings
from fewer.tasks.segment.settings import TrainSettings


@pytest.mark.parametrize(("levels", "weights"), [(3, (0.5, 0.4)), (4, (0.5, 0.4, 0.1)), (5, (0.5, 0.4, 0.05, 0.05))])
def test_ms_mt_supervises_as_many_scales_as_the_network_has(levels: int, weights: tuple[float, ...]) -> None:
    found = AdaptSettings(method="ms-mt", levels=levels).of_method()
    assert found.deep_supervision == weights and sum(weights) <= 1


@pytest.mark.parametrize(
    "given",
    [
        {"method": "contrasts"},
        {"method": "ours", "steps": 1600},
        {"method": "ms-mt", "network": "unet"},
        {"method": "ms-mt", "deep_supervision": "1,0"},
    ],
)
def test_nobody_elses_choice_is_changed(given) -> None:
    settings = AdaptSettings.of(given)
    assert settings.of_method() == settings


def test_the_default_has_more_steps_unless_it_is_told() -> None:
    assert AdaptSettings().of_method().steps == 2 * AdaptSettings(method="curves").of_method().steps
    assert AdaptSettings(steps=900).of_method().steps == 900
    assert AdaptSettings(without=("choice",)).of_method().steps == AdaptSettings().steps


def test_every_setting_of_a_training_is_one_of_an_adaptation() -> None:
    assert set(TrainSettings.model_fields) <= set(AdaptSettings.model_fields)
    with pytest.raises(FewerError, match="did you mean 'source_labels'"):
        AdaptSettings.of({"source_label": 3})


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"structure_factors": "2,1"}, "lowest factor stands before the highest"),
        ({"structure_factors": "-1,1"}, "none is negative"),
        ({"structure_factors": "1"}, "2 values are needed, separated by commas, and 1 given"),
        ({"adversarial": "0.1,0.2,0.3"}, "2 values are needed, separated by commas, and 3 given"),
        ({"adversarial": "-1,0"}, "must not be negative"),
    ],
)
def test_pairs_of_numbers_are_looked_at(given: dict[str, str], told: str) -> None:
    with pytest.raises(FewerError, match=told):
        AdaptSettings.of(given)
