"""Load: the model of a run folder, in plain torch, on the fast kernels, or in another runtime."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.engine.runtime_load import fastest, runtime_model
from fewer.models import load as models
from fewer.models.trust import Trust, trusting
from fewer.runtimes.names import EXPORTED, RUNTIMES, check_runtime

__all__ = ["load"]


def load(
    run: str | Path,
    architecture: Callable[[], nn.Module] | None = None,
    *,
    accelerated: bool = False,
    example: Any = None,
    runtime: str | None = None,
    threads: int | None = None,
    trust: Trust = False,
) -> nn.Module:
    """Load the compressed model of a run folder, in evaluation mode, without any pickle.

    Parameters
    ----------
    run
        Run folder.
    architecture
        Function that builds the bare architecture; needed only for a model that was given as a Python object.
    accelerated
        The same as ``runtime="native"``.
    example
        An input of the size that will be used, where kernels are chosen by measuring; by default one image of the
        model's own size.
    runtime
        ``torch`` (the default): bit-equal to what was saved. ``native``: with the kernels that run the plan's masks and
        precisions fastest on this machine, each layer only where a measurement says so; for inference on this CPU, in
        this process. ``onnxruntime`` or ``openvino``: from the file in the run folder, which is made once where the run
        has none. ``auto``: what is installed and fastest for this run, timed now. Where a runtime is missing or cannot
        run the model, a warning says so, and the model runs in torch.
    trust
        A run of your own Python file runs that file: True trusts it, or give the files that you trust. Nothing is run
        by default.
    threads
        Of onnxruntime and OpenVINO; by default as many as torch uses.

    Returns
    -------
    nn.Module
        Takes tensors and answers as the model does.

    Raises
    ------
    FewerError
        When the folder holds no model, files are damaged or do not belong together, or the input size is not known.

    Examples
    --------
    >>> import fewer
    >>> model = fewer.load("run/", runtime="openvino")  # doctest: +SKIP
    """
    if runtime is None:
        runtime = "native" if accelerated else "torch"
    check_runtime(runtime)
    with trusting(trust):
        return _load(run, architecture, example, runtime, threads or torch.get_num_threads())


def _load(
    run: str | Path, architecture: Callable[[], nn.Module] | None, example: Any, runtime: str, threads: int
) -> nn.Module:
    if runtime in ("native", "torch"):
        return models.load(run, architecture, accelerated=runtime == "native", example=example)
    if runtime == "auto":
        return fastest(run, architecture, example, threads)
    assert runtime in EXPORTED
    model = models.load(run, architecture)
    try:
        return runtime_model(run, runtime, model, example, threads)
    except FewerError as error:
        warnings.warn(
            f"{RUNTIMES[runtime].label} is not used for {run}: {error}; the model runs in torch", stacklevel=2
        )
        return model
