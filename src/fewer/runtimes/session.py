"""A file in a runtime, within this process: arrays go in, arrays come out; and what each node of it takes."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.runtimes.export import first_line
from fewer.runtimes.names import RUNTIMES, missing

__all__ = ["Session", "open_session", "runs_bf16"]

Arrays = list[np.ndarray]
_PROFILED, _WARM = 24, 4  # calls


class Session:
    """An open file.

    Attributes
    ----------
    runtime
        Its name.
    """

    runtime = ""

    def run(self, arrays: Sequence[np.ndarray]) -> Arrays:
        """One forward pass; the arrays that come back belong to the caller."""
        raise NotImplementedError

    def node_ms(self, arrays: Sequence[np.ndarray]) -> dict[str, float]:
        """Milliseconds of each node of the graph as it is run, by its name there; profiling makes the pass slower."""
        raise NotImplementedError


def open_session(runtime: str, model: Any, threads: int, precision: str = "fp32", profiled: bool = False) -> Session:
    """Open an ONNX model.

    Parameters
    ----------
    runtime
        ``onnxruntime`` or ``openvino``.
    model
        Path of a file (ONNX; for OpenVINO also its own format), or the bytes of an ONNX model.
    threads
        Limit of the runtime's pool.
    precision
        Of the layers that are not stored as integers: ``fp32``, or ``bf16`` where the runtime and the CPU have it.
    profiled
        Whether :meth:`Session.node_ms` will be asked for.

    Raises
    ------
    FewerError
        When the runtime is not installed or cannot run the model; the sentence says which operator it does not know.
    """
    lacking = missing(runtime)
    if lacking is not None:
        raise FewerError(f"{RUNTIMES[runtime].label} cannot be used: {lacking}")
    kind = {"onnxruntime": _Onnxruntime, "openvino": _OpenVino}[runtime]
    try:
        return kind(model, threads, precision, profiled)
    except Exception as error:
        raise FewerError(f"{RUNTIMES[runtime].label} cannot run this model: {first_line(error)}") from error


def runs_bf16(runtime: str) -> bool:
    """Whether a runtime multiplies in bf16 on this CPU."""
    if runtime != "openvino" or missing(runtime) is not None:
        return False
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


class _Onnxruntime(Session):
    runtime = "onnxruntime"

    def __init__(self, model: Any, threads: int, precision: str, profiled: bool) -> None:
        import onnxruntime

        if precision != "fp32":
            raise RuntimeError(f"onnxruntime has no {precision} on CPUs")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if profiled:
            self._folder = tempfile.TemporaryDirectory(prefix="fewer-profile-")
            options.enable_profiling = True
            options.profile_file_prefix = f"{self._folder.name}/nodes"
        source = model if isinstance(model, bytes) else str(model)
        self._session: Any = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        self._names = [node.name for node in self._session.get_inputs()]

    def run(self, arrays: Sequence[np.ndarray]) -> Arrays:
        return self._session.run(None, dict(zip(self._names, arrays, strict=True)))

    def node_ms(self, arrays: Sequence[np.ndarray]) -> dict[str, float]:
        for _ in range(_WARM + _PROFILED):
            self.run(arrays)
        events = json.loads(Path(self._session.end_profiling()).read_text("utf-8"))
        self._folder.cleanup()
        times: dict[str, list[float]] = defaultdict(list)
        for event in events:
            name = event["name"]
            if event.get("cat") == "Node" and name.endswith("_kernel_time"):
                times[name.removesuffix("_kernel_time")].append(event["dur"] / 1e3)
        return {name: min(ms) for name, ms in times.items()}  # wall time: the quickest is the least disturbed


class _OpenVino(Session):
    runtime = "openvino"

    def __init__(self, model: Any, threads: int, precision: str, profiled: bool) -> None:
        import openvino

        core = openvino.Core()
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        }
        if profiled:
            settings["PERF_COUNT"] = "YES"
        found = core.read_model(model, b"") if isinstance(model, bytes) else core.read_model(str(model))
        compiled = core.compile_model(found, "CPU", settings)
        self._request = compiled.create_infer_request()
        self._count = len(compiled.outputs)
        self._tensor = openvino.Tensor

    def run(self, arrays: Sequence[np.ndarray]) -> Arrays:
        for index, array in enumerate(arrays):  # shared: `arrays` lives until the pass is over
            self._request.set_input_tensor(index, self._tensor(array, shared_memory=True))
        self._request.infer()
        return [np.array(self._request.get_output_tensor(index).data) for index in range(self._count)]

    def node_ms(self, arrays: Sequence[np.ndarray]) -> dict[str, float]:
        times: dict[str, list[float]] = defaultdict(list)
        for _ in range(_WARM):
            self.run(arrays)
        for _ in range(_PROFILED):
            self.run(arrays)
            for node in self._request.profiling_info:
                times[node.node_name].append(node.real_time.total_seconds() * 1e3)
        return {name: min(ms) for name, ms in times.items()}
