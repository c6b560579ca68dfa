"""Post-training int8 for the deployment runtimes, as their own tools make it. Runs in a process without torch."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.timing import sample as stopwatch

__all__ = ["prepare"]

ERROR_ALWAYS_FINE, ERROR_FACTOR = 0.05, 2.0
"""A quantization is kept when its relative error is below the first, or within this factor of the best one's."""


def prepare(what: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Write the int8 model that ``what`` names; the answer holds its path and a note on how it was made."""
    return {"onnxruntime": _onnxruntime, "openvino": _openvino}[what](**arguments)


@dataclass(frozen=True)
class _Made:
    """One quantized model: where it is, how far its answer is from that in fp32, and how to run it."""

    path: Path
    error: float
    call: Callable[[], Any]


def _onnxruntime(model: str, calibration: str, inputs: str, out: str, threads: int) -> dict[str, Any]:
    """Quantize dynamically and statically (QDQ), time both, keep the quicker one among those that answer well."""
    samples = _samples(calibration, inputs)
    with tempfile.TemporaryDirectory() as folder:
        made, failures = _quantize_onnx(model, samples, inputs, Path(folder), threads)
        if not made:
            raise RuntimeError("; ".join(f"{name}: {why}" for name, why in failures.items()))
        # fast but wrong is no rival: both must answer about equally well to be compared by speed
        bound = max(ERROR_ALWAYS_FINE, ERROR_FACTOR * min(one.error for one in made.values()))
        times = {name: float("inf") for name in made}
        for _ in range(3):
            for name, one in made.items():
                times[name] = min(times[name], stopwatch.warm_up(one.call))
        chosen = min((name for name in made if made[name].error <= bound), key=times.__getitem__)
        Path(out).write_bytes(made[chosen].path.read_bytes())
    told = {name: f"{times[name]:.3g} ms, error {one.error:.2g}" for name, one in made.items()} | failures
    others = [f"{name} {what}" for name, what in told.items() if name != chosen]
    note = f"{chosen} quantization ({told[chosen]}" + (f", against {'; '.join(others)})" if others else ")")
    return {"path": out, "note": note + (_calibrated(samples) if chosen != "dynamic" else "")}


def _quantize_onnx(
    model: str, samples: list[list[np.ndarray]], inputs: str, folder: Path, threads: int
) -> tuple[dict[str, _Made], dict[str, str]]:
    """What each way of quantizing gives by its name, and why the others failed."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from fewer.timing.runtimes import Job, load

    cleaned = str(folder / "cleaned.onnx")
    quant_pre_process(model, cleaned, skip_symbolic_shape=True)
    reference = load(Job("onnxruntime", "fp32", threads, inputs, path=model))
    expected = np.concatenate([a.ravel() for a in reference.arrays(reference.call())])
    made: dict[str, _Made] = {}
    failures: dict[str, str] = {}
    for name, make in _onnx_ways(cleaned, samples).items():
        path = folder / f"{name.split()[0]}.onnx"
        try:
            make(str(path))
            loaded = load(Job("onnxruntime", "int8", threads, inputs, path=str(path)))
            got = np.concatenate([a.ravel() for a in loaded.arrays(loaded.call())])
            error = float(np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-30))
            made[name] = _Made(path, error if np.isfinite(error) else float("inf"), loaded.call)
        except Exception as error:
            failures[name] = str(error).strip().splitlines()[0][:150] or type(error).__name__
    return made, failures


def _onnx_ways(model: str, samples: list[list[np.ndarray]]) -> dict[str, Callable[[str], None]]:
    """Functions that quantize an ONNX file into the file that they are given, by the name of the way."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    names = [node.name for node in onnx.load(model, load_external_data=False).graph.input]

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, np.ndarray]] = iter([dict(zip(names, s, strict=True)) for s in samples])

        def get_next(self) -> dict[str, np.ndarray] | None:  # type: ignore[override]
            return next(self._feeds, None)

    def static(path: str) -> None:
        quantize_static(
            model,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
        )

    def dynamic(path: str) -> None:
        quantize_dynamic(model, path, weight_type=QuantType.QInt8, per_channel=True)

    return {"dynamic": dynamic, "static QDQ": static}


def _openvino(model: str, calibration: str, inputs: str, out: str, threads: int, transformer: bool) -> dict[str, Any]:
    """Post-training quantization by NNCF with its defaults, for transformers with its transformer scheme."""
    import logging

    import nncf
    import openvino

    logging.getLogger("nncf").setLevel(logging.ERROR)
    samples = _samples(calibration, inputs)
    dataset = nncf.Dataset([sample[0] if len(sample) == 1 else tuple(sample) for sample in samples])
    with contextlib.suppress(AttributeError):
        nncf.set_log_level(logging.ERROR)
    quantized = nncf.quantize(
        openvino.Core().read_model(model),
        dataset,
        subset_size=len(samples),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
    )
    openvino.save_model(quantized, out, compress_to_fp16=False)
    return {"path": out, "note": "NNCF post-training quantization" + _calibrated(samples)}


def _samples(calibration: str, inputs: str) -> list[list[np.ndarray]]:
    """Calibration inputs in the shape of the model's input: the first argument cut into batches, the rest as it is."""
    with np.load(inputs, allow_pickle=False) as file:
        arguments = [file[str(index)] for index in range(len(file.files))]
    with np.load(calibration, allow_pickle=False) as file:
        images = file["0"]
    batch = len(arguments[0])
    count = max(1, -(-len(images) // batch))
    padded = np.resize(images, (count * batch, *images.shape[1:]))  # the last batch starts over from the first image
    return [[padded[i * batch : (i + 1) * batch], *arguments[1:]] for i in range(count)]


def _calibrated(samples: list[list[np.ndarray]]) -> str:
    inputs = sum(len(sample[0]) for sample in samples)
    return f", calibrated on {inputs} input{'s' if inputs != 1 else ''}"
