"""What the training of a classifier begins with: a network, and the weights of chance, of a file or of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from fewer.core.errors import FewerError
from fewer.data.preprocess import Preprocess
from fewer.kernels.pixels import same_pixels
from fewer.models.artefact import RECIPE, load_masks
from fewer.models.build import build_architecture
from fewer.models.options import load_checkpoint, other_head
from fewer.models.recipe import read_recipe
from fewer.models.spec import LoadedModel, load_model
from fewer.tasks.classify.model import output_count
from fewer.tasks.classify.networks import NETWORKS, build
from fewer.tasks.classify.settings import TrainSettings
from fewer.tasks.facts import facts_of
from fewer.training.constrained import Held

__all__ = ["SMALL", "Start", "start_of"]

SMALL = Preprocess((3, 32, 32), mean=(0.5,), std=(0.25,), interpolation="bilinear", crop=1.0)
"""Input of the networks for small images."""
AUTO, USUAL = "auto", "resnet20"
_HEADS = {"task": "args", "builtin": "args", "timm": "kwargs", "torchvision": "kwargs"}
"""By kind of a source: where it keeps the number of outputs."""


@dataclass(frozen=True, eq=False)
class Start:
    """A network with the weights that it starts from.

    Attributes
    ----------
    loaded
        The network.
    held
        By layer: what the run that it starts from has fixed, a mask or a stored precision.
    patterns
        By layer: the name of the pattern that its mask has.
    notes
        Sentences for the plan of the training.
    """

    loaded: LoadedModel
    held: dict[str, Held] = field(default_factory=dict)
    patterns: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def start_of(settings: TrainSettings, classes: Sequence[str]) -> Start:
    """The network of the settings, with the weights that it starts from.

    A run that a training starts from brings its own network: with its masks, stored precisions and merged tokens, and
    with a last layer of its own for the classes of the data where it has another number of outputs.

    Raises
    ------
    FewerError
        When there is no such network, or the weights are of another one.

    Examples
    --------
    >>> start_of(TrainSettings(network="resnet8"), ("cat", "dog")).loaded.name
    'resnet8'
    """
    torch.manual_seed(settings.seed)
    if settings.init is not None and (Path(settings.init) / RECIPE).is_file():
        return _from_run(settings, settings.init, classes)
    loaded = _named(settings, len(classes))
    if settings.init is None:
        return Start(loaded)
    if not Path(settings.init).is_file():
        raise FewerError(f"--init {settings.init} is neither a run folder nor a file of weights")
    new = other_head(loaded.model, settings.init)
    load_checkpoint(loaded.model, settings.init, new_head=True)
    told = f"; {new[0]} is for other classes there and begins at random" if new else ""
    return Start(loaded, notes=(f"starts from the weights of {settings.init}{told}",))


def _named(settings: TrainSettings, classes: int) -> LoadedModel:
    """The network of the settings, without what ``init`` says."""
    name, side = settings.network, settings.input_size
    name = USUAL if name == AUTO else name
    if name in NETWORKS:
        args = {"num_classes": classes}
        source = {"kind": "task", "task": "classify", "name": name, "args": args}
        return LoadedModel(build(name, **args), name, source, _sized(SMALL, side), "classify")
    if "/" not in name and ":" not in name:
        _ = NETWORKS[name]  # says the nearest name
    loaded = load_model(name, **({"input_size": (3, side, side)} if side else {}))
    return loaded if output_count(loaded) == classes else _with_outputs(loaded, classes)


def _sized(preprocess: Preprocess, side: int) -> Preprocess:
    return Preprocess.of(preprocess.to_dict() | {"input_size": (3, side, side)}) if side else preprocess


def _with_outputs(loaded: LoadedModel, classes: int) -> LoadedModel:
    """A trained network with another number of outputs, which start at random."""
    key = _HEADS.get(loaded.source["kind"])
    if key is None:
        raise FewerError(
            f"{loaded.name} has {output_count(loaded)} outputs and there are {classes} classes; return a network with "
            f"{classes} outputs"
        )
    source = {**loaded.source, key: {**loaded.source.get(key, {}), "num_classes": classes}}
    model, given = build_architecture(source), loaded.model.state_dict()
    own = model.state_dict()
    kept = {name: given[name] for name in own if name in given and given[name].shape == own[name].shape}
    model.load_state_dict(own | kept)
    return replace(loaded, model=same_pixels(model, loaded.model), source=source, task="classify")


def _from_run(settings: TrainSettings, run: str, classes: Sequence[str]) -> Start:
    """The model of a run folder, as it is but for its last layer."""
    begun = load_model(run)
    if settings.network != AUTO:
        _check_same(settings, run, begun)
    recipe = read_recipe(Path(run) / RECIPE)
    names, outputs = tuple(facts_of(begun, "classify").classes), output_count(begun)
    notes = [f"starts from the run {run}"]
    name = str(begun.meta.get("model") or recipe.source.get("name") or begun.name)
    loaded = replace(begun, name=name, preprocess=_sized(begun.preprocess, settings.input_size), meta={})
    if outputs and outputs != len(classes):
        if recipe.tokens is not None or recipe.integers:
            raise FewerError(
                f"the run {run} has {outputs} outputs and there are {len(classes)} classes; a run with merged tokens "
                "or integer functions cannot be given other outputs, so train its dense model first"
            )
        loaded = _with_outputs(loaded, len(classes))
        notes.append(f"its last layer, for {outputs} classes, is replaced by one for {len(classes)}")
    elif names and set(names) == set(classes) and names != tuple(classes):
        notes.append("it gives its classes in another order than the data, so its last layer has to learn anew")
    held, patterns = _held(run, loaded)
    if held:
        notes.append(f"{len(held)} layers keep the mask or the precision that they have there")
    return Start(loaded, held, patterns, tuple(notes))


def _check_same(settings: TrainSettings, run: str, begun: LoadedModel) -> None:
    """Refuse a run of another network than the one that was named."""
    own = _named(settings, output_count(begun) or 2).model.state_dict()
    start = begun.model.state_dict()
    if start.keys() != own.keys() or any(start[name].shape != own[name].shape for name in own):
        raise FewerError(
            f"the run {run} holds another network than {settings.network}; leave --network out, and the training "
            "takes that of the run"
        )


def _held(run: str, loaded: LoadedModel) -> tuple[dict[str, Held], dict[str, str]]:
    """What a run has fixed, by layer: masks and stored precisions; and the patterns of the masks."""
    units = read_recipe(Path(run) / RECIPE).units
    masks = load_masks(run) if units else {}
    held: dict[str, Held] = {}
    patterns: dict[str, str] = {}
    for unit in units:
        weight = getattr(loaded.model.get_submodule(unit.name), "weight", None)
        if weight is None or tuple(weight.shape) != tuple(unit.shape):  # a last layer that was replaced
            continue
        mask = masks.get(unit.name)
        if mask is not None or unit.precision != "fp32":
            held[unit.name], patterns[unit.name] = Held(mask, unit.precision), unit.pattern
    return held, patterns
