"""A classifier in few bits: which layers are exchanged before a training, and what is watched and told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.quantize.fake import QUANTISERS
from fewer.quantize.lowbit import AUTO, LayerBits, exchange, low_bit_layers, parse_bits
from fewer.quantize.metagrad import MetaGrad, base_rounding, hypernetwork_of
from fewer.quantize.qat import stored_precision
from fewer.tasks.classify.settings import TrainSettings
from fewer.training.callbacks import Callback
from fewer.training.constrained import Held
from fewer.training.history import Fit
from fewer.training.optimise import OPTIMISERS, optimiser_of

__all__ = ["ExactGradients", "LowBit", "check_bits", "lower", "meta_optimiser", "still_held", "stored_units"]

_OF_BITS = ("quantiser", "gradients", "gradient_place", "edges", "meta_loss")
"""Settings that change nothing without bits."""


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
    steps
        Of the training, whose end is validated too; None where a time ends it.
    seen
        One entry per layer and validation: ``step``, ``layer``, and the errors of
        :class:`~fewer.quantize.gradients.GradientRounding`.
    """

    model: nn.Module
    layers: list[LayerBits]
    every: int
    steps: int | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)

    def start(self, fit: Fit) -> None:
        """Go on with what was seen before an interruption."""
        self.seen = fit.facts.setdefault("gradients", [])

    def _is_due(self, step: int) -> bool:
        return step % self.every == 0 or step == self.steps

    def before_step(self, fit: Fit) -> None:
        """Watch the step before a validation."""
        if self._is_due(fit.step + 1):
            for layer in low_bit_layers(self.model).values():
                if layer.gradient is not None:
                    layer.gradient.watched = True

    def after_step(self, fit: Fit) -> None:
        """Collect what was seen."""
        if not self._is_due(fit.step):
            return
        for name, layer in low_bit_layers(self.model).items():
            if layer.gradient is not None and layer.gradient.seen:
                self.seen.append({"step": fit.step, "layer": name, **layer.gradient.seen})

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"layers": [vars(layer) for layer in self.layers], "gradients": self.seen}


@dataclass(eq=False)
class ExactGradients(Callback):
    """Now and then, gradients in fp32 of the same batch teach the hypernetwork what it should have given.

    Attributes
    ----------
    model
        That is trained.
    objective
        ``objective(model, number)``: the loss of a batch, or losses by name.
    every
        Steps from one lesson to the next; each costs one more pass.
    accumulate
        Batches per step; the first one is looked at.
    """

    model: nn.Module
    objective: Callable[[nn.Module, int], Any]
    every: int
    accumulate: int = 1
    meta: MetaGrad | None = None
    exact: tuple[Tensor | None, ...] = ()

    def before_step(self, fit: Fit) -> None:
        """Find the exact gradients at the weights that the step begins with; nothing of the model changes."""
        self.exact = ()
        if self.meta is None or fit.step % self.every:
            return
        kept = [(buffer, buffer.detach().clone()) for buffer in self.model.buffers()]
        roundings = [layer.gradient for layer in low_bit_layers(self.model).values() if layer.gradient is not None]
        self.model.train()
        try:
            for rounding in roundings:
                rounding.enabled = False
            found = self.objective(self.model, fit.step * self.accumulate)
            total: Any = sum(found.values()) if isinstance(found, Mapping) else found
            self.exact = torch.autograd.grad(total, self.meta.weights, allow_unused=True)
        finally:
            for rounding in roundings:
                rounding.enabled = True
            with torch.no_grad():
                for buffer, before in kept:
                    buffer.copy_(before)

    def after_step(self, fit: Fit) -> None:
        """Let the hypernetwork learn from them."""
        if self.meta is not None and self.exact:
            self.meta.teach(self.exact)


def check_bits(settings: TrainSettings) -> None:
    """Refuse bits and methods that do not exist or do not fit each other, before anything is read.

    Raises
    ------
    FewerError
        Also for what would change nothing.

    Examples
    --------
    >>> check_bits(TrainSettings(gradients="luq"))
    Traceback (most recent call last):
    fewer.core.errors.FewerError: --gradients luq changes nothing without --bits; give for example --bits w4a4g4
    """
    form = hypernetwork_of(settings.gradients)
    if settings.quantiser != AUTO:
        _ = QUANTISERS[settings.quantiser]
    given = {name: getattr(settings, name) for name in _OF_BITS}
    changed = [name for name, value in given.items() if value != TrainSettings.model_fields[name].default]
    if settings.bits is None:
        if changed:
            flag = f"--{changed[0].replace('_', '-')} {given[changed[0]]}"
            raise FewerError(f"{flag} changes nothing without --bits; give for example --bits w4a4g4")
        return
    if parse_bits(settings.bits).gradients == 32 and "gradients" in changed:
        raise FewerError(f"--gradients {settings.gradients} is for gradients of few bits; give --bits with g2 to g8")
    if form is None and settings.meta_loss != "next":
        raise FewerError("--meta-loss is for a hypernetwork; give for example --gradients metagrad")


def lower(model: nn.Module, settings: TrainSettings, example: Tensor, held: Mapping[str, Held]) -> LowBit:
    """Exchange the layers of a model, in place; see :func:`fewer.quantize.lowbit.exchange`.

    Raises
    ------
    FewerError
        For bits or methods that do not exist.
    """
    assert settings.bits is not None
    layers = exchange(
        model.train(),
        parse_bits(settings.bits),
        example,
        quantiser=settings.quantiser,
        gradients=base_rounding(settings.gradients),
        where=settings.gradient_place,
        edges=settings.edges,
        held={name: one.precision for name, one in held.items()},
    )
    return LowBit(model, layers, settings.every, settings.steps if settings.time is None else None)


def still_held(model: nn.Module, held: Mapping[str, Held]) -> dict[str, Held]:
    """What a training in few bits keeps of a run: its masks, and precisions of no more bits than the layers have."""
    layers = low_bit_layers(model)
    rounded = {name for name, layer in layers.items() if layer.weight_quantiser is not None}
    kept = {name: replace(one, precision="fp32") if name in rounded else one for name, one in held.items()}
    return {name: one for name, one in kept.items() if one.mask is not None or one.precision != "fp32"}


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
    return MetaGrad(base, weights, form, next_loss=settings.meta_loss != "exact", seed=settings.seed)


def stored_units(
    model: nn.Module, held: Mapping[str, Held], patterns: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Units of a trained model whose layers are plain again: masks with their patterns, and precisions that hold."""
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
        pattern = "dense" if own.mask is None else (patterns or {}).get(name, "unstructured")
        with torch.no_grad():
            units.append(
                {"name": name, "pattern": pattern, "sparsity": sparsity, "precision": precision, "mask": own.mask}
            )
    return units
