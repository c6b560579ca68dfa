"""What stands beside curves is checked when the file is read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from core_curves import smooth_curves

import fewer
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.core.run import RunFolder

TOKENS = {"name": "t", "tokens": 4, "protected": 1, "amounts": {"b": 1}, "distortion": 0.0, "tried": []}


@pytest.fixture
def run(tmp_path):
    with RunFolder.create(tmp_path / "run") as folder:
        folder.write_curves(smooth_curves(3, 5))
    return tmp_path / "run"


def _with(run, **facts) -> None:
    path = run / "curves.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays.pop("header").tobytes())
    header["meta"] = facts
    np.savez(path, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("settings", {"power": [1]}), ("settings", {"power": -1}), ("settings", []), ("settings", 3),
        ("tokens", 3), ("tokens", {}), ("tokens", TOKENS | {"amounts": {"b": -1}}), ("tokens", TOKENS | {"tried": 0}),
        ("tokens", {k: v for k, v in TOKENS.items() if k != "protected"}), ("tokens", TOKENS | {"tokens": 2**63}),
        ("device", None), ("device", {"device": {"threads": 0, "cpu": "x"}}), ("device", {"against_ms": "1"}),
        ("reorderings", None), ("reorderings", [{}]), ("reorderings", [{"order": [1.5]}]), ("state", 3),
    ],
)  # fmt: skip
def test_facts_of_a_wrong_kind_are_refused(run, name, value) -> None:
    _with(run, **{name: value})
    with pytest.raises(FewerError, match=f"curves.npz is damaged: {name}.*; sense the model again") as told:
        fewer.plan(run, "weights=60%")
    assert "\n" not in str(told.value)


def test_facts_of_another_version_are_kept(run) -> None:
    facts = {"settings": {"power": 0, "new": [1]}, "tokens": TOKENS | {"more": 1}, "device": {"x": 1}, "later": None}
    _with(run, **facts)
    assert CurveSet.load(run / "curves.npz").meta == facts
