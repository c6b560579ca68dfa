"""Small parts that the whole way uses: pictures of outlines, patches, losses, flat results."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fewer.core.errors import FewerError
from fewer.tasks.segment.evaluation import Evaluation
from fewer.tasks.segment.metrics import Score
from fewer.tasks.segment.settings import EvaluateSettings, PredictSettings, TrainSettings
from fewer.tasks.segment.task import NETWORKS, Segment


def scores(count: int) -> Evaluation:
    return Evaluation(tuple(Score(f"case{i}", "lesion", "missed", 0, 0, 9) for i in range(count)))


def test_lines_name_the_worst_and_count_the_rest() -> None:
    lines = scores(7).lines()
    assert lines[0].split() == ["structure", "lesion"]
    assert sum(line.startswith("missed: lesion in") for line in lines) == 5
    assert lines[-1] == "and 2 more missed or spurious"


def test_what_a_class_is_written_to_csv_comes_back() -> None:
    result = Evaluation((Score('a "b", c', "lesion", "found", 8, 2, 2, 0.8, 0.667, 1.0, 0.5),))
    import csv
    import io

    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert rows[0]["case"] == 'a "b", c' and math.isclose(float(rows[0]["dice"]), 0.8)
    assert Evaluation.from_dict(result.to_dict()).scores == result.scores


def test_losses_of_a_perfect_guess_are_near_zero_and_of_a_wrong_one_are_not() -> None:
    pytest.importorskip("monai", reason="needs the [medical] extra")
    from fewer.tasks.segment.losses import named_loss

    mask = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    mask[..., 2:6, 2:6] = 1
    right = torch.cat([1.0 - mask, mask.float()], 1) * 40 - 20
    for name in ("dice-ce", "dice-focal", "dice", "tversky", "ce"):
        loss = named_loss(name)
        target = mask if _takes(loss, right, mask) else mask[:, 0]
        assert float(loss(right, target)) < 0.05 < float(loss(-right, target)), name


def _takes(loss, logits: torch.Tensor, mask: torch.Tensor) -> bool:
    try:
        loss(logits, mask)
    except Exception:
        return False
    return True


def test_settings_of_the_other_verbs_are_strict() -> None:
    assert EvaluateSettings.of({"all_cases": True}).all_cases
    with pytest.raises(FewerError, match="overlap"):
        PredictSettings.of({"overlap": -0.1})
    assert TrainSettings.of({"spacing": "1,1,3"}).spacing == (1.0, 1.0, 3.0)


def test_the_list_of_networks_is_what_can_be_built() -> None:
    pytest.importorskip("monai", reason="needs the [medical] extra")
    from fewer.tasks.segment.networks import build_network

    assert Segment().networks() is NETWORKS
    for name in NETWORKS:
        settings = TrainSettings(network=name, width=4, levels=5)
        net = build_network(settings, 2, 1, 2).model.eval()
        with torch.no_grad():
            found = net(torch.zeros(1, 1, 64, 64))
        assert (found[0] if isinstance(found, (list, tuple)) else found).shape[1] == 2, name


def test_outlines_are_drawn_where_the_mask_ends() -> None:
    from fewer.tasks.segment.overlay import overlay

    image = np.zeros((1, 32, 32), np.float32)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 1
    drawn, plain = overlay(image, mask), overlay(image, np.zeros_like(mask))
    assert drawn.dtype == np.uint8 and drawn.shape == plain.shape and drawn.shape[-1] == 3
    assert (drawn != plain).any()
