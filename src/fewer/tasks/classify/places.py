"""A trained classifier where it is used: on the native kernels, or as a file in another runtime."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.reading import refusing
from fewer.models.artefact import RECIPE
from fewer.models.load import load
from fewer.models.spec import LoadedModel
from fewer.runtimes.module import RuntimeModule
from fewer.runtimes.session import open_session
from fewer.tasks.classify.settings import EvaluateSettings

__all__ = ["placed_model"]

_EXAMPLES = 8
"""Images at once while the kernel of each layer is chosen by its time."""


def placed_model(target: str | Path, loaded: LoadedModel, settings: EvaluateSettings) -> nn.Module | None:
    """The model of a run where the settings say that it shall run; None for plain torch.

    Raises
    ------
    FewerError
        When the target is no run folder, the exported file is missing, or the runtime cannot run it.

    Examples
    --------
    >>> from fewer.data.preprocess import Preprocess
    >>> placed_model("run/", LoadedModel(nn.Identity(), "toy", {}, Preprocess()), EvaluateSettings()) is None
    True
    """
    if settings.where == "torch":
        if settings.file is not None:
            raise FewerError(f"{settings.file} is for another runtime: give --where onnxruntime or --where openvino")
        return None
    if not (Path(target) / RECIPE).is_file():
        raise FewerError(f"--where {settings.where} needs a run folder; {target} is none")
    if settings.where == "kernels":
        example = torch.zeros(min(settings.batch, _EXAMPLES), *loaded.input_size)
        return load(target, accelerated=True, example=example)
    file = Path(settings.file) if settings.file is not None else Path(target) / "model.onnx"
    if not file.is_file():
        raise FewerError(
            f"{file} does not exist; write it first: fewer export {target} --to onnx --activations static, or give "
            "--file"
        )
    shape = _input_shape(file, settings.batch)
    if shape[1:] != tuple(loaded.input_size):
        raise FewerError(f"{file} takes inputs of {shape[1:]} and the run {target} of {tuple(loaded.input_size)}")
    session = open_session(settings.where, file, torch.get_num_threads())
    return RuntimeModule(session, [shape], {"tensor": 0, "dtype": "float32"}, about=settings.where)


def _input_shape(file: Path, batch: int) -> tuple[int, ...]:
    """Of the first input of an ONNX file; a batch of any size is one of ``batch``."""
    try:
        import onnx
    except ImportError:
        raise FewerError('reading an ONNX file needs onnx: pip install "fewer[deploy]"') from None
    with refusing(str(file), "export the run again"):
        graph = onnx.load(str(file), load_external_data=False).graph
        sides = [side.dim_value for side in graph.input[0].type.tensor_type.shape.dim]
        return (sides[0] or batch, *sides[1:])
