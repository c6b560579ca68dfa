"""Cut and repair a whole model, layer by layer in execution order, each on the inputs it will really get.

A layer that is repaired on the dense model's inputs does not know what the cuts before it have done. Here the dense
and the compressed model run in step, and each layer minimises ``(1 - c) |W x - W0 x|^2 + c |W x~ - W0 x|^2`` over the
dense input x and the input x~ that it will really get. ``correction`` c = 0 is the repair that was sensed; 1 also makes
up for all that went wrong before, which overfits small calibration sets. A layer that is neither cut nor rounded is not
touched. How much of a repair is kept is for the images to say that it was not fitted to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fewer.compensate.again import later_inputs, with_later
from fewer.compensate.balance import balanced
from fewer.compensate.held_out import Part, believed_shift, believed_weight, parts_of, together
from fewer.compensate.lockstep import PausedForwards, in_step
from fewer.compensate.moments import Moments, add_input
from fewer.compensate.sweep import Repair, Sweep
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.data.samples import Samples, leaves
from fewer.formats.integers import BITS, rounded
from fewer.models.layers import Fit, Layer
from fewer.models.running import Forward, batch_size

__all__ = ["HeldOut", "Layered", "UnitFacts", "compress_in_order"]

_LITTLE = 0.001
"""Inputs that moved by no more than this share of their energy leave nothing that a layer should make up for."""


@dataclass(frozen=True)
class Layered:
    """A model and the layers of its units, by unit name."""

    model: nn.Module
    layers: Mapping[str, Layer]

    def of_module(self) -> dict[nn.Module, str]:
        """Unit of each module that uses its weight; a tied weight has several."""
        return {user: name for name, layer in self.layers.items() for user in layer.users}


@dataclass(frozen=True)
class UnitFacts:
    """What is known of the units before, each by unit name.

    Attributes
    ----------
    alive
        Masks of an earlier round.
    gradients
        Root mean square gradient of each unit's weight; for the ``taylor`` score.
    sensitivity
        How much the output feels each row of units whose ``obs`` score it weighs.
    places
        How often each position of a unit's input counts in its repair, one tensor for each batch
        (:func:`fewer.distortion.places.felt_places`).
    calls
        How often a forward pass uses each unit (:func:`fewer.compensate.again.calls_of`); once by default.
    """

    alive: Mapping[str, Tensor] | None = None
    gradients: Mapping[str, Tensor] | None = None
    sensitivity: Mapping[str, Tensor] | None = None
    places: Mapping[str, Sequence[Tensor]] | None = None
    calls: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class HeldOut:
    """How a repair is judged on images that it was not fitted to, and what is found on the way.

    Attributes
    ----------
    folds
        Part of each sample, by files: repairs are believed as far as they hold on the other part
        (:mod:`fewer.compensate.held_out`). None believes them.
    dense_moments
        Filled with the moments of the dense model's inputs by unit name and part, or used where they are there
        already: several plans for the same model, inputs and folds share them.
    believed
        Filled with the share of each repair that was kept, by unit name.
    """

    folds: Sequence[int] | None = None
    dense_moments: dict[str, list[Moments]] = field(default_factory=dict)
    believed: dict[str, float] = field(default_factory=dict)


def compress_in_order(
    dense: Layered,
    target: Layered,
    ladders: Mapping[str, Sequence[Option]],
    batches: Sequence[Any],
    repair: Repair,
    *,
    correction: float = 0.5,
    facts: UnitFacts | None = None,
    held_out: HeldOut | None = None,
    forward: Forward | None = None,
    done: Callable[[str], None] = lambda name: None,
) -> dict[str, Tensor]:
    """Write the chosen options into a model, in place.

    Parameters
    ----------
    dense
        The original model; not changed.
    target
        A copy of it, or the model of an earlier round, which becomes the compressed one.
    ladders
        Options of each unit up to the chosen one, which is last: the path of the sweep.
    batches
        Calibration inputs in as few batches as can be: one where they have one shape. All are in memory at once.
    repair
        How to cut and repair. Only ``obs`` looks at the inputs that earlier cuts have changed.
    correction
        0 to 1, see above.
    facts
        What is known of the units before.
    held_out
        How far repairs are believed; by default all the way.
    forward
        ``forward(model, batch)``.
    done
        Called with the name of each finished unit.

    Returns
    -------
    dict of str to Tensor
        Mask of every unit, shape (out, columns).
    """
    held_out, facts = held_out or HeldOut(), facts or UnitFacts()
    folds = None if held_out.folds is None else _by_batch(held_out.folds, batches)
    step = _Step(repair, correction, facts, held_out, folds)
    masks: dict[str, Tensor] = {}
    if not any(step.reads_inputs(ladders[name]) for name in target.layers):
        for name, layer in target.layers.items():  # no need to run the model
            masks[name] = step.compress(layer, dense.layers[name], ladders[name], [], [])
            done(name)
        return masks
    with (
        PausedForwards(dense.model, batches, dense.of_module(), forward) as reference,
        # a tied weight is repaired where it is used first, whichever of its modules that is
        PausedForwards(target.model, batches, target.of_module(), forward) as walk,
    ):
        for name, wanted, inputs in in_step(reference, walk):
            layer, original, uses, of = target.layers[name], dense.layers[name], facts.calls.get(name, 1), None
            if uses > 1 and repair.compensation == "obs" and step.changes(layer, original, ladders[name]):
                later = [
                    (
                        later_inputs(dense.model, original.users, batch, uses, forward),
                        later_inputs(target.model, layer.users, batch, uses, forward),
                    )
                    for batch in batches
                ]
                wanted, inputs, of = with_later((wanted, inputs), later)
            masks[name] = step.compress(layer, original, ladders[name], wanted, inputs, of)
            done(name)
    missing = [name for name in target.layers if name not in masks]
    if missing:
        raise FewerError(f"layer '{missing[0]}' was not reached by the forward pass")
    return masks


def _by_batch(folds: Sequence[int], batches: Sequence[Any]) -> list[Sequence[int]] | None:
    """The part of each sample, batch by batch.

    None where they are not as many as the samples, and where a batch holds samples of several parts whose rows cannot
    be told apart later, since they have different lengths.
    """
    edges = [0, *accumulate(batch_size(batch) for batch in batches)]
    if edges[-1] != len(folds):
        return None
    found = [folds[a:b] for a, b in pairwise(edges)]
    mixed = (batch for part, batch in zip(found, batches, strict=True) if len(set(part)) > 1)
    return found if all(_samples_first(batch) for batch in mixed) else None


def _samples_first(batch: Any) -> bool:
    """Whether the first dimension of every tensor of a batch is its samples, and not the points of one of them."""
    tensors = leaves(batch.batch() if isinstance(batch, Samples) else batch)
    return all(t.ndim > 0 and len(t) == batch_size(batch) for t in tensors)


def _moved(wanted: Sequence[Tensor], inputs: Sequence[Tensor]) -> float:
    """How far a layer's inputs are from those in the dense model, as a share of their energy."""
    moved = sum(float((now - before).square().sum()) for before, now in zip(wanted, inputs, strict=True))
    energy = sum(float(before.square().sum()) for before in wanted)
    return moved / energy if energy > 0 else float(moved > 0)


def _seen(layer: Layer, inputs: Sequence[Tensor]) -> Moments:
    """Moments of a layer's inputs."""
    user = layer.users[0]
    seen = Moments(int(getattr(user, "groups", 1)), layer.matrix.shape[1]).to(layer.matrix.device)
    for x in inputs:
        add_input(seen, user, x, share=1 / len(inputs))
    seen.check(layer.unit.name)
    return seen


@dataclass(frozen=True)
class _Step:
    """Cuts and repairs one layer after the other."""

    repair: Repair
    correction: float
    facts: UnitFacts
    held_out: HeldOut
    folds: list[Sequence[int]] | None

    def reads_inputs(self, ladder: Sequence[Option]) -> bool:
        """Whether making a layer in this way looks at its inputs."""
        return self.repair.compensation != "none" or not self.blind(ladder)

    def blind(self, ladder: Sequence[Option]) -> bool:
        """Whether which weights go, and how they are rounded, hangs on no input."""
        known = self.repair.score == "magnitude" or ladder[-1].is_dense
        return known and ladder[-1].precision in ("fp32", "bf16", "int8")

    @torch.no_grad()  # the paused model may have switched gradients on
    def compress(
        self,
        layer: Layer,
        original: Layer,
        ladder: Sequence[Option],
        wanted: Sequence[Tensor],
        inputs: Sequence[Tensor],
        of: Sequence[int] | None = None,
    ) -> Tensor:
        """Change a layer in place, whose inputs were ``wanted`` in the dense model; its mask.

        ``of`` says from which batch each of them comes, where a batch has several.
        """
        name = layer.unit.name
        untouched = self.untouched(layer, original)
        if not self.changes(layer, original, ladder):
            return torch.ones_like(layer.matrix, dtype=torch.bool)
        fit, self.held_out.believed[name] = self._fit(layer, original, ladder, (wanted, inputs, of), untouched)
        if not torch.isfinite(fit.weight).all():
            raise FewerError(f"repairing layer '{name}' gave NaN or infinity; try a larger damping")
        layer.install(fit.weight, fit.shift, fit.spread)
        return fit.mask

    def untouched(self, layer: Layer, original: Layer) -> bool:
        """Whether no earlier round has changed a layer."""
        before = (self.facts.alive or {}).get(layer.unit.name)
        return (before is None or bool(before.all())) and torch.equal(original.matrix, layer.matrix)

    def changes(self, layer: Layer, original: Layer, ladder: Sequence[Option]) -> bool:
        """Whether a layer is changed at all: what nobody asked to cut or round stays as it is, to the last bit."""
        return ladder[-1] != Option() or not self.untouched(layer, original)

    def _sweep(self, layer: Layer, moments: Moments, repair: Repair | None = None, **more: Any) -> Sweep:
        name, facts = layer.unit.name, self.facts
        return Sweep(
            layer.matrix,
            moments,
            repair or self.repair,
            centred=layer.centred,
            alive=facts.alive.get(name) if facts.alive else None,
            gradient=facts.gradients[name] if facts.gradients else None,
            sensitivity=facts.sensitivity.get(name) if facts.sensitivity else None,
            **more,
        )

    def _fit(
        self,
        layer: Layer,
        original: Layer,
        ladder: Sequence[Option],
        seen_by: tuple[Sequence[Tensor], Sequence[Tensor], Sequence[int] | None],
        untouched: bool,
    ) -> tuple[Fit, float]:
        """The layer as it will be, and the share of its repair that images it was not fitted to bear out."""
        wanted, inputs, of = seen_by
        user, name, repair, known = layer.users[0], layer.unit.name, self.repair, self.held_out.dense_moments
        if repair.compensation != "obs":
            # the dense model's inputs, the parts and the way to an option are for least squares alone
            if repair.compensation == "bias" and self.blind(ladder):
                bare = self._sweep(layer, _seen(layer, ()), replace(repair, compensation="none"))
                fit = list(bare.run(ladder[-1:]))[-1]
                return balanced(fit, layer.matrix, user, inputs, centred=layer.centred, name=name), 1.0
            seen = _seen(layer, inputs if self.reads_inputs(ladder) else ())
            return list(self._sweep(layer, seen).run(ladder[-1:]))[-1], 1.0
        if untouched and ladder[-1].sparsity == 0 and _moved(wanted, inputs) <= _LITTLE:
            return self._round(layer, ladder[-1], inputs), 1.0
        places = (self.facts.places or {}).get(name)
        if wanted is inputs:  # whose rows the dense model's are nobody knows
            known, places = {}, None
        folds = self.folds if of is None or self.folds is None else [self.folds[number] for number in of]
        if of is not None:  # what is known of positions is of the first use alone
            places = None
        parts = parts_of(user, wanted, inputs, layer.matrix.shape[1], folds, known.get(name), places)
        everything = together(parts)
        everything.after.check(name)
        known.setdefault(name, [p.before for p in parts])
        same = all(map(torch.equal, wanted, inputs))
        return self._refit(layer, original, ladder, parts, everything, same)

    def _round(self, layer: Layer, option: Option, inputs: Sequence[Tensor]) -> Fit:
        """A layer that is only rounded, with inputs nearly those of the dense model: nothing to make up for."""
        if option.precision not in BITS:  # rounded number by number, whatever the inputs
            matrix, whole = layer.matrix, torch.ones_like(layer.matrix, dtype=torch.bool)
            return Fit(option, whole, rounded(matrix.float(), option.precision), matrix.new_zeros(len(matrix)))
        return list(self._sweep(layer, _seen(layer, inputs)).run([option]))[-1]

    def _refit(
        self,
        layer: Layer,
        original: Layer,
        ladder: Sequence[Option],
        parts: list[Part],
        everything: Part,
        same: bool,
    ) -> tuple[Fit, float]:
        """The least-squares repair; ``same`` says that no cut before this layer has changed its inputs."""
        correction, kept = self.correction, [1.0]
        changed = not torch.equal(original.matrix, layer.matrix)

        def fitted_to(part: Part) -> Sweep:
            # what is wanted is what the dense layer gives, also where an earlier round has changed this one
            pairs = zip(part.own(original, layer.centred), part.targets(original, layer.centred), strict=True)
            targets = [(1 - correction) * a + correction * b for a, b in pairs]
            mixed = part.after.blended(part.before, 1 - correction, centred=layer.centred)
            # the shift comes on top of what this layer's bias is now, and an earlier round may have moved that
            mean = part.mean_output(original) + original.offset - layer.offset
            return self._sweep(layer, mixed, target=targets, wanted_mean=mean)

        def believed(cut: Tensor, repaired: Tensor, mask: Tensor) -> Tensor:
            weight, kept[0] = believed_weight(parts, original, layer.centred, fitted_to, sweep, cut, repaired, mask)
            return weight

        sweep = fitted_to(everything)
        if len(parts) > 1:
            sweep.believed = believed
        fit = list(sweep.run(ladder, repair_dense=changed or (correction > 0 and not same)))[-1]
        if layer.centred and not changed:
            fit = replace(fit, shift=believed_shift(parts, original, fit.weight, fit.shift))
        return fit, kept[0]
