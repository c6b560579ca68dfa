"""The demo at its smallest size, on the simulator and, where TenSEAL is there, encrypted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.data import digits
from fewer.private.demo import demo
from fewer.private.seal import has_seal

pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def test_digits_are_real_and_split_without_overlap() -> None:
    (images, labels), (held, names) = digits.real_digits(3)
    assert images.shape == (1297, 1, 8, 8) and held.shape == (500, 1, 8, 8)
    assert sorted(np.unique(labels)) == sorted(np.unique(names)) == list(range(10))
    again = digits.real_digits(3)[1][0]
    assert np.array_equal(held, again) and not np.array_equal(held, digits.real_digits(4)[1][0])


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digits, "package_folder", lambda _: None)
    with pytest.raises(FewerError, match="pip install scikit-learn"):
        digits.real_digits()


@pytest.mark.parametrize("simulated", [True, False])
def test_the_demo_ends_in_a_page_that_says_what_is_safe_and_what_is_modelled(tmp_path: Path, simulated: bool) -> None:
    if not simulated and not has_seal():
        pytest.skip('encrypted inference needs pip install "fewer[private]"')
    done = demo(tmp_path, steps=25, encrypted=2, seconds=0.1, simulated=simulated)
    page, kept = done.page.read_text(), json.loads((tmp_path / "demo.json").read_text())
    assert "128 bits" in page and "Modelled:" in page and "levels left" in page
    assert ("Nothing was encrypted" in page) == simulated
    n = done.numbers
    assert kept["data"]["same_class"] == n["same_class"] == 1.0 and n["encrypted"] is not simulated
    assert n["after"]["he"] <= 0.5 * n["before"]["he"] and ("ms" in n) is not simulated
    assert n["difference"] < 1e-2 and n["network"] > 0.5
    assert any("simulated" in line for line in done.lines()) == simulated
