"""Orientation-aware average precision of ONCE (Mao et al., NeurIPS 2021 datasets and benchmarks)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fewer.tasks.detect3d.boxes import limit_angle
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.metrics.curve import Case, precision_curve
from fewer.tasks.detect3d.overlap import box_iou

__all__ = ["BANDS", "once_ap"]

BANDS: dict[str, tuple[float, float]] = {
    "overall": (0, np.inf),
    "0-30m": (0, 30),
    "30-50m": (30, 50),
    "50m-": (50, np.inf),
}

_OVERLAPS = {"pedestrian": 0.3, "cyclist": 0.5}


def once_ap(
    truths: Sequence[Objects], found: Sequence[Objects], name: str, *, overlap: float | None = None
) -> dict[str, float]:
    """AP of one class by distance, in percent: a box that points more than 90 degrees away does not match.

    Precision is averaged at 50 steps of recall. An object or a detection outside a band of distance does not count in
    it.

    Examples
    --------
    >>> box = np.array([[10, 0, 0, 4, 2, 1.5, 0.0]])
    >>> truth, turned = Objects(box, ("Car",)), Objects(box + [0, 0, 0, 0, 0, 0, 3], ("Car",), np.array([0.9]))
    >>> once_ap([truth], [turned], "Car")["overall"]
    0.0
    """
    least = _OVERLAPS.get(name.lower(), 0.7) if overlap is None else overlap
    out = {}
    for band, (near, far) in BANDS.items():
        cases = []
        for truth, guess in zip(truths, found, strict=True):
            t, f = truth.of([name]), guess.of([name])
            turn = np.abs(limit_angle(f.boxes[:, None, 6] - t.boxes[None, :, 6]))
            shared = box_iou(f.boxes, t.boxes) * (turn <= np.pi / 2)
            outside = [~((d >= near) & (d < far)) for d in (np.hypot(*o.boxes[:, :2].T) for o in (t, f))]
            scores = np.ones(len(f)) if f.scores is None else f.scores
            cases.append(Case(shared, scores, outside[0].astype(int), outside[1].astype(int)))
        out[band] = 100 * float(precision_curve(cases, least, 50)[1:].mean())
    return out
