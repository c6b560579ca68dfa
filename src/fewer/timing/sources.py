"""Where the model of a bench comes from: a spec, a run folder or an nn.Module."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from fewer.core.errors import FewerError

__all__ = ["AcceleratedRun", "RuntimeFile", "Subject", "is_run", "load_run", "open_subject"]


@dataclass(frozen=True)
class AcceleratedRun:
    """The compressed model of a run folder, on the kernels that are fastest for it here."""

    path: Path

    def precision(self) -> str:
        """The coarsest precision among its units, which decides which peers it is held against."""
        from fewer.kernels.accelerate import lowest_precision
        from fewer.models.artefact import load_recipe
        from fewer.models.recipe import precisions_of

        return lowest_precision(precisions_of(load_recipe(self.path)).values())


@dataclass(frozen=True)
class RuntimeFile:
    """A model file of onnxruntime or OpenVINO, timed in a process that holds no torch."""

    path: Path
    runtime: str
    rest: str = "fp32"
    """What its layers that are not integers run in."""


@dataclass(frozen=True)
class Subject:
    """The dense fp32 model that every peer runs.

    Attributes
    ----------
    model : nn.Module
        In evaluation mode, on the CPU.
    name : str
        For people.
    source : dict, optional
        From which another process builds the architecture again; None for a mere object.
    input_size : tuple of int, optional
        (channels, height, width) of one input, where known.
    run : Path, optional
        The run folder whose compressed model is timed beside the dense one.
    preprocess : Any
        From image file to input, where known.
    notes : tuple of str
        What the user must know about this choice.
    """

    model: nn.Module
    name: str
    source: dict[str, Any] | None = None
    input_size: tuple[int, ...] | None = None
    run: Path | None = None
    preprocess: Any = None
    notes: tuple[str, ...] = field(default=())


def open_subject(model: str | Path | nn.Module) -> Subject:
    """Open what the user named.

    Raises
    ------
    FewerError
        When the run folder or the spec does not exist or cannot be loaded.
    """
    if isinstance(model, nn.Module):
        return Subject(model, type(model).__name__)
    text = str(model)
    if is_run(text):
        return _from_run(Path(text))
    if ".py:" not in text and (text.startswith(("./", "../", "/")) or text.endswith("/") or Path(text).exists()):
        what = "holds no recipe.json" if Path(text).is_dir() else "does not exist"
        raise FewerError(f"no run to bench: {text!r} {what}; give a run folder of `fewer compress` or a model spec")
    return _from_spec(text)


def is_run(text: str) -> bool:
    """Whether a path is a run folder (it holds the recipe that rebuilds the model)."""
    return (Path(text) / "recipe.json").is_file()


def load_run(path: Path, example: Any = None) -> nn.Module:
    """The compressed model of a run folder, in plain torch; with an example, on the kernels that are fastest for it."""
    from fewer.models.load import load

    return load(path) if example is None else load(path, accelerated=True, example=example)


def _from_spec(spec: str) -> Subject:
    from fewer.models.spec import load_model

    loaded = load_model(spec)
    source = loaded.source if loaded.source.get("kind") != "object" else None
    return Subject(loaded.model, loaded.name, source, loaded.input_size, preprocess=loaded.preprocess)


def _from_run(path: Path) -> Subject:
    from fewer.models.recipe import read_recipe

    recipe = read_recipe(path / "recipe.json")
    spec = _told_spec(path, recipe.source)
    settings = None
    if recipe.preprocess is not None:
        from fewer.data.preprocess import Preprocess

        settings = Preprocess.of(recipe.preprocess, f"run {path}")
    size = settings.input_size if settings else None
    if "input_size" in recipe.meta:  # of a model that a task trained
        size = tuple(recipe.meta["input_size"])
        settings = settings if len(size) == 3 else None  # no photo is a volume
    cut = (path / "plan.json").is_file()  # a training in few bits has units, too
    if spec is None and recipe.source.get("kind") == "task" and not cut:
        return Subject(load_run(path), str(path), None, size, path, settings)  # trained, and not compressed
    try:
        if spec is None:
            raise FewerError("the recipe names no spec")
        dense = _dense(spec, path)
    except FewerError as why:
        note = f"The dense original is not at hand ({why}): the peers run the compressed weights, zeros included."
        return Subject(load_run(path), str(path), None, size, path, settings, (note,))
    if "input_size" not in recipe.meta:  # what a task's model is fed with is no photo of any size
        settings = settings or dense.preprocess
    return Subject(dense.model, dense.name, dense.source, size or dense.input_size, path, settings)


def _dense(spec: str, path: Path) -> Subject:
    from fewer.models.spec import load_named

    loaded = load_named(spec, f"{path}/recipe.json")
    if not _compressed_from(path, loaded.model):
        raise FewerError(f"{spec} has other weights now than those that were compressed")
    return Subject(loaded.model, loaded.name, loaded.source, loaded.input_size, preprocess=loaded.preprocess)


def _compressed_from(path: Path, model: nn.Module) -> bool:
    """Whether a model has the weights that a run was sensed on, as far as the run says it."""
    from fewer.core.run import RunFolder
    from fewer.models.artefact import state_hash

    run = RunFolder.open(path)
    if not run.has("curves"):
        return True
    curves = run.read_curves()
    # a model that was put in another order, or evened out for a budget in time, has other weights and the same outputs
    changed = bool(curves.meta.get("reorderings")) or bool({"latency", "energy", "cycles"} & set(curves.metrics))
    return changed or curves.meta.get("state") in (None, state_hash(model))


def _told_spec(path: Path, source: dict[str, Any]) -> str | None:
    """The spec that the run was made with where it has options of its own, else the one that the recipe stands for."""
    from fewer.core.run import RunFolder

    run = RunFolder.open(path)
    told = run.read_config().get("model") if run.has("config") else None
    if isinstance(told, str) and source.get("kind") == "task" and told != str(path) and is_run(told):
        return told  # the run that was compressed
    base = {"builtin": "fewer", "timm": "timm", "torchvision": "torchvision"}.get(str(source.get("kind")))
    if isinstance(told, str) and "?" in told and base and told.partition("?")[0] == f"{base}/{source.get('name')}":
        return told
    return _spec_of(source)


def _spec_of(source: dict[str, Any]) -> str | None:
    """The spec that loads the original with its weights, or None for a mere object."""
    kind = source.get("kind")
    if kind == "builtin" and not source.get("args"):
        return f"fewer/{source['name']}"
    if kind in ("timm", "torchvision") and not source.get("kwargs"):
        return f"{kind}/{source['name']}"
    return f"{source['path']}:{source['function']}" if kind == "file" else None
