"""``fewer profile``, ``fewer export`` and budgets in time on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fewer.cost import profile as profile_module
from fewer.engine import deploy as deploying
from fewer.engine import runtimes
from fewer.kernels import native
from tests.cli.test_bad_input import assert_one_sentence
from tests.fake_device import FakeWatch


@pytest.fixture(autouse=True)
def device(monkeypatch, tmp_path):
    if not native.available():
        pytest.skip("the native library is not built")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(profile_module, "Stopwatch", FakeWatch)
    monkeypatch.setattr(deploying, "Stopwatch", FakeWatch)
    monkeypatch.setattr(runtimes, "missing", lambda name: "left out here")  # the fake device has kernels only


def test_a_profile_is_shown_written_and_used(fewer, compress):
    told = fewer("profile", "net.py:net", "--threads=1", "--out=laptop.json", "--name=laptop", "--pattern=block:16x4")
    assert told.code == 0 and "milliseconds of one layer" in told.out and "wrote laptop.json" in told.out
    assert json.loads(Path("laptop.json").read_text())["name"] == "laptop"
    told = fewer("profile", "net.py:net", "--threads=1", "--pattern=block:16x4", "--json")
    shown = json.loads(told.out)
    assert "(0 new)" in shown["notes"][0] and {"layer", "count", "as it came"} <= set(shown["layers"][0])
    assert_one_sentence(fewer("profile", "net.py:net", "--out=laptop.json"), "--overwrite")
    words = ["--budget=latency=0.5x", "--pattern=block:16x4", "--precisions=int8", "--threads=1"]
    told = compress("net.py:net", *words, "--profile=laptop.json")
    assert told.code in (0, 3) and "latency=0.5x" in told.out
    plan = json.loads(Path("run/plan.json").read_text())
    tried = json.loads(Path("run/report.json").read_text())["latency"]["plans"]
    # the first plan keeps to the budget by its prediction; later ones are corrected by what was measured
    assert tried[0][0] <= 0.5 * plan["dense"]["latency"]
    assert "Time, predicted and measured" in Path("run/report.html").read_text()
    told = fewer("plan", "run", "--budget=latency=0.6x")
    assert told.code == 0 and "latency" in told.out


def test_a_run_is_exported(fewer, compress):
    assert compress("net.py:net", "--budget=weights=60%").code == 0
    told = fewer("export", "run", "--to=torch")
    assert told.code == 0 and "lost on the way:" in told.out and Path("run/model.pt2").is_file()
    assert_one_sentence(fewer("export", "run", "--to=torch"), "--overwrite")
    assert fewer("export", "run", "--to=onnx", "--dry-run").code == 0 and not Path("run/model.onnx").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["profile", "net.py:net", "--deploy-batch=0"], "deploy_batch must be at least 1"),
        (["profile", "net.py:net", "--pattern=unstructured"], "only block patterns become faster"),
        (["profile", "net.py:net", "--precisions=int9"], "did you mean 'int8'"),
        (["profile", "net.py:nett"], "net"),
        (["export", "nowhere"], "nowhere"),
        (["compress", "net.py:net", "--images=photos", "--budget=latency=2x"], "more than the dense model"),
        (["compress", "net.py:net", "--images=photos", "--budget=latency=0.01x", "--out=run"], "smallest reachable"),
        (["compress", "net.py:net", "--images=photos", "--budget=latency=5ms", "--profile=no.json"], "no.json"),
    ],
)
def test_bad_input_is_one_sentence(fewer, words, says):
    told = fewer(*words)
    assert told.code == 2 and says in told.err and "Traceback" not in told.err
    assert told.err.strip().splitlines()[-1].startswith("error: ")
