"""A plan for another runtime, from the budget to the file that is loaded again."""

from __future__ import annotations

import pytest
import torch

import fewer
from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.engine import runtimes
from fewer.engine.prepare import prepare
from fewer.engine.runtime_deploy import lowest
from fewer.engine.runtimes import Chosen
from fewer.engine.work import Work
from fewer.runtimes.module import RuntimeModule
from fewer.runtimes.names import EXPORTED, missing
from tests.runtimes.networks import NETWORKS

RUNTIME = next((n for n in reversed(EXPORTED) if missing(n) is None), None)
pytestmark = pytest.mark.skipif(RUNTIME is None, reason="neither onnxruntime nor OpenVINO is installed")
X = torch.randn(16, 3, 33, 33, generator=torch.Generator().manual_seed(1))


def network():
    return NETWORKS["subclassed convolutions with asymmetric padding"]()[0]


def settings(**changes) -> fewer.Settings:
    values = {
        "calibration": 8, "sensing": 2, "heldout": 4, "additivity": 0, "baselines": (), "workers": 1, "threads": 1,
        "precisions": ("fp32", "int8"), "sparsities": (0.5,),
    }  # fmt: skip
    return fewer.Settings(**{**values, **changes})


def test_from_a_budget_in_time_to_a_file_of_the_runtime(tmp_path):
    run = fewer.compress(network(), X, "latency=1s", settings=settings(runtime=RUNTIME), out=tmp_path / "run")
    facts = run.curves.meta["device"]
    assert facts["runtime"] == RUNTIME and facts["against"] in (*EXPORTED, "torch")
    assert {row["runtime"] for row in facts["runtimes"]} >= {"torch", RUNTIME}
    assert isinstance(run.fast, RuntimeModule)
    shown = {entry.name: entry for entry in run.report.verdict.quality}["latency in ms"]
    assert "the dense model with" in shown.note
    loaded = fewer.load(tmp_path / "run", network, runtime=RUNTIME)
    with torch.no_grad():
        expected = run.model(X[:3])
        for model in (run.fast, loaded):
            assert float((model(X[:3]) - expected).norm() / expected.norm()) < 0.1


def test_the_runtime_of_work_that_goes_on_is_the_one_that_is_asked_for(tmp_path, monkeypatch):
    chosen = Chosen("native", 1.0, "torch", 2.0)
    asked = []
    monkeypatch.setattr(runtimes, "choose_runtime", lambda work, budgets: asked.append(work) or chosen)
    net, kept = network(), tmp_path / "runtime.json"
    times = [Budget("latency", 0.5, True)]

    def settled(budgets=times, net=net, **changes):
        some = settings(**changes).for_metrics(["latency"])
        found = runtimes.settle_runtime(Work(prepare(net, X, some), some), budgets, kept)
        return len(asked), found.settings.runtime

    assert settled() == (1, "native") == settled(), "what was timed is found again"
    assert settled(runtime=RUNTIME)[0] == 2
    assert settled(deploy_batch=2)[0] == 3
    assert settled([Budget("latency", 0.6, True)])[0] == 4
    other = network()
    with torch.no_grad():
        next(other.parameters()).mul_(2)
    assert settled(net=other)[0] == 5 and settled(net=other)[0] == 5


def test_a_disturbed_timing_is_taken_again_and_one_that_is_fine_is_not():
    for values, enough, expected, calls in (
        ([3.0, 1.0, 0.5], 1.2, 1.0, 2),
        ([1.1, 0.5], 1.2, 1.1, 1),
        ([3.0, 2.5, 2.8, 0.1], 1.2, 2.5, 3),
    ):
        left = list(values)
        assert lowest(lambda left=left: left.pop(0), enough) == expected
        assert len(values) - len(left) == calls


def test_a_time_that_cannot_be_reached_is_refused_before_anything_is_sensed(monkeypatch):
    from fewer.engine import sense

    monkeypatch.setattr(sense, "collect_moments", None)  # would be called by sensing
    with pytest.raises(FewerError, match="the smallest reachable latency is"):
        fewer.compress(network(), X, "latency=1us", settings=settings(runtime=RUNTIME))


def test_torch_is_no_runtime_to_plan_for_and_shares_need_a_measurement():
    with pytest.raises(FewerError, match="in plain torch no option is faster"):
        fewer.compress(network(), X, "latency=0.5x", settings=settings(runtime="torch"))
    with pytest.raises(FewerError, match="needs a budget in latency"):
        fewer.compress(network(), X, "weights=50%", settings=settings(runtime=RUNTIME))
