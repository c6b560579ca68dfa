"""A classifier in few bits: which layers are exchanged before a training, and what is watched and told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.models.artefact import RECIPE
from fewer.models.recipe import read_recipe
from fewer.models.spec import load_model
from fewer.quantize.lowbit import LayerBits, exchange, low_bit_layers, parse_bits
from fewer.quantize.metagrad import MetaGrad, base_rounding, hypernetwork_of
from fewer.quantize.qat import stored_precision
from fewer.tasks.classify.settings import TrainSettings
from fewer.training.callbacks import Callback
from fewer.training.constrained import Held
from fewer.training.history import Fit
from fewer.training.optimise import OPTIMISERS, optimiser_of

__all__ = ["LowBit", "held_by", "lower", "meta_optimiser", "stored_units"]


@dataclass(eq=False)
class LowBit(Callback):
    """What a training in few bits did; before each validation, one backward pass is compared with one in fp32.

    Attributes
    ----------
    model
        That is trained.
    layers
        Bits by layer, and what stayed in floating point.
    every
        Steps between validations.
    seen
        One entry per layer and validation: ``step``, ``layer``, and the errors of
        :class:`~fewer.quantize.gradients.GradientRounding`.
    """

    model: nn.Module
    layers: list[LayerBits]
    every: int
    seen: list[dict[str, Any]] = field(default_factory=list)

    def before_step(self, fit: Fit) -> None:
        """Watch the step before a validation."""
        if (fit.step + 1) % self.every == 0:
            for layer in low_bit_layers(self.model).values():
                if layer.gradient is not None:
                    layer.gradient.watched = True

    def after_step(self, fit: Fit) -> None:
        """Collect what was seen."""
        if fit.step % self.every:
            return
        for name, layer in low_bit_layers(self.model).items():
            if layer.gradient is not None and layer.gradient.seen:
                self.seen.append({"step": fit.step, "layer": name, **layer.gradient.seen})

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"layers": [vars(layer) for layer in self.layers], "gradients": self.seen}


def held_by(init: str | None) -> dict[str, Held]:
    """What a run that a training starts from holds: masks of layers that were cut, and stored precisions, by layer.

    In a layer that was cut, a weight that is zero stays zero.
    """
    if init is None or not (Path(init) / RECIPE).is_file():
        return {}
    units = read_recipe(Path(init) / RECIPE).units
    model = load_model(init).model if units else nn.Identity()
    held: dict[str, Held] = {}
    for unit in units:
        weight: Any = model.get_submodule(unit.name).weight
        mask: Tensor | None = None if unit.pattern == "dense" else weight.detach() != 0
        if mask is not None or unit.precision != "fp32":
            held[unit.name] = Held(mask, unit.precision)
    return held


def lower(model: nn.Module, settings: TrainSettings, example: Tensor, held: Mapping[str, Held]) -> LowBit:
    """Exchange the layers of a model, in place; see :func:`fewer.quantize.lowbit.exchange`.

    Raises
    ------
    FewerError
        For bits or methods that do not exist.
    """
    assert settings.bits is not None
    layers = exchange(
        model,
        parse_bits(settings.bits),
        example,
        quantiser=settings.quantiser,
        gradients=base_rounding(settings.gradients),
        where=settings.gradient_place,
        edges=settings.edges,
        held={name: one.precision for name, one in held.items()},
    )
    return LowBit(model, layers, settings.every)


def meta_optimiser(model: nn.Module, settings: TrainSettings, parameters: list[nn.Parameter]) -> MetaGrad:
    """The optimiser of the settings, with the hypernetwork of their gradients around it.

    Raises
    ------
    FewerError
        When the optimiser's steps do not follow the size of gradients, so that nothing could be learnt.
    """
    form = hypernetwork_of(settings.gradients)
    assert form is not None
    how = optimiser_of(settings)
    if how.name == "relative-adam":
        raise FewerError("a hypernetwork for gradients needs --optimiser sgd, adam or adamw, not relative-adam")
    groups: Any = [{"params": parameters, "lr": how.rate, "weight_decay": how.decay}]
    base = OPTIMISERS[how.name].run(groups, how)
    own = {id(layer.weight) for layer in low_bit_layers(model).values() if layer.gradient is not None}
    weights = [p for p in parameters if id(p) in own]
    if not weights:
        raise FewerError(f"--gradients {settings.gradients} rewrites gradients of few bits; give --bits with g2 to g8")
    return MetaGrad(base, weights, form, seed=settings.seed)


def stored_units(model: nn.Module, held: Mapping[str, Held]) -> list[dict[str, Any]]:
    """Units of a trained model whose layers are plain again: masks, and precisions that hold exactly."""
    units, listed = [], set()
    for name, layer in model.named_modules():
        if type(layer) not in (nn.Linear, nn.Conv2d):
            continue
        weight: Any = layer.weight
        if id(weight) in listed:  # tied to one that is stored already
            continue
        listed.add(id(weight))
        own = held.get(name, Held())
        precision = own.precision if own.precision != "fp32" else stored_precision(weight)
        if own.mask is None and precision == "fp32":
            continue
        sparsity = 0.0 if own.mask is None else 1 - float(own.mask.float().mean())
        pattern = "dense" if own.mask is None else "unstructured"
        with torch.no_grad():
            units.append(
                {"name": name, "pattern": pattern, "sparsity": sparsity, "precision": precision, "mask": own.mask}
            )
    return units
