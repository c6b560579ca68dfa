"""Losses over the scales of a network, and towards the truth."""

from __future__ import annotations

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.tasks.segment.losses import ScaledLoss, named_loss

pytest.importorskip("monai", reason="needs the [medical] extra")


def test_scales_weigh_as_told_and_compare_at_their_own_resolution() -> None:
    target = torch.zeros(1, 1, 4, 4)
    target[..., :2] = 1
    full, half = torch.randn(1, 2, 4, 4), torch.randn(1, 2, 2, 2)
    loss = named_loss("ce")
    small = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    wanted = 0.75 * loss(full, target) + 0.25 * loss(half, small)
    assert torch.allclose(ScaledLoss(loss, (0.75, 0.25))([full, half], target), wanted)
    assert torch.allclose(ScaledLoss(loss, (1.0, 0.0))([full, half], target), loss(full, target))
    with pytest.raises(FewerError, match="1 outputs"):
        ScaledLoss(loss, (0.5, 0.5))([full], target)


@pytest.mark.parametrize("name", ["dice-ce", "dice-focal", "dice", "tversky", "ce"])
def test_losses_fall_towards_the_truth(name: str) -> None:
    target = torch.zeros(2, 1, 6, 6)
    target[:, :, 2:4, 2:4] = 1
    right = torch.cat([1 - target, target], 1) * 20 - 10
    loss = named_loss(name)
    assert float(loss(right, target)) < 0.05 < float(loss(-right, target))


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
