"""A classifier of any kind, the names of its outputs, and which output each class of a data set is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError, near_match
from fewer.distortion.outputs import output_tensors
from fewer.models.running import evaluating
from fewer.models.spec import LoadedModel, load_model
from fewer.tasks.classify.dataset import ClassifyData
from fewer.tasks.classify.readers import class_names
from fewer.tasks.facts import facts_of

__all__ = ["ClassMap", "Classifier", "map_classes", "open_classifier", "output_count", "scores_of"]


@dataclass(frozen=True, eq=False)
class Classifier:
    """A model that gives a score per class.

    Attributes
    ----------
    loaded
        The model.
    outputs
        Number of classes.
    classes
        Names of the outputs in their order; empty where nobody knows them.
    """

    loaded: LoadedModel
    outputs: int
    classes: tuple[str, ...] = ()

    def name(self, output: int) -> str:
        """Of an output: its class, or its number."""
        return self.classes[output] if self.classes else str(output)


def output_count(loaded: LoadedModel) -> int:
    """Classes of a model: the width of its output [N, classes]; 0 for a model that gives anything else.

    Examples
    --------
    >>> from fewer.data.preprocess import Preprocess
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> output_count(LoadedModel(net, "toy", {}, Preprocess((3, 2, 2))))
    5
    """
    device = next((p.device for p in loaded.model.parameters()), torch.device("cpu"))
    try:
        with evaluating(loaded.model):
            found = output_tensors(loaded.model(torch.zeros(1, *loaded.input_size, device=device)))[0]
    except Exception:  # a model that cannot be called with images is no classifier of images
        return 0
    return int(found.shape[1]) if found.ndim == 2 and found.shape[1] > 1 else 0


def open_classifier(spec: Any, classes: str | None = None) -> Classifier:
    """Load a classifier.

    Parameters
    ----------
    spec
        ``fewer/NAME``, ``timm/NAME``, ``hf/NAME``, ``FILE.py:FUNCTION``, a run folder, a module, or a loaded model.
    classes
        File with the names of the outputs in their order; by default those that a run folder keeps.

    Raises
    ------
    FewerError
        When there is no such model, it is no classifier, or the file has another number of names.
    """
    loaded = spec if isinstance(spec, LoadedModel) else load_model(spec)
    outputs = output_count(loaded)
    if not outputs:
        raise FewerError(f"{loaded.name} is no classifier of images: its output is not one score per class")
    names = tuple(facts_of(loaded, "classify").classes)
    if classes is not None:
        names = class_names(Path(classes))
    if names and len(names) != outputs:
        raise FewerError(f"{classes or loaded.name} names {len(names)} classes; {loaded.name} has {outputs} outputs")
    return Classifier(loaded, outputs, names)


@dataclass(frozen=True, eq=False)
class ClassMap:
    """Which output of a model each class of a data set is.

    Attributes
    ----------
    outputs
        [classes of the data], an output each.
    how
        In words: ``by name``, ``by number`` or ``in order``.
    """

    outputs: np.ndarray
    how: str


def _plain(name: str) -> str:
    return name.strip().lower().replace("_", " ").replace("-", " ")


def map_classes(data: ClassifyData, model: Classifier) -> ClassMap:
    """Match the classes of a data set to the outputs of a model: by name, by number, or in order.

    Names of the outputs come from the run of the model, else from ``classes.txt`` or ``classes.json`` beside the data.

    Raises
    ------
    FewerError
        When a class has no output of its name, or nothing says which output it is.
    """
    names = model.classes or data.model_classes
    if names and len(names) != model.outputs:
        raise FewerError(
            f"the data of {data.root} names {len(names)} classes; {model.loaded.name} has {model.outputs} outputs"
        )
    if names:
        known = {_plain(name): i for i, name in enumerate(names)}
        if any(_plain(name) in known for name in data.classes):
            return ClassMap(np.array([_named(name, known, names, data) for name in data.classes]), "by name")
    if all(name.isdecimal() and int(name) < model.outputs for name in data.classes):
        return ClassMap(np.array([int(name) for name in data.classes]), "by number")
    if len(data.classes) == model.outputs:
        return ClassMap(np.arange(model.outputs), "in order")
    if names:
        raise FewerError(f"no class of {data.root} ({data.classes[0]}, ...) is an output of {model.loaded.name}")
    raise FewerError(
        f"{data.root} has {len(data.classes)} classes and {model.loaded.name} has {model.outputs} outputs: name the "
        f"folders by number, or put a classes.txt with the {model.outputs} names in the model's order beside them"
    )


def _named(name: str, known: dict[str, int], names: Sequence[str], data: ClassifyData) -> int:
    plain = _plain(name)
    if plain not in known:
        raise FewerError(f"the class {name!r} of {data.root} is no output of the model{near_match(name, names)}")
    return known[plain]


def scores_of(model: nn.Module, batch: Tensor) -> Tensor:
    """Scores [N, classes] of a batch, on the CPU; the model must be in evaluation mode.

    Examples
    --------
    >>> tuple(scores_of(nn.Flatten(), torch.zeros(2, 3, 1, 1)).shape)
    (2, 3)
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch.no_grad():
        return output_tensors(model(batch.to(device)))[0].float().cpu()
