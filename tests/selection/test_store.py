"""The file of vectors grows and keeps what it has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.selection.store import VectorFile


@dataclass
class Case:
    dtype: str
    error: float


@pytest.mark.parametrize("case", [Case("float32", 0), Case("float16", 1e-3)])
def test_the_vector_file_grows_and_keeps(tmp_path, case):
    rng = np.random.default_rng(0)
    file = VectorFile(tmp_path / "v", 5, case.dtype)
    first, second = rng.normal(size=(3, 5)), rng.normal(size=(4, 5))
    file.reserve(3)
    file.write(0, first)
    file.reserve(7)
    file.write(3, second)
    np.testing.assert_allclose(file.read(7), np.vstack([first, second]), rtol=max(case.error, 1e-7), atol=1e-3)
    with pytest.raises(FewerError, match="holds 7 vectors, 8 are needed"):
        file.read(8)
    with pytest.raises(FewerError, match="do not fit"):
        file.write(0, np.zeros((1, 4)))
