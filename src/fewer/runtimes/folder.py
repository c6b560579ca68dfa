"""The files of a run for one runtime: written beside the model, loaded without exporting again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes, atomic_write_text, explain_os_error
from fewer.core.reading import read_json
from fewer.core.strict import StrictSettings
from fewer.runtimes.module import RuntimeModule
from fewer.runtimes.names import EXPORTED
from fewer.runtimes.session import open_session

__all__ = ["RUNTIME_FILE", "RuntimeRecord", "drop_runtime", "open_runtime", "read_record", "save_runtime"]

RUNTIME_FILE = "runtime.onnx"
_RECORD = "runtime.json"


class RuntimeRecord(StrictSettings):
    """What ``runtime.json`` holds.

    Attributes
    ----------
    runtime
        The runtime that the plan was made for.
    precision
        Of the layers that are not integers.
    shapes
        Of the inputs that the file takes.
    structure
        Of the answer.
    weights
        SHA-256 of the ``model.safetensors`` that the file was made from.
    file_sha256
        Of the file.
    free
        Axes along which the file takes any number.
    about
        For people: precisions of the layers.
    """

    runtime: str
    precision: str = "fp32"
    shapes: list[list[int]]
    structure: dict[str, Any]
    weights: str
    file_sha256: str
    free: list[int] = Field(default_factory=list, max_length=8)
    about: str = Field(default="", description="for people")


def save_runtime(folder: str | Path, file: bytes, record: RuntimeRecord) -> Path:
    """Write a runtime's file and its record into a run folder; the record comes last, so that it is never of another.

    Raises
    ------
    FewerError
        When they cannot be written.
    """
    place = Path(folder)
    atomic_write_bytes(place / RUNTIME_FILE, file)
    atomic_write_text(place / _RECORD, record.model_dump_json(indent=1))
    return place / RUNTIME_FILE


def drop_runtime(folder: str | Path) -> None:
    """Remove a runtime's files from a run folder, where there are any."""
    for name in (_RECORD, RUNTIME_FILE):
        (Path(folder) / name).unlink(missing_ok=True)


def read_record(folder: str | Path) -> RuntimeRecord | None:
    """The record of a run folder; None where there is none.

    Raises
    ------
    FewerError
        When it is damaged.
    """
    path = Path(folder) / _RECORD
    if not path.exists():
        return None
    try:
        return RuntimeRecord.model_validate(read_json(path))
    except (OSError, ValueError, ValidationError) as error:
        raise FewerError(f"{path} is damaged: {str(error).splitlines()[0]}; make the run again") from None


def open_runtime(
    folder: str | Path, record: RuntimeRecord, runtime: str, threads: int, fallback: Callable[[], nn.Module]
) -> RuntimeModule:
    """The model of a run folder in a runtime.

    Parameters
    ----------
    folder, record
        Of the run.
    runtime
        ``onnxruntime`` or ``openvino``.
    threads
        Of its pool.
    fallback
        Gives the model in torch, for inputs of another size.

    Raises
    ------
    FewerError
        When the runtime is missing or cannot run the file, or the file is not that of this run.
    """
    path = Path(folder) / RUNTIME_FILE
    if runtime not in EXPORTED:
        raise FewerError(f"{runtime} runs no files; it is one of {', '.join(EXPORTED)} that does")
    try:
        data = path.read_bytes()
        weights = hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest()
    except OSError as error:
        raise explain_os_error(error, path) from None
    if hashlib.sha256(data).hexdigest() != record.file_sha256 or weights != record.weights:
        raise FewerError(f"{path} was not made from the model beside it; make it anew: fewer export {folder} --to onnx")
    _refuse_outside(data, path)
    precision = record.precision if runtime == record.runtime else "fp32"
    session = open_session(runtime, data, threads, precision)
    about = f"{runtime}, {record.about}".strip(", ")
    return RuntimeModule(session, record.shapes, record.structure, fallback, about, free=record.free)


def _refuse_outside(data: bytes, path: Path) -> None:
    """A file made by someone else may name other files, which would be read with it."""
    import onnx

    try:
        graph = onnx.load_model_from_string(data).graph
    except Exception as error:
        raise FewerError(f"{path} is no ONNX file: {str(error).splitlines()[0][:100]}; make the run again") from None
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in graph.initializer):
        raise FewerError(f"{path} refers to files outside of it, which no run of fewer does; it is not opened")
