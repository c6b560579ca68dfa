"""What runs beside integers: one precision for all layers that are not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fewer.engine import runtime_rest
from fewer.engine.runtime_rest import rest_precision


def work(offered=("fp32", "bf16", "int8"), bf16_ms=1.0, fp32_ms=2.0):
    rows = [
        {"runtime": "openvino", "precision": "fp32", "ms": fp32_ms},
        {"runtime": "openvino", "precision": "bf16", "ms": bf16_ms},
        {"runtime": "onnxruntime", "precision": "fp32", "ms": 0.5},
    ]
    chosen = SimpleNamespace(rows=rows)
    return SimpleNamespace(
        settings=SimpleNamespace(precisions=offered), prepared=SimpleNamespace(shared={"runtime": chosen})
    )


@pytest.mark.parametrize(
    ("precisions", "facts", "expected"),
    [
        ({"a": "int8", "b": "fp32"}, {}, "bf16"),  # the layers left in fp32 would cost time for nothing
        ({"a": "int8", "b": "int8"}, {}, "bf16"),  # also what belongs to no layer
        ({"a": "fp32", "b": "fp32"}, {}, "fp32"),
        ({"a": "bf16", "b": "fp32"}, {"offered": ("fp32",)}, "bf16"),
        ({"a": "int8", "b": "fp32"}, {"offered": ("fp32", "int8")}, "fp32"),  # the user did not allow it
        ({"a": "int8", "b": "fp32"}, {"bf16_ms": 3.0}, "fp32"),  # it was measured to be slower here
        ({"a": "int8", "b": "fp32"}, {"bf16_ms": None}, "bf16"),
    ],
)
def test_layers_beside_integers_run_in_bf16_where_that_is_allowed_and_quicker(monkeypatch, precisions, facts, expected):
    monkeypatch.setattr(runtime_rest, "runs_bf16", lambda runtime: runtime == "openvino")
    assert rest_precision(work(**facts), "openvino", precisions) == expected
    assert rest_precision(work(**facts), "onnxruntime", precisions) == "fp32"
