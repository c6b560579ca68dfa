"""What a training tells before and after."""

from __future__ import annotations

from torch import nn

from fewer.tasks.segment.settings import TrainSettings
from fewer.tasks.segment.trained import TrainedRun
from fewer.tasks.segment.training import plan_training


def test_a_plan_counts_cases_and_parameters(disc_data) -> None:
    made = plan_training(disc_data, TrainSettings(width=4, levels=3, patch_voxels=1024))
    told = made.lines()
    assert told[0] == "6 cases train, 2 judge; classes background, foreground"
    count = sum(weight.numel() for weight in made.network.model.parameters())
    assert told[1].startswith("2-D, channels 1") and f"{count / 1e6:.3g} M parameters" in told[2]


def test_a_training_without_a_judge_says_so() -> None:
    run = TrainedRun(nn.Identity(), None, None, [], 0, TrainSettings(), None)  # type: ignore[arg-type]
    assert run.lines() == ["trained on all cases; none was kept apart to judge"]
    assert run.to_dict() == {"best_step": 0, "history": [], "evaluation": None}
    assert "best step" in repr(run)
