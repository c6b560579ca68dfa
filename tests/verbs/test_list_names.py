"""Lists by name in Python."""

from __future__ import annotations

import pytest

import fewer
from fewer.core.errors import FewerError


def test_a_list_and_a_misspelt_one() -> None:
    assert "lamp" in fewer.list_names("allocators")
    with pytest.raises(FewerError, match="did you mean 'presets'"):
        fewer.list_names("preset")
