"""Pictures with the outlines of masks."""

from __future__ import annotations

import numpy as np

from fewer.tasks.segment.overlay import COLOURS, compared, legend, overlay, side_by_side


def test_outlines_are_drawn_where_the_mask_ends() -> None:
    image = np.zeros((1, 32, 32), np.float32)
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 1
    drawn, plain = overlay(image, mask), overlay(image, np.zeros_like(mask))
    assert drawn.dtype == np.uint8 and drawn.shape == plain.shape and drawn.shape[-1] == 3
    assert (drawn != plain).any()


def test_image_reference_and_prediction_of_the_same_slice() -> None:
    image = np.random.default_rng(0).random((1, 4, 32, 32)).astype(np.float32)
    truth, guess = np.zeros((4, 32, 32), np.uint8), np.zeros((4, 32, 32), np.uint8)
    truth[2, 4:28, 4:28] = 1
    guess[0, 10:12, 10:12] = 2
    drawn = compared(image, guess, truth, side=64)
    assert drawn.shape == (64, 3 * 64 + 12, 3)
    plain, reference, prediction = (drawn[:, start : start + 64] for start in (0, 70, 140))
    assert (plain == prediction).all()  # the prediction is empty in the slice that shows most
    assert (reference == COLOURS[0]).all(-1).any() and not (reference == COLOURS[1]).all(-1).any()


def test_every_class_has_a_colour() -> None:
    assert len(legend([f"class {i}" for i in range(8)])) == 8


def test_panels_stand_beside_each_other() -> None:
    row = side_by_side([np.zeros((4, 5, 3), np.uint8), np.full((6, 2, 3), 9, np.uint8)])
    assert row.shape == (6, 5 + 6 + 2, 3)
    assert (row[4:, :5] == 255).all() and (row[:, 11:] == 9).all()
