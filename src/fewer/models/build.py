"""Builders: how an architecture is made again from its description."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from fewer.core.errors import FewerError
from fewer.models import builtin
from fewer.models.surgery import operate, read_surgery

__all__ = ["Source", "build_architecture"]


Source = dict[str, Any]


def build_architecture(source: Source, architecture: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Build the architecture that a source describes, with arbitrary weights and without asset packages.

    Parameters
    ----------
    source : dict
        :attr:`LoadedModel.source`. Its ``surgery``, if any, is carried out on what was built.
    architecture : callable, optional
        A factory of the whole architecture, before any surgery, that is used in place of the source.

    Returns
    -------
    nn.Module
        In evaluation mode; its weights mean nothing until a state dict is loaded.

    Raises
    ------
    FewerError
        When the source cannot be rebuilt, for example a module object without a factory.
    """
    return operate(_whole(source, architecture), read_surgery(source.get("surgery", [])))


def _whole(source: Source, architecture: Callable[[], nn.Module] | None) -> nn.Module:
    if architecture is not None:
        model = architecture()
        if not isinstance(model, nn.Module):
            raise FewerError(f"architecture= must return an nn.Module; it returned {type(model).__name__}")
        return model.eval()
    kind = source.get("kind")
    builders: dict[str, Callable[[Source], nn.Module]] = {
        "builtin": lambda s: builtin.build(s["name"], s.get("args", {})),
        "timm": _build_timm,
        "hf": _build_hf,
        "file": _build_file,
        "monai": _build_monai,
        "task": _build_of_task,
        "object": _build_object,
    }
    if kind not in builders:
        raise FewerError(f"unknown kind of model source {kind!r}; known: {', '.join(builders)}")
    try:
        return builders[kind](source).eval()
    except KeyError as error:
        raise FewerError(
            f"the {kind} model source lacks the key {error.args[0]!r}; pass architecture= a factory"
        ) from None


def _build_monai(source: Source) -> nn.Module:
    from fewer.models.monai import monai_network

    return monai_network(source["name"], source["args"])


def _build_of_task(source: Source) -> nn.Module:
    # tasks stand above this room, and third parties bring their own: a recipe that names one is looked up by name
    return importlib.import_module("fewer.tasks").open_task(source["task"]).network(source["name"], source["args"])


def _build_timm(source: Source) -> nn.Module:
    from fewer.models import adapters

    return adapters.timm_model(source["name"], pretrained=False, **source.get("kwargs", {}))[0]


def _build_hf(source: Source) -> nn.Module:
    from fewer.models import adapters

    return adapters.hf_architecture(source["config"])


def _build_file(source: Source) -> nn.Module:
    from fewer.models import userfile

    path = Path(source["path"])
    made, _ = userfile.call(path, source["function"], expected_sha256=source["sha256"])
    return made[0] if isinstance(made, tuple) else made


def _build_object(source: Source) -> nn.Module:
    raise FewerError(
        f"this model was given as a Python object of class {source['class']}, which a file cannot rebuild; "
        "pass architecture= a function that returns such a module"
    )
