"""The model of a run folder in the runtime that it was planned for, or in the one that is fastest for it here."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.cost.stopwatch import Stopwatch
from fewer.engine.parts import part_of
from fewer.engine.runtime_deploy import about
from fewer.engine.runtimes import relative_difference
from fewer.models import load as models
from fewer.models.artefact import WEIGHTS, load_recipe
from fewer.models.recipe import precisions_of, refuse_integers
from fewer.models.running import copied
from fewer.runtimes.folder import RuntimeRecord, open_runtime, read_record, save_runtime
from fewer.runtimes.module import RuntimeModule
from fewer.runtimes.names import EXPORTED, RUNTIMES, missing
from fewer.runtimes.planned import PlannedGraph
from fewer.runtimes.session import open_session
from fewer.runtimes.structure import describe

__all__ = ["fastest", "runtime_model"]

_FINE, _FACTOR = 0.05, 2.0
"""A form of the model is offered when its answer is so near to that of torch, or within this factor of the nearest."""


def example_of(run: str | Path, example: Any = None) -> Any:
    """An input of the model of a run.

    Raises
    ------
    FewerError
        When the run does not know its size and no example is given.
    """
    if example is not None:
        return example
    recipe = load_recipe(run)
    of_task = recipe.preprocess is None or "input_size" in recipe.meta
    record = read_record(run) if of_task else None
    if record is not None:  # the file of a task's model tells more than its usual size
        shapes = [list(shape) for shape in record.shapes]
    elif recipe.input_size is not None:
        shapes = [[1, *recipe.input_size]]
    else:
        raise FewerError(f"{run} does not say what its model's input is; give example=, a tensor of its shape")
    generator = torch.Generator().manual_seed(0)
    made = [torch.randn(*shape, generator=generator) for shape in shapes]
    return tuple(made) if len(made) > 1 else made[0]


def runtime_model(run: str | Path, runtime: str, model: nn.Module, example: Any, threads: int) -> RuntimeModule:
    """A run's model in a runtime; the file is made, and kept in the run folder, where there is none.

    A file that is made here rounds no activations: only a run that was planned for a runtime knows their ranges.

    Parameters
    ----------
    run
        Run folder.
    runtime
        ``onnxruntime`` or ``openvino``.
    model
        The same model in torch, for inputs of other sizes.
    example
        An input, or None.
    threads
        Of the runtime.

    Raises
    ------
    FewerError
        When the runtime is missing or cannot run the model, or the file is not that of this run.
    """
    lacking = missing(runtime)
    if lacking is not None:
        raise FewerError(lacking)
    record = read_record(run)
    if record is not None:
        return open_runtime(run, record, runtime, threads, lambda: model)
    recipe = load_recipe(run)
    refuse_integers(recipe, run, "no other runtime has them")
    precisions = precisions_of(recipe)
    part = part_of(recipe.meta.get("task"), model)
    free = {} if part is None or part.note else part.dynamic
    planned = PlannedGraph.of(model, {name: (name,) for name in precisions}, example_of(run, example), free)
    file = planned.model.SerializeToString()
    record = RuntimeRecord(
        runtime=runtime,
        shapes=[list(shape) for shape in planned.shapes],
        structure=planned.structure,
        weights=hashlib.sha256((Path(run) / WEIGHTS).read_bytes()).hexdigest(),
        file_sha256=hashlib.sha256(file).hexdigest(),
        free=list(planned.free),
        about=about(dict.fromkeys(precisions, "fp32"), "fp32"),
    )
    session = open_session(runtime, file, threads)
    try:
        save_runtime(run, file, record)
    except FewerError as error:  # a folder that may only be read: the file is made again the next time
        warnings.warn(f"the file for {RUNTIMES[runtime].label} is not kept: {error}", stacklevel=3)
    told = f"{runtime}, {record.about}"
    return RuntimeModule(session, record.shapes, record.structure, lambda: model, told, file, free=record.free)


def fastest(run: str | Path, architecture: Callable[[], nn.Module] | None, example: Any, threads: int) -> nn.Module:
    """The form of a run's model that is fastest here: plain torch, the native kernels, or a runtime that is installed.

    They are timed in turns. One that cannot run the model, or whose answer differs from that of torch by far more than
    that of the others, is left out, with a warning that says so.
    """
    model = models.load(run, architecture)
    given = example_of(run, example)
    arguments = given if isinstance(given, tuple) else (given,)
    makers: dict[str, Callable[[], nn.Module]] = {
        "native": lambda: models.load(run, architecture, accelerated=True, example=given)
    }
    makers |= {
        name: lambda name=name: runtime_model(run, name, copy.copy(model), example, threads)
        for name in EXPORTED
        if missing(name) is None
    }
    call = lambda form: form(*copied(arguments))  # noqa: E731  a model may write into its input
    forms: dict[str, nn.Module] = {"torch": model}
    errors: dict[str, float] = {"torch": 0.0}
    with torch.inference_mode():
        expected = [t.float() for t in describe(call(model))[1]]
        for name, make in makers.items():
            try:
                form = make()
                errors[name] = relative_difference(expected, [t.float() for t in describe(call(form))[1]])
                forms[name] = form
            except FewerError as error:
                warnings.warn(f"{RUNTIMES[name].label} is left out for {run}: {error}", stacklevel=3)
        rounded = [error for name, error in errors.items() if name != "torch"]
        bound = max(_FINE, _FACTOR * min(rounded, default=0.0))
        for name in [name for name, error in errors.items() if not error <= bound]:
            warnings.warn(
                f"{RUNTIMES[name].label} is left out for {run}: its answer differs from that of torch by "
                f"{errors[name]:.2g}, relatively",
                stacklevel=3,
            )
            del forms[name]
        found = Stopwatch(runtimes=True).time(
            {n: lambda f=f: call(f) for n, f in forms.items()}, budget_ms=200.0, warm=True
        )
    return forms[min(forms, key=lambda name: found[name].ratio)]
