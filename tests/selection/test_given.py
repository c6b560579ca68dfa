"""Vectors that a user brings along: rows in the order of the sorted paths, also when images came and went."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.selection.given import given_vectors

NAMES = ["b.png", "a.png", "c.png"]  # rows of a queue keep their places, whatever the order of names


def save(path: Path, values) -> Path:
    np.save(path / "v.npy", np.asarray(values))
    return path / "v.npy"


def test_each_row_gets_the_vector_of_its_own_image(tmp_path):
    found = given_vectors(save(tmp_path, [[1.0], [2.0], [3.0]]), NAMES, frozenset())
    assert found.vectors[:, 0].tolist() == [2, 1, 3] and not found.skipped


def test_an_image_that_is_gone_has_no_row_in_the_file(tmp_path):
    found = given_vectors(save(tmp_path, [[1.0], [3.0]]), NAMES, frozenset([0]))
    assert found.vectors[1:, 0].tolist() == [1, 3]


def test_rows_that_are_no_numbers_are_skipped_and_named(tmp_path):
    found = given_vectors(save(tmp_path, [[1.0, 0], [np.inf, 0], [3.0, np.nan]]), sorted(NAMES), frozenset())
    assert found.skipped == {1: "its features are NaN or infinite", 2: "its features are NaN or infinite"}


@pytest.mark.parametrize("values", [[[1.0], [2.0]], [1.0, 2.0, 3.0], np.zeros((3, 1, 1))])
def test_another_number_of_rows_is_told(tmp_path, values):
    with pytest.raises(FewerError, match="the pool has 3 images; it needs one row per image"):
        given_vectors(save(tmp_path, values), NAMES, frozenset())


def test_pickled_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "v.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(FewerError, match=r"v\.npy"):
        given_vectors(tmp_path / "v.npy", NAMES, frozenset())


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY\x01\x00\x10\x00{'descr': (      ", b"PK\x03\x04", b"x" * 300])
def test_features_that_are_no_array_are_refused(tmp_path, content):
    (tmp_path / "f.npy").write_bytes(content)
    with pytest.raises(FewerError, match=r"f\.npy") as error:
        given_vectors(tmp_path / "f.npy", ["a"], frozenset())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [np.array([["x"]]), np.array([[1j]]), np.zeros((2, 3)), np.zeros(3)])
def test_features_of_another_kind_are_refused(tmp_path, values):
    np.save(tmp_path / "f.npy", values)
    with pytest.raises(FewerError, match=r"f\.npy"):
        given_vectors(tmp_path / "f.npy", ["a"], frozenset())
