"""A run's file for a runtime: kept, opened again without exporting, and refused where it is not that of the run."""

from __future__ import annotations

import json
import warnings

import pytest
import torch

import fewer
from fewer.core.errors import FewerError
from fewer.engine import runtime_load
from fewer.models.artefact import save_artefact
from fewer.runtimes import folder as folders
from fewer.runtimes.module import RuntimeModule
from fewer.runtimes.names import EXPORTED, missing
from tests.runtimes.networks import NETWORKS

RUNTIME = next((n for n in EXPORTED if missing(n) is None), None)
pytestmark = pytest.mark.skipif(RUNTIME is None, reason="neither onnxruntime nor OpenVINO is installed")
X = torch.randn(16, 3, 33, 33, generator=torch.Generator().manual_seed(1))


def network():
    return NETWORKS["convolutions without normalisation"]()[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runtimes") / "run"
    settings = fewer.Settings(
        calibration=8, sensing=4, heldout=4, additivity=0, baselines=(), workers=1, precisions=("fp32", "int8")
    )
    fewer.compress(network(), X, "weights=80%", settings=settings, out=path)
    return path


def test_the_file_is_made_once_and_answers_as_the_model(run, monkeypatch):
    plain = fewer.load(run, network)
    made = fewer.load(run, network, runtime=RUNTIME, example=X[:1])
    assert isinstance(made, RuntimeModule) and (run / folders.RUNTIME_FILE).is_file()
    monkeypatch.setattr(runtime_load.PlannedGraph, "of", None)  # nothing is exported again
    again = fewer.load(run, network, runtime=RUNTIME)
    with torch.no_grad():
        expected = plain(X[:3])
        for model in (made, again):
            assert float((model(X[:3]) - expected).norm() / expected.norm()) < 1e-4


def test_auto_gives_a_model_that_answers_alike(run):
    with torch.no_grad():
        expected = fewer.load(run, network)(X[:2])
        got = fewer.load(run, network, runtime="auto", example=X[:1])(X[:2])
    assert float((got - expected).norm() / expected.norm()) < 0.1


def test_a_missing_runtime_is_one_sentence_and_the_model_runs_in_torch(run, monkeypatch):
    monkeypatch.setattr(runtime_load, "missing", lambda name: "it is not installed: pip install 'fewer[deploy]'")
    with pytest.warns(UserWarning, match=r"is not installed: .*pip install .*runs in torch"):
        model = fewer.load(run, network, runtime=RUNTIME)
    assert not isinstance(model, RuntimeModule)


def test_a_file_of_another_model_is_not_opened(run, monkeypatch):
    fewer.load(run, network, runtime=RUNTIME, example=X[:1])
    path = run / folders.RUNTIME_FILE
    before = path.read_bytes()
    try:
        path.write_bytes(before + b"\0")
        with pytest.warns(UserWarning, match="was not made from the model beside it"):
            fewer.load(run, network, runtime=RUNTIME)
    finally:
        path.write_bytes(before)


def test_damaged_records_and_wrong_names_are_one_sentence(run):
    with pytest.raises(FewerError, match="unknown runtime 'openvin'"):
        fewer.load(run, network, runtime="openvin")
    fewer.load(run, network, runtime=RUNTIME, example=X[:1])
    record = run / "runtime.json"
    before = record.read_text()
    try:
        record.write_text(json.dumps({"runtime": "openvino"}))
        with pytest.raises(FewerError, match="damaged"):
            folders.read_record(run)
    finally:
        record.write_text(before)


class Writes(torch.nn.Module):
    """Scales the very tensor that it is given."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = torch.nn.Linear(8, 4)

    def forward(self, x):
        return self.body(x.mul_(0.5).add_(1.0))


def test_auto_compares_runtimes_on_one_input_where_a_model_writes_into_it(tmp_path):
    save_artefact(tmp_path / "run", Writes().eval(), [], {"kind": "object", "class": "Writes"})
    example = torch.randn(1, 8)
    before = example.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # none is left out as one that answers differently
        model = fewer.load(tmp_path / "run", Writes, runtime="auto", example=example)
    assert torch.equal(example, before)
    with torch.no_grad():
        assert torch.allclose(model(example.clone()), Writes()(before.clone()), atol=1e-2)
