"""Shared by the kernel benchmarks: interleaved timing, the environment stamp, CSV files, and the dense peers."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fewer.core.stamp import cpu_name, cpuinfo
from fewer.kernels import native

RESULTS = Path(__file__).parent / "results"
Runnable = Callable[[], object]


def interleaved(runs: Mapping[str, Runnable], rounds: int, threads: int) -> dict[str, np.ndarray]:
    """Milliseconds of each run in each round, taken in turns, in another order each round.

    One thread: processor time of the process, so that other jobs are not counted. More: wall time. A pause comes
    before each run, so that the spinning threads of one peer do not steal time from the next; as the pause lets the
    run's own threads fall asleep, one call wakes them and the calls after it are timed, back to back as the layers
    of a network are.
    """
    clock = time.process_time_ns if threads == 1 else time.perf_counter_ns
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
        run()
    order, shuffled = list(runs), random.Random(0)
    for _ in range(rounds):
        shuffled.shuffle(order)
        for name in order:
            run, calls, spent = runs[name], 0, 0
            if threads > 1:
                time.sleep(0.01)
                run()
            while calls == 0 or (threads > 1 and spent < 2_000_000):
                start = clock()
                run()
                spent += clock() - start
                calls += 1
            taken[name].append(spent / calls / 1e6)
    return {name: np.array(times) for name, times in taken.items()}


def ratio(taken: Mapping[str, np.ndarray], slow: str, fast: str) -> float:
    """How many times faster ``fast`` is: the ratio of medians."""
    return float(np.median(taken[slow]) / np.median(taken[fast]))


def best_of(taken: Mapping[str, np.ndarray], names: list[str]) -> str:
    """The fastest of several runs."""
    return min((n for n in names if n in taken), key=lambda n: float(np.median(taken[n])))


def block_mask(rows: int, cols: int, height: int, width: int, sparsity: float, seed: int) -> torch.Tensor:
    """A random mask with an exact share of pruned blocks."""
    down, across = rows // height, cols // width
    order = torch.randperm(down * across, generator=torch.Generator().manual_seed(seed))
    grid = (order >= round(sparsity * down * across)).reshape(down, across)
    return grid.repeat_interleave(height, 0).repeat_interleave(width, 1)


def environment(**more: object) -> dict[str, object]:
    """What the numbers depend on."""
    names = ("torch", "numpy", "onnxruntime", "openvino", "nncf")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "-"
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": cpu_name(cpuinfo()),
        "cores": os.cpu_count(),
        "load at start": f"{os.getloadavg()[0]:.1f}",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "-"),
        "isa": native.library().isa,
        "python": platform.python_version(),
        **versions,
        **more,
    }


class Table:
    """A CSV file, environment first as comment lines; written row by row, so an interrupted run keeps its rows."""

    def __init__(self, name: str, fields: list[str], stamp: Mapping[str, object], folder: Path = RESULTS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.fields = folder / f"{name}.csv", fields
        with self.path.open("w", newline="") as file:
            for key, value in stamp.items():
                file.write(f"# {key}: {value}\n")
            csv.DictWriter(file, fields).writeheader()

    def add(self, **row: object) -> None:
        rounded = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()}
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self.fields).writerow(rounded)


def peaks(threads: int = 1) -> dict[str, float]:
    """Billions of operations per second of the dot products on registers, by precision; the best of several tries."""
    lib = native.library()
    found = {}
    for name, mode in native.MODES.items():
        best = 0.0
        for _ in range(7):
            start = time.process_time_ns()
            done = lib.peak(mode, 2_000_000)
            best = max(best, done / (time.process_time_ns() - start))
        found[name] = best * threads
    return found


# --- peers -----------------------------------------------------------------------------------------------------------
def onnx_sessions(model: nn.Module, x: torch.Tensor, threads: int, kinds: tuple[str, ...]) -> dict[str, Runnable]:
    """onnxruntime: ``fp32`` and ``int8`` (dynamic, per channel)."""
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    runs: dict[str, Runnable] = {}
    with tempfile.TemporaryDirectory() as folder:
        path, prepared, quantised = (str(Path(folder) / n) for n in ("m.onnx", "p.onnx", "q.onnx"))
        torch.onnx.export(model, (x,), path, dynamo=True, verbose=False, external_data=False)
        for kind in kinds:
            used = path
            if kind == "int8":
                quant_pre_process(path, prepared, skip_symbolic_shape=True)
                quantize_dynamic(prepared, quantised, weight_type=QuantType.QInt8, per_channel=True)
                used = quantised
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.log_severity_level = 3
            session = onnxruntime.InferenceSession(used, options, providers=["CPUExecutionProvider"])
            feed = {session.get_inputs()[0].name: x.numpy()}
            runs[f"onnxruntime {kind}"] = lambda session=session, feed=feed: session.run(None, feed)
    return runs


def openvino_requests(model: nn.Module, x: torch.Tensor, threads: int, kinds: tuple[str, ...]) -> dict[str, Runnable]:
    """OpenVINO: ``fp32``, ``bf16`` (inference precision) and ``int8`` (NNCF post-training quantization)."""
    import nncf
    import openvino

    core = openvino.Core()
    runs: dict[str, Runnable] = {}
    for kind in kinds:
        converted = openvino.convert_model(model, example_input=x, input=[tuple(x.shape)])
        hint = "bf16" if kind == "bf16" else "f32"
        if kind == "int8":
            data = nncf.Dataset([torch.randn_like(x).numpy() for _ in range(max(2, 8 // x.shape[0]))])
            converted = nncf.quantize(
                converted, data, model_type=nncf.ModelType.TRANSFORMER if x.ndim == 4 else None, subset_size=8
            )
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": str(threads),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": "NO",
        }
        request = core.compile_model(converted, "CPU", settings).create_infer_request()
        feed = [x.numpy()]
        runs[f"openvino {kind}"] = lambda request=request, feed=feed: request.infer(feed)
    return runs
