"""Losses of MONAI by name, and their weighted sum over the scales of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.models.monai import import_monai

__all__ = ["ScaledLoss", "named_loss"]

Loss = Callable[[Tensor, Tensor], Tensor]


def named_loss(name: str) -> Loss:
    """A loss of logits ``(batch, classes, *space)`` and class indices ``(batch, 1, *space)``.

    Dice terms leave the background out and are taken over the whole batch, so that a patch without a structure
    does no distortion.

    Raises
    ------
    FewerError
        When MONAI is missing.

    Examples
    --------
    >>> import torch
    >>> round(float(named_loss("ce")(torch.zeros(1, 2, 4, 4), torch.zeros(1, 1, 4, 4))), 4)
    0.6931
    """
    if name == "ce":
        return lambda logits, target: F.cross_entropy(logits, target[:, 0].long())
    losses: Any = import_monai("monai.losses")
    common: dict[str, Any] = {"to_onehot_y": True, "softmax": True, "include_background": False, "batch": True}
    makers = {
        "dice-ce": losses.DiceCELoss,
        "dice-focal": losses.DiceFocalLoss,
        "dice": losses.DiceLoss,
        "tversky": losses.TverskyLoss,
    }
    return makers[name](**common)


class ScaledLoss:
    """A loss over a list of scales: each is compared with the target at its own resolution.

    Parameters
    ----------
    loss
        Of logits and class indices.
    weights
        One per scale, full resolution first.

    Examples
    --------
    >>> import torch
    >>> outputs = [torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4)]
    >>> round(float(ScaledLoss(named_loss("ce"), (0.75, 0.25))(outputs, torch.zeros(1, 1, 8, 8))), 4)
    0.6931
    """

    def __init__(self, loss: Loss, weights: Sequence[float]) -> None:
        self.loss, self.weights = loss, tuple(weights)

    def __call__(self, outputs: Sequence[Tensor], target: Tensor) -> Tensor:
        """The weighted sum; the target has shape ``(batch, 1, *space)``.

        Raises
        ------
        FewerError
            When there are fewer outputs than weights.
        """
        if len(outputs) < len(self.weights):
            raise FewerError(
                f"the network has {len(outputs)} outputs in training, {len(self.weights)} are to be supervised; "
                "lower --deep-supervision"
            )
        total = None
        for weight, output in zip(self.weights, outputs, strict=False):
            if weight == 0:
                continue
            small = target
            if output.shape[2:] != target.shape[2:]:
                small = F.interpolate(target.float(), output.shape[2:], mode="nearest-exact")
            part = weight * self.loss(output.float(), small)
            total = part if total is None else total + part
        assert total is not None  # the weights are not all 0
        return total
