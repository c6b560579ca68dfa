"""A classifier in few bits: which layers are exchanged before a training, and what is watched and told of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from fewer.models.spec import LoadedModel, load_model
from fewer.quantize.lowbit import LayerBits, exchange, low_bit_layers, parse_bits, plain
from fewer.quantize.qat import stored_precision
from fewer.tasks.classify.settings import TrainSettings
from fewer.training.callbacks import Callback
from fewer.training.constrained import Constrained, Held
from fewer.training.history import Fit

__all__ = ["LowBit", "constraints_of", "held_of", "lower", "stored_units"]


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
        One entry per validation: ``step``, ``layer``, and the errors of :class:`~fewer.quantize.gradients.GradientRounding`.
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


def held_of(loaded: LoadedModel) -> dict[str, Held]:
    """Masks and stored precisions of the units of a compressed run, by layer name."""
    from fewer.models.recipe import read_recipe

    path = loaded.source.get("run") if isinstance(loaded.source, Mapping) else None
    _ = (path, read_recipe)
    return {}


def constraints_of(model: nn.Module, init: str | None) -> tuple[Constrained | None, dict[str, str]]:
    """What a run that the training starts from says must stay, and the stored precision of each layer.

    A weight that is zero in the run and lies in a unit that was cut stays zero.
    """
    from pathlib import Path

    from fewer.models.artefact import RECIPE
    from fewer.models.recipe import read_recipe

    if init is None or not (Path(init) / RECIPE).is_file():
        return None, {}
    units = read_recipe(Path(init) / RECIPE).units
    start = load_model(init).model
    held: dict[str, Held] = {}
    for unit in units:
        weight: Any = start.get_submodule(unit.name).weight
        mask: Tensor | None = None if unit.pattern == "dense" else weight.detach() != 0
        if mask is not None or unit.precision != "fp32":
            held[unit.name] = Held(mask, unit.precision)
    if not held:
        return None, {}
    return Constrained(model, held, only_trainable=True), {name: one.precision for name, one in held.items()}


def lower(model: nn.Module, settings: TrainSettings, example: Tensor, held: Mapping[str, str]) -> LowBit:
    """Exchange the layers of a model, in place; see :func:`fewer.quantize.lowbit.exchange`."""
    from fewer.quantize.metagrad import base_rounding

    layers = exchange(
        model,
        parse_bits(settings.bits),
        example,
        quantiser=settings.quantiser,
        gradients=base_rounding(settings.gradients),
        where=settings.gradient_place,
        edges=settings.edges,
        held=held,
    )
    return LowBit(model, layers, settings.every)


def stored_units(model: nn.Module, settings: TrainSettings, held: Mapping[str, Held]) -> list[dict[str, Any]]:
    """Units of the artefact of a trained model whose layers are plain again: masks, and precisions that hold exactly."""
    units = []
    for name, layer in model.named_modules():
        if type(layer) not in (nn.Linear, nn.Conv2d):
            continue
        own = held.get(name, Held())
        precision = own.precision if own.precision != "fp32" else stored_precision(layer.weight)  # type: ignore[arg-type]
        mask = own.mask
        if mask is None and precision == "fp32":
            continue
        sparsity = 0.0 if mask is None else 1 - float(mask.float().mean())
        pattern = "dense" if mask is None else "unstructured"
        units.append({"name": name, "pattern": pattern, "sparsity": sparsity, "precision": precision, "mask": mask})
    return units


__all__ += ["plain"]
