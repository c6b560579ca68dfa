"""Real timing processes on tiny nets: limits, failures, and every installed peer end to end."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.timing import BenchResult, Extra, bench_layers
from fewer.timing.process import OwnProcess
from fewer.timing.runtimes import Job, load
from fewer.verbs.bench import bench
from tests.timing.subjects import Broken, Dying, Limits, Nested, Sleeper, tiny_net

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@pytest.fixture(scope="module")
def everything():
    """All peers but torch.compile, and extras of each kind, in one bench at one thread."""
    extra = {
        "limits": Limits(),
        "sleep": Extra(Sleeper(0.02), "bf16"),
        "closure": lambda x: X.mean() + 0 * x.mean(),
        "dying": Dying(),
    }
    peers = "torch,onnxruntime,openvino"
    return bench(tiny_net(), X, vs=peers, threads=[1], rounds=3, extra=extra)


@pytest.mark.parametrize(
    ("name", "package", "bound"),
    [
        ("torch-fp32", "torch", 1e-6),
        ("torch-bf16", "torch", 5e-2),
        ("onnxruntime-fp32", "onnxruntime", 1e-5),
        ("onnxruntime-int8", "onnxruntime", 0.3),
        ("openvino-fp32", "openvino", 1e-5),
        ("openvino-bf16", "openvino", 5e-2),
        ("openvino-int8", "nncf", 0.3),
    ],
)
def test_every_installed_peer_runs_and_answers_alike(everything, name, package, bound):
    row = everything.row(name)
    if importlib.util.find_spec(package) is None:
        assert (row.status, row.reason) == ("skipped", "pip install fewer[deploy]")
        return
    if name == "openvino-bf16" and row.status == "failed":
        assert "this CPU runs OpenVINO's bf16 models in" in row.reason
        return
    assert row.status == "ok", row.reason
    assert len(row.wall_ms) == len(row.cpu_ms) == 3 and min(row.wall_ms) > 0
    assert row.own_process and 20e6 < row.memory_bytes < 3e9
    assert 0 <= row.relative_error < bound
    if name.endswith("int8"):
        assert "quantization" in row.note


def test_a_runtime_is_timed_without_torch_in_its_process(everything):
    if everything.row("onnxruntime-fp32").status != "ok":
        pytest.skip("onnxruntime is not installed")
    assert everything.row("onnxruntime-fp32").memory_bytes < 0.7 * everything.row("torch-fp32").memory_bytes


def test_sleep_is_wall_time_but_no_cpu_time(everything):
    row = everything.row("sleep")
    assert 19.5 < row.wall.median < 60 and row.cpu.median < 5


def test_what_cannot_be_sent_is_timed_here_and_says_so(everything):
    row = everything.row("closure")
    assert row.status == "ok" and not row.own_process and row.memory_bytes is None
    assert everything.row("limits").own_process


def test_a_dying_process_is_a_row(everything):
    row = everything.row("dying")
    assert row.status == "failed" and "still at home" in row.reason


def test_the_json_of_a_real_bench_comes_back(everything):
    assert BenchResult.from_json(everything.to_json()) == everything
    assert everything.environment["python"] and everything.environment["pinned"] in (True, False)


def limits(threads, tmp_path):
    import pickle

    import numpy as np

    np.savez(tmp_path / "inputs.npz", **{"0": X.numpy()})
    job = Job("extra", "fp32", threads, str(tmp_path / "inputs.npz"), payload=pickle.dumps(Limits()))
    handle = OwnProcess(job, tmp_path / "log")
    try:
        about, (outputs,) = handle.about(tmp_path)
    finally:
        handle.close()
    return about, outputs


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin a process to CPUs")
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.skipif(CPUS < 2, reason="one CPU"))])
def test_the_limits_hold_in_the_process(threads, tmp_path):
    about, (torch_threads, cpus, environment, process) = limits(threads, tmp_path)
    assert torch_threads == cpus == environment == about["cpus"] == threads
    assert process != os.getpid()
    assert len(os.sched_getaffinity(0)) == CPUS  # ours is as it was


def test_a_closed_process_is_gone(tmp_path):
    _, outputs = limits(1, tmp_path)
    for _ in range(50):
        try:
            os.kill(int(outputs[3]), 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the timing process is still there")


@pytest.mark.parametrize("rest", ["fp32", "bf16"])
def test_a_file_of_a_run_is_timed_as_it_is_loaded(rest, tmp_path):
    """Layers that are not integers run in the precision of the run, not in the one that the runtime prefers."""
    import numpy as np
    import torch

    from fewer.runtimes.export import to_onnx
    from fewer.runtimes.session import runs_bf16
    from fewer.timing.runtimes import load

    pytest.importorskip("openvino")
    if rest == "bf16" and not runs_bf16("openvino"):
        pytest.skip("this CPU has no bf16")
    path, inputs = tmp_path / "model.onnx", tmp_path / "inputs.npz"
    example = torch.zeros(1, 8)
    path.write_bytes(to_onnx(torch.nn.Linear(8, 8).eval(), example).SerializeToString())
    np.savez(inputs, **{"0": example.numpy()})
    loaded = load(Job("openvino", "int8", 1, str(inputs), path=str(path), rest=rest))
    assert loaded.note.endswith(f"run in {rest}")


def test_a_model_that_raises_is_one_sentence():
    with pytest.raises(FewerError, match="does not run on this input in torch: ValueError: the layer is broken"):
        bench(Broken(), X, vs="torch-fp32", threads=[1], rounds=1)


def test_the_timing_module_imports_without_torch():
    code = "import sys, fewer.timing.worker, fewer.timing.int8, fewer.timing.runtimes; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_compile_freezes_and_passes_the_input(monkeypatch, tmp_path):
    import numpy as np
    import torch._inductor.config as settings

    np.savez(tmp_path / "inputs.npz", **{"0": X.numpy()})
    seen = []
    monkeypatch.setattr(torch, "compile", lambda model: lambda x: (seen.append(torch.is_grad_enabled()), model(x))[1])
    before, threads = settings.freezing, torch.get_num_threads()
    try:
        model = tiny_net()
        loaded = load(Job("compile", "fp32", threads, str(tmp_path / "inputs.npz"), target=model))
        (outputs,) = loaded.arrays(loaded.call())
        assert settings.freezing and set(seen) == {False}
    finally:
        settings.freezing = before
    torch.testing.assert_close(torch.from_numpy(outputs), model(X).detach())


def test_layers_of_a_net_with_children_and_own_work():
    x = torch.randn(3, 4, 16)
    result = bench_layers(Nested(), x, rounds=5, quick=True)
    layers = {layer.name: layer for layer in result.layers}
    assert set(layers) == {"(model)", "blocks.0", "blocks.1", "conv"}
    assert layers["blocks.0"].flops == 2 * 3 * 4 * 16 * 32
    assert layers["conv"].flops == 2 * (3 * 8 * 14) * (2 * 3) and layers["conv"].kind == "Conv1d 3"
    assert layers["blocks.0"].bytes == 4 * (3 * 4 * 16 + 3 * 4 * 32 + 16 * 32 + 32)
    assert layers["(model)"].own_ms > 2.9 and layers["(model)"].flops is None
    assert sum(layer.share for layer in result.layers) == pytest.approx(1.0)
    assert layers["(model)"].share > 0.5
    assert result.peaks["fp32"] > 1e8 and result.bandwidth > 1e8
    groups = {layer.name: layer for layer in result.grouped()}
    assert groups["blocks.*"].count == 2 and groups["blocks.*"].flops == 2 * layers["blocks.0"].flops
    assert json.loads(result.to_json())["layers"]


def test_layers_of_a_model_that_fails():
    with pytest.raises(FewerError, match="the layer is broken"):
        bench_layers(Broken(), X, rounds=1, quick=True)
