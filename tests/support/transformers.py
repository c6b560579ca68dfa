"""The package transformers for tests that build models with it."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["need_transformers"]


def need_transformers() -> Any:
    """Import transformers as fewer does, also beside a torchvision that does not fit torch; or skip the test."""
    pytest.importorskip("transformers", reason="transformers is not installed; it comes with the extra fewer[tune]")
    from fewer.models.adapters import import_transformers

    return import_transformers()
