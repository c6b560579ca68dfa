"""Builders: how an architecture is made again from its description, which may come from anyone."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from fewer.core.errors import FewerError
from fewer.core.reading import refusing
from fewer.kernels.copies import set_evaluating
from fewer.models import builtin
from fewer.models.computed import fold_named
from fewer.models.foreign import MONAI_NETWORKS, TIMM_ARGUMENTS, build_within, check_values, plain_name
from fewer.models.plain import make_plain, own_copy
from fewer.models.surgery import operate, read_surgery

__all__ = ["Source", "build_architecture"]


Source = dict[str, Any]
_ROOM = 2**33  # bytes, where it is not known how large the network may be


def build_architecture(
    source: Source, architecture: Callable[[], nn.Module] | None = None, *, room: int = _ROOM
) -> nn.Module:
    """Build the architecture that a source describes, with arbitrary weights and without asset packages.

    Parameters
    ----------
    source : dict
        :attr:`LoadedModel.source`. Its ``surgery``, if any, is carried out on what was built; layers of ``computed``
        get the plain class that they had when they were saved.
    architecture : callable, optional
        A factory of the whole architecture, before any surgery, that is used in place of the source.
    room : int
        Bytes that the network may take.

    Returns
    -------
    nn.Module
        In evaluation mode; its weights mean nothing until a state dict is loaded.

    Raises
    ------
    FewerError
        When the source cannot be rebuilt, for example a module object without a factory; when it names code that the
        user did not trust (:mod:`fewer.models.trust`), or an argument that no recipe may give.
    """
    surgery = source.get("surgery", [])
    if not isinstance(surgery, list):
        raise FewerError("the recipe's surgery is no list; save the run again")
    with refusing("the recipe's surgery", "save the run again"):
        removals = read_surgery(surgery)
    computed = source.get("computed", {})
    if not isinstance(computed, dict) or not all(isinstance(form, str) for form in computed.values()):
        raise FewerError("the recipe's list of computed weights is damaged; save the run again")
    whole = _whole(source, architecture, room)
    make_plain(whole)  # what is saved of a weight is its value, whatever it was computed from
    fold_named(whole, computed)
    with refusing("the recipe's surgery", "save the run again"):
        return operate(whole, removals)


def _whole(source: Source, architecture: Callable[[], nn.Module] | None, room: int) -> nn.Module:
    if architecture is not None:
        model = architecture()
        if not isinstance(model, nn.Module):
            raise FewerError(f"architecture= must return an nn.Module; it returned {type(model).__name__}")
        if sys.getrefcount(model) > 2:  # someone else holds it, and it must stay as it is
            model = own_copy(model)
        return set_evaluating(model)
    kind = source.get("kind")
    builders: dict[str, Callable[[Source, int], nn.Module]] = {
        "builtin": _build_builtin,
        "timm": _build_timm,
        "torchvision": _build_torchvision,
        "hf": _build_hf,
        "file": _build_file,
        "monai": _build_monai,
        "task": _build_of_task,
        "object": _build_object,
    }
    if not isinstance(kind, str) or kind not in builders:
        raise FewerError(f"unknown kind of model source {kind!r}; known: {', '.join(builders)}")
    return set_evaluating(builders[kind](source, room))


def _build_builtin(source: Source, room: int) -> nn.Module:
    name = plain_name(source.get("name"), "built-in net")
    row = builtin.entry(name)
    known = tuple(inspect.signature(row.cls).parameters)
    args = check_values(source.get("args", {}), known, f"net fewer/{name}")
    return build_within(lambda: builtin.build(name, args), room, f"the net fewer/{name} of the recipe")


def _build_monai(source: Source, room: int) -> nn.Module:
    from fewer.models.monai import import_monai, monai_network

    name = plain_name(source.get("name"), "network")
    if name not in MONAI_NETWORKS:
        raise FewerError(f"the recipe names MONAI's {name!r}, which no recipe may; known: {', '.join(MONAI_NETWORKS)}")
    args = check_values(source.get("args", {}), None, f"MONAI network {name}")
    import_monai("monai.networks.nets")
    return build_within(lambda: monai_network(name, args), room, f"the MONAI network {name} of the recipe")


def _build_of_task(source: Source, room: int) -> nn.Module:
    # tasks stand above this room, and third parties bring their own: a recipe that names one is looked up by name
    task = plain_name(source.get("task"), "task")
    name = plain_name(source.get("name"), f"network of the task {task}")
    args = check_values(source.get("args", {}), None, f"network {name}")
    found = importlib.import_module("fewer.tasks").open_task(task)
    return build_within(lambda: found.network(name, args), room, f"the network {name} of the recipe")


def _build_timm(source: Source, room: int) -> nn.Module:
    from fewer.models import adapters

    name = plain_name(source.get("name"), "timm model")
    args = check_values(source.get("kwargs", {}), TIMM_ARGUMENTS, "timm model")
    adapters.import_timm()
    make = lambda: adapters.timm_model(name, pretrained=False, **args)[0]  # noqa: E731
    return build_within(make, room, f"the model timm/{name} of the recipe")


def _build_torchvision(source: Source, room: int) -> nn.Module:
    from fewer.models import adapters

    name = plain_name(source.get("name"), "torchvision model")
    args = check_values(source.get("kwargs", {}), ("num_classes",), "torchvision model")
    adapters.import_torchvision()
    make = lambda: adapters.torchvision_model(name, pretrained=False, **args)[0]  # noqa: E731
    return build_within(make, room, f"the model torchvision/{name} of the recipe")


def _build_hf(source: Source, room: int) -> nn.Module:
    from fewer.models import adapters

    return adapters.hf_architecture(source.get("config"), room)


def _build_file(source: Source, room: int) -> nn.Module:
    from fewer.models import userfile
    from fewer.models.plain import uncompiled
    from fewer.models.trust import check_trusted

    path, function, sha256 = (source.get(key) for key in ("path", "function", "sha256"))
    if not all(isinstance(value, str) for value in (path, function, sha256)):
        raise FewerError("the file model source lacks its path, function or sha256; pass architecture= a factory")
    check_trusted(Path(str(path)), "the recipe", str(sha256))
    made, _ = userfile.call(Path(str(path)), str(function), expected_sha256=str(sha256))
    made = made[0] if isinstance(made, tuple) and made else made
    if not isinstance(made, nn.Module):
        raise FewerError(f"{path}:{function} must return an nn.Module; it returned {type(made).__name__}")
    return uncompiled(made)


def _build_object(source: Source, room: int) -> nn.Module:
    raise FewerError(
        f"this model was given as a Python object of class {source.get('class', 'unknown')}, which a file cannot "
        "rebuild; pass architecture= a function that returns such a module"
    )
