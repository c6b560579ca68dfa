"""Names of peers, as typed."""

from __future__ import annotations

import importlib.util

import pytest

from fewer.core.errors import FewerError
from fewer.timing.peers import DEFAULT_PEERS, PEERS, missing_extra, parse_peers


def names(given):
    return [peer.name for peer in parse_peers(given)]


def test_groups_and_commas_and_order():
    assert names("openvino-int8,onnxruntime") == ["torch-fp32", "onnxruntime-fp32", "onnxruntime-int8", "openvino-int8"]
    assert names(["Torch-FP32", " openvino-bf16 "]) == ["torch-fp32", "openvino-bf16"]
    assert names(None) == list(DEFAULT_PEERS)
    assert names("all") == list(PEERS)


def test_the_reference_is_always_there():
    assert names("openvino-int8")[0] == "torch-fp32"
    assert names([]) == ["torch-fp32"]


@pytest.mark.parametrize(("typed", "meant"), [("onnxruntme", "onnxruntime"), ("openvino-int9", "openvino-int8")])
def test_a_misspelt_peer_names_the_nearest(typed, meant):
    with pytest.raises(FewerError, match=f"did you mean '{meant}'"):
        parse_peers(typed)


def test_missing_packages_name_the_extra(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "nncf" else found(name))
    assert missing_extra(PEERS["openvino-int8"]) == "pip install fewer[deploy]"
    assert missing_extra(PEERS["torch-bf16"]) is None
