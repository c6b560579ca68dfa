"""Rendered pages of the fixtures, each made once for the whole folder."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import report_fixtures

from fewer.reports.compression.html import render


@cache
def _page(name: str) -> str:
    return render(report_fixtures.report(name))


@pytest.fixture(params=sorted(report_fixtures.FIXTURES))
def page(request: pytest.FixtureRequest) -> str:
    """The page of every fixture in turn."""
    return _page(request.param)


@pytest.fixture
def page_of():
    """Render a fixture by name."""
    return _page
