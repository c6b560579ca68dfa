"""Pictures with the outlines of masks."""

from __future__ import annotations

import numpy as np


def test_outlines_are_drawn_where_the_mask_ends() -> None:
    from fewer.tasks.segment.overlay import overlay

    image = np.zeros((1, 32, 32), np.float32)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 1
    drawn, plain = overlay(image, mask), overlay(image, np.zeros_like(mask))
    assert drawn.dtype == np.uint8 and drawn.shape == plain.shape and drawn.shape[-1] == 3
    assert (drawn != plain).any()
