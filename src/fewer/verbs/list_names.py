"""List: the names that the other verbs take, each with a note."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from fewer.core.errors import FewerError, near_match

__all__ = ["LISTS", "TABLES", "list_names"]

PATTERNS = {
    "unstructured": "any weight may go",
    "block:16x4": "tiles of 16 outputs x 4 inputs go whole; any two sizes",
    "columns": "input channels go with what makes them, for real: hidden units, heads, inner channels",
    "2:4": "of every 4 consecutive inputs at most 2 stay; any n:m",
    "nm:*:16": "any n of every 16, the n chosen per layer",
}


def _models() -> dict[str, str]:
    from fewer.data.assets import ASSETS
    from fewer.models.spec import list_models

    notes = {
        name: "pretrained" if name.removeprefix("fewer/") in ASSETS else "architecture only, random weights"
        for name in list_models()
    }
    return notes | {
        "torchvision/NAME": "any classifier of torchvision; needs torchvision",
        "timm/NAME": "any timm model; needs the extra fewer[timm]",
        "hf/NAME": "any transformers image model; needs the extra fewer[hf]",
        "FILE.py:FUNCTION": "a function of your own that returns an nn.Module; the code of the file is run",
    }


def _table(place: str) -> Callable[[], dict[str, str]]:
    """The notes of a table of methods, which is imported only when it is asked for."""

    def notes() -> dict[str, str]:
        module, _, name = place.partition(":")
        return getattr(importlib.import_module(module), name).notes()

    return notes


def _presets() -> dict[str, str]:
    from fewer.presets import preset_names, preset_note

    return {name: preset_note(name) for name in preset_names()}


def _selection() -> dict[str, str]:
    from fewer.selection.methods import METHODS
    from fewer.selection.peers import STRATEGIES

    peers = {"skactiveml/NAME": f"{', '.join(STRATEGIES)} of scikit-activeml, up to 20,000 images"}
    return METHODS.notes() | peers


def _allocators() -> dict[str, str]:
    from fewer.core.allocation.baselines import BASELINES

    ours = {
        "auto": "the exact plan, unless a simple rule is measured to be clearly better for this budget",
        "dp": "exact dynamic programming over the sensed curves, with a charge for what no image showed",
        "bold": "the same without that charge",
    }
    return ours | BASELINES.notes()


def _tasks() -> dict[str, str]:
    from fewer.tasks import task_notes

    return task_notes()


def _networks() -> dict[str, str]:
    from fewer.tasks import usable_tasks

    own = {f"{task.name}: {name}": note for task in usable_tasks() for name, note in task.networks().items()}
    return own | {"FILE.py:FUNCTION": "a function of your own that returns an nn.Module"}


def _train_presets() -> dict[str, str]:
    from fewer.presets import preset_names, preset_note
    from fewer.tasks import TASKS

    return {f"{task}: {name}": preset_note(name, task) for task in TASKS for name in preset_names(task)}


def _circuit_presets() -> dict[str, str]:
    from fewer.presets import preset_names, preset_note

    return {name: preset_note(name, "private") for name in preset_names("private")}


TABLES = {
    "allocators": "fewer.core.allocation.baselines:BASELINES",
    "published": "fewer.compensate.published:PUBLISHED",
    "selection": "fewer.selection.methods:METHODS",
    "adaptation": "fewer.adaptation.methods:METHODS",
    "optimisers": "fewer.training.optimise:OPTIMISERS",
    "schedules": "fewer.training.schedule:SHAPES",
    "formats": "fewer.formats.grids:ELEMENTS",
    "gradients": "fewer.formats.gradients:GRADIENTS",
    "quantisers": "fewer.quantize.fake:QUANTISERS",
    "hypernetworks": "fewer.quantize.metagrad:HYPERNETWORKS",
    "distillation": "fewer.distillation.methods:METHODS",
    "softmaxes": "fewer.approximate.softmax:SOFTMAXES",
    "activations": "fewer.approximate.activation:ACTIVATIONS",
    "norms": "fewer.approximate.norm:NORMS",
}
"""Every table of methods, as ``module:NAME``; each row has a card in ``docs/methods/`` and the tests of its table."""

LISTS: dict[str, Callable[[], dict[str, str]]] = {
    "models": _models,
    "tasks": _tasks,
    "presets": _presets,
    "patterns": lambda: PATTERNS,
    **{name: _table(place) for name, place in TABLES.items()},
    "allocators": _allocators,
    "selection": _selection,
    "train-presets": _train_presets,
    "circuit-presets": _circuit_presets,
    "networks": _networks,
}


def list_names(what: str) -> dict[str, str]:
    """The names of one list, each with a note.

    Parameters
    ----------
    what
        ``models``, ``tasks``, ``presets``, ``patterns`` or a table of methods.

    Raises
    ------
    FewerError
        When there is no such list, with the nearest one.

    Examples
    --------
    >>> list_names("patterns")["2:4"]
    'of every 4 consecutive inputs at most 2 stay; any n:m'
    """
    if what not in LISTS:
        raise FewerError(f"there is no list of {what!r}{near_match(what, LISTS)}")
    return LISTS[what]()
