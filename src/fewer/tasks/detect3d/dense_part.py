"""The part of a detector that every runtime knows: convolutions from above and the first heads, on a grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fewer.models.running import evaluating
from fewer.tasks.detect3d.networks import Detector, DetectorConfig
from fewer.tasks.part import RuntimePart

__all__ = ["DensePart", "dense_part", "made_up_scan"]

NOTE = (
    "of a detector, the dense 2-D part alone: the convolutions from above and the heads, from the image of features to "
    "the raw head tensors. Cells, sparse convolutions, a second stage and the boxes themselves stay with torch"
)

_POINTS = 20_000
"""Of a made-up scan: about as many as KITTI's camera sees."""


class DensePart(nn.Module):
    """Backbone and heads from above, as a network of their own.

    Parameters
    ----------
    detector
        Its parts are shared, not copied.

    Examples
    --------
    >>> from fewer.tasks.detect3d.networks import build_network, small_config
    >>> part = DensePart(build_network(small_config("pointpillars", ("Car",))))
    >>> sorted(part(torch.zeros(1, 32, 128, 128)))
    ['box_preds', 'cls_preds', 'dir_cls_preds']
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.backbone_2d, self.dense_head = detector.backbone_2d, detector.dense_head

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Image of features (samples, channels, y, x) to raw head tensors."""
        return self.dense_head(self.backbone_2d(image))


def made_up_scan(config: DetectorConfig, seed: int = 0) -> Tensor:
    """A scan of random points near the road, for when none is at hand.

    Examples
    --------
    >>> from fewer.tasks.detect3d.networks import small_config
    >>> made_up_scan(small_config("second")).shape
    torch.Size([20000, 4])
    """
    rng = np.random.default_rng([22, seed])
    low, high = np.array(config.reach[:3]), np.array(config.reach[3:])
    points = np.zeros((_POINTS, config.features))
    # as with a scanner, more of them near the middle of the nearer edge than far away
    near = rng.random((_POINTS, 3)) ** (2, 1, 2)
    points[:, :3] = low + near * (high - low)
    points[:, 3:] = rng.random((_POINTS, config.features - 3))
    return torch.from_numpy(points.astype(np.float32))


def dense_part(detector: Detector, scans: Sequence[Tensor] = ()) -> RuntimePart:
    """The dense part of a detector, with the images that scans make of it.

    Parameters
    ----------
    detector
        In evaluation mode.
    scans
        Each (points, features); a made-up one where there is none.
    """
    given = list(scans) or [made_up_scan(detector.config)]
    seen: list[Tensor] = []
    hook = detector.backbone_2d.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    try:
        with evaluating(detector), torch.no_grad():
            for scan in given:
                detector(scan)
    finally:
        hook.remove()
    return RuntimePart(DensePart(detector), tuple(seen), (given[0],), NOTE)
