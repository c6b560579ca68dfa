"""What a method may know of a pool, and what may be chosen from it."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.selection.pool import Pool, Selection, blocks

X = np.arange(12, dtype=np.float16).reshape(6, 2)


def test_labelled_and_excluded_rows_are_no_candidates_and_only_labelled_ones_are_seen():
    pool = Pool(X, labelled=np.array([4, 1, 1]), excluded=np.array([4, 0]))
    assert pool.candidates().tolist() == [2, 3, 5]
    assert pool.usable().tolist() == [1, 2, 3, 5]
    assert pool.seen().tolist() == [1]  # the vector of 4 means nothing
    assert pool.labelled.tolist() == [1, 4]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"features": np.zeros((0, 2))}, r"got the shape \(0, 2\)"),
        ({"features": np.zeros(3)}, "one row per image"),
        ({"features": X, "labelled": np.array([6])}, "has 6 images, so it has no row"),
        ({"features": X, "excluded": np.array([-1])}, "of excluded"),
        ({"features": X, "predictions": np.zeros((5, 3))}, "predictions are for 5 images, the pool has 6"),
        ({"features": X, "foreground": np.zeros(7)}, "foreground are for 7 images"),
    ],
)
def test_what_does_not_fit_the_pool_is_told(values, says):
    with pytest.raises(FewerError, match=says):
        Pool(**values)


def test_uncertainty_is_on_a_scale_to_one_and_unknown_counts_as_sure():
    assert Pool(X).unsure() is None
    given = Pool(X, uncertainty=np.array([0, 1, 4, np.nan, 2, 0.0])).unsure()
    assert given is not None and given.tolist() == [0, 0.25, 1, 0, 0.5, 0]
    predictions = np.array([[1, 0], [0.5, 0.5], [0.9, 0.1], [np.nan, np.nan], [1, 0], [1, 0]])
    found = Pool(X, predictions=predictions).unsure()
    wanted = -(0.9 * np.log(0.9) + 0.1 * np.log(0.1)) / np.log(2)
    assert found is not None
    np.testing.assert_allclose(found, [0, 1, wanted, 0, 0, 0], atol=1e-12)
    assert not Pool(X, uncertainty=np.zeros(6)).unsure().any()  # type: ignore[union-attr]


def test_blocks_give_every_vector_once_and_in_order():
    rows = np.array([5, 0, 3])
    parts = list(blocks(X, rows, size=2))
    assert [start for start, _ in parts] == [0, 2]
    whole = np.concatenate([part for _, part in parts])
    assert whole.dtype == np.float32 and np.array_equal(whole, X[rows])


def test_what_a_method_does_not_say_is_filled_in():
    found = Selection.of([3, 1], "far from all others", scores=[2.0, 1.0])
    assert found.why == ("far from all others",) * 2 and found.groups.tolist() == [-1, -1]
    assert found.scores.tolist() == [2, 1] and found.stands_for.tolist() == [0, 0]
