"""Load one model in one runtime: a job goes in, a call without arguments and its outputs as arrays come out.

Only the job's own runtime is imported, so that a process that times onnxruntime holds no torch.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Job", "Loaded", "load", "outputs_of"]

Arrays = list[np.ndarray]


@dataclass(frozen=True)
class Job:
    """What a timing process must load; everything but the payload is JSON.

    Attributes
    ----------
    runtime : str
        ``torch``, ``compile``, ``extra``, ``onnxruntime`` or ``openvino``.
    precision : str
        ``fp32``, ``bf16`` or ``int8``.
    threads : int
        Limit of the runtime's own pool.
    inputs : str
        An ``.npz`` file: ``0``, ``1``, ... are the model's arguments.
    path : str, optional
        Model file of the deployment runtimes, or the weights (safetensors) of ``source``.
    source : dict, optional
        From which the architecture is built again (`fewer.models.build.build_architecture`).
    run : str, optional
        A run folder, loaded by `fewer.load`.
    accelerated : bool
        Of a run: whether its model is put on the kernels that are fastest for these inputs here.
    rest : str, optional
        Of an int8 file in OpenVINO: what the layers left in floating point run in; by default what OpenVINO prefers.
    payload : bytes, optional
        The module or callable itself, only sent from one process of ours to another, never kept in a file.
    target : Any
        The module or callable itself, for timing within this process.
    """

    runtime: str
    precision: str
    threads: int
    inputs: str
    path: str | None = None
    source: dict[str, Any] | None = None
    run: str | None = None
    accelerated: bool = False
    rest: str | None = None
    payload: bytes | None = field(default=None, repr=False)
    target: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Loaded:
    """A loaded model: ``call`` runs it once, ``feed`` once on other arguments; ``arrays`` makes fp32 arrays of both."""

    call: Callable[[], Any]
    feed: Callable[[Arrays], Any]
    arrays: Callable[[Any], Arrays]
    note: str = ""
    model: Any = None


def load(job: Job) -> Loaded:
    """Load the job's model in the job's runtime, limited to its threads."""
    return {"onnxruntime": _onnxruntime, "openvino": _openvino}.get(job.runtime, _torch)(job)


def inputs_of(job: Job) -> Arrays:
    """The arguments of the model, as arrays."""
    with np.load(job.inputs, allow_pickle=False) as file:
        return [file[str(index)] for index in range(len(file.files))]


def outputs_of(value: Any) -> Arrays:
    """Every floating tensor of a model's answer (tensor, tuple, list or dict) as fp32 arrays, in order."""
    import torch
    from torch.utils._pytree import tree_leaves

    leaves = [leaf for leaf in tree_leaves(_plain(value)) if isinstance(leaf, torch.Tensor)]
    return [leaf.detach().float().cpu().numpy() for leaf in leaves if leaf.is_floating_point()]


def _plain(value: Any) -> Any:
    # output classes of model libraries are dicts that the tree functions may not know
    return dict(value.items()) if hasattr(value, "items") else value


def _torch(job: Job) -> Loaded:
    import torch

    torch.set_num_threads(job.threads)
    dtype = None
    model = _torch_model(job)
    if job.runtime != "extra":
        dtype = {"bf16": torch.bfloat16}.get(job.precision, torch.float32)
        if job.precision == "bf16":
            if model is job.target:
                import copy

                model = copy.deepcopy(model)
            model = model.to(dtype)
        model.eval()
    if job.runtime == "compile":
        import torch._inductor.config as settings

        settings.freezing = True
        compiled = torch.compile(model)
        model_call: Callable[..., Any] = compiled
    else:
        model_call = model

    def tensors(arrays: Arrays) -> list[torch.Tensor]:
        made = [torch.from_numpy(array) for array in arrays]
        return [a.to(dtype) if dtype is not None and a.is_floating_point() else a for a in made]

    def run(given: list[torch.Tensor]) -> Any:
        with torch.inference_mode() if job.runtime != "compile" else torch.no_grad():
            return model_call(*given)

    if dtype in (None, torch.float32):  # a model of half or double precision stays what it is
        from fewer.models.running import input_dtype

        given = [torch.from_numpy(array) for array in inputs_of(job)]
        own = input_dtype(model, given[0]) if len(given) == 1 and isinstance(model, torch.nn.Module) else None
        dtype = own if own not in (None, torch.float32) else dtype
    arguments = tensors(inputs_of(job))
    if _writes(lambda: run(arguments), arguments):
        arguments, plain = tensors(inputs_of(job)), run

        def run(given: list[torch.Tensor]) -> Any:
            return plain([a.clone() for a in given])

    note = "frozen weights" if job.runtime == "compile" else ""
    return Loaded(lambda: run(arguments), lambda arrays: run(tensors(arrays)), outputs_of, note, model)


def _writes(call: Callable[[], Any], arguments: list[Any]) -> bool:
    """Whether a call changes its arguments."""
    before = [a.clone() for a in arguments]
    call()
    return any(not bool((a == b).all()) for a, b in zip(arguments, before, strict=True))


def _torch_model(job: Job) -> Any:
    import torch

    if job.target is not None:
        return job.target
    if job.payload is not None:
        return pickle.loads(job.payload)
    if job.run is not None:
        from fewer.timing.sources import load_run

        if not job.accelerated:
            return load_run(Path(job.run))
        example = [torch.from_numpy(array) for array in inputs_of(job)]
        return load_run(Path(job.run), tuple(example) if len(example) > 1 else example[0])
    from safetensors.torch import load_file

    from fewer.models.build import build_architecture

    if job.source is None or job.path is None:
        raise RuntimeError("a torch job needs a module, a run or a source with weights")
    model = build_architecture(job.source)
    model.load_state_dict(load_file(job.path), strict=True)
    return model


def _onnxruntime(job: Job) -> Loaded:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    assert job.path is not None
    session = onnxruntime.InferenceSession(job.path, options, providers=["CPUExecutionProvider"])
    names = [node.name for node in session.get_inputs()]
    kinds = [{"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(n.type) for n in session.get_inputs()]

    def named(arrays: Arrays) -> dict[str, np.ndarray]:
        fitting = [a if kind is None else a.astype(kind) for a, kind in zip(arrays, kinds, strict=True)]
        return dict(zip(names, fitting, strict=True))

    feed = named(inputs_of(job))

    def other(arrays: Arrays) -> Any:
        return session.run(None, named(arrays))

    return Loaded(lambda: session.run(None, feed), other, _floats)


def _openvino(job: Job) -> Loaded:
    import openvino

    core = openvino.Core()
    settings: dict[str, Any] = {
        "INFERENCE_NUM_THREADS": job.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    hint = job.rest if job.precision == "int8" else job.precision
    if hint is not None:
        settings["INFERENCE_PRECISION_HINT"] = {"fp32": "f32", "bf16": "bf16"}[hint]
    compiled = core.compile_model(core.read_model(job.path), "CPU", settings)
    actual = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    names = {"f32": "fp32", "float": "fp32", "bfloat16": "bf16", "float16": "fp16", "f16": "fp16"}
    actual = names.get(actual, actual)
    if job.precision == "bf16" and actual != "bf16":
        raise RuntimeError(f"this CPU runs OpenVINO's bf16 models in {actual}")
    request = compiled.create_infer_request()
    own = inputs_of(job)

    def put(arrays: Arrays) -> None:
        for index, array in enumerate(arrays):
            # copied: OpenVINO does not keep a shared array alive
            request.set_input_tensor(index, openvino.Tensor(array, shared_memory=False))

    put(own)
    outputs = range(len(compiled.outputs))

    def call() -> Any:
        request.infer()
        return request

    def other(arrays: Arrays) -> Any:
        put(arrays)
        try:
            return call()
        finally:
            put(own)

    def arrays(value: Any) -> Arrays:
        return _floats([np.array(value.get_output_tensor(index).data) for index in outputs])

    return Loaded(
        call, other, arrays, f"the layers left in floating point run in {actual}" if job.precision == "int8" else ""
    )


def _floats(values: list[Any]) -> Arrays:
    arrays = [np.asarray(value) for value in values]
    return [array.astype(np.float32) for array in arrays if array.dtype.kind == "f"]
