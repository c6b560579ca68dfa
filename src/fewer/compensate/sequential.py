"""Cut and repair a whole model, layer by layer in execution order, each on the inputs it will really get.

A layer that is repaired on the dense model's inputs does not know what the cuts before it have done. Here the dense
and the compressed model run in step, and each layer minimises ``(1 - c) |W x - W0 x|^2 + c |W x~ - W0 x|^2`` over the
dense input x and the input x~ that it will really get. ``correction`` c = 0 is the repair that was sensed; 1 also makes
up for all that went wrong before, which overfits small calibration sets. The mean is always corrected in full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewer.compensate.lockstep import PausedForwards
from fewer.compensate.moments import Moments, add_input, rows_wanted
from fewer.compensate.sweep import Repair, Sweep
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.models.inputs import sampled_rows
from fewer.models.layers import Fit, Layer
from fewer.models.running import Forward


def compress_in_order(
    dense: nn.Module,
    model: nn.Module,
    dense_layers: Mapping[str, Layer],
    layers: Mapping[str, Layer],
    ladders: Mapping[str, Sequence[Option]],
    batches: Sequence[Any],
    repair: Repair,
    *,
    correction: float = 0.5,
    alive: Mapping[str, Tensor] | None = None,
    gradients: Mapping[str, Tensor] | None = None,
    sensitivity: Mapping[str, Tensor] | None = None,
    dense_moments: dict[str, Moments] | None = None,
    forward: Forward | None = None,
    done: Callable[[str], None] = lambda name: None,
) -> dict[str, Tensor]:
    """Write the chosen options into a model, in place.

    Parameters
    ----------
    dense
        The original model; not changed.
    model
        A copy of it, or the model of an earlier round, which becomes the compressed one.
    dense_layers, layers
        The units in both, by name.
    ladders
        Options of each unit up to the chosen one, which is last: the path of the sweep.
    batches
        Calibration inputs in as few batches as can be: one where they have one shape. All are in memory at once.
    repair
        How to cut and repair. Only ``obs`` looks at the inputs that earlier cuts have changed.
    correction
        0 to 1, see above.
    alive
        Masks of an earlier round.
    gradients
        Root mean square gradient of each unit's weight; for the ``taylor`` score.
    sensitivity
        How much the output feels each row of each unit; for the ``obs`` score.
    dense_moments
        Filled with the moments of the dense model's inputs by unit name, or used where they are there already: several
        plans for the same model and inputs share them.
    forward
        ``forward(model, batch)``.
    done
        Called with the name of each finished unit.

    Returns
    -------
    dict of str to Tensor
        Mask of every unit, shape (out, columns).
    """
    alive = alive or {}
    known = dense_moments if dense_moments is not None else {}
    masks: dict[str, Tensor] = {}
    # a tied weight is repaired where it is used first, whichever of its modules that is
    users = {user: name for name, layer in layers.items() for user in layer.users}
    dense_users = {user: name for name, layer in dense_layers.items() for user in layer.users}
    with (
        PausedForwards(dense, batches, dense_users, forward) as reference,
        PausedForwards(model, batches, users, forward) as walk,
    ):
        while True:
            there, here = reference.advance(), walk.advance()
            if there is None or here is None:
                break
            (name, wanted_inputs), (other, inputs) = there, here
            if name != other:
                raise FewerError(f"the model takes another path once it is compressed: layer '{other}' before '{name}'")
            layer, original = layers[name], dense_layers[name]
            sweep = partial(
                Sweep,
                repair=repair,
                centred=layer.centred,
                alive=alive.get(name),
                gradient=gradients[name] if gradients else None,
                sensitivity=sensitivity[name] if sensitivity else None,
            )
            fit = _fit(layer, original, ladders[name], wanted_inputs, inputs, correction, repair, sweep, known)
            masks[name] = fit.mask
            if not torch.isfinite(fit.weight).all():
                raise FewerError(f"repairing layer '{name}' gave NaN or infinity; try a larger damping")
            layer.install(fit.weight, fit.shift, fit.spread)
            done(name)
    missing = [name for name in layers if name not in masks]
    if missing:
        raise FewerError(f"layer '{missing[0]}' was not reached by the forward pass")
    return masks


def _fit(
    layer: Layer,
    original: Layer,
    ladder: Sequence[Option],
    wanted_inputs: Sequence[Tensor],
    inputs: Sequence[Tensor],
    correction: float,
    repair: Repair,
    make: Callable[..., Sweep],
    known: dict[str, Moments],
) -> Fit:
    user = layer.users[0]
    moments = _moments(user, inputs, getattr(user, "groups", 1), layer.matrix.shape[1])
    moments.check(layer.unit.name)
    changed = not torch.equal(original.matrix, layer.matrix)
    if repair.compensation != "obs" or (not changed and all(map(torch.equal, wanted_inputs, inputs))):
        return list(make(layer.matrix, moments).run(ladder))[-1]
    name = layer.unit.name
    if name not in known:
        known[name] = _moments(user, wanted_inputs, moments.groups, moments.columns)
    before = known[name]
    # what is wanted is what the dense layer gives, also where an earlier round has changed this one
    own = _own_targets(original, before, layer.centred)
    targets, mean = _targets(original, moments, wanted_inputs, inputs, layer.centred)
    blended = [(1 - correction) * a + correction * b for a, b in zip(own, targets, strict=True)]
    # the shift comes on top of what this layer's bias is now, and an earlier round may have moved that
    mean = mean + original.offset - layer.offset
    mixed = moments.blended(before, 1 - correction, centred=layer.centred)
    sweep = make(layer.matrix, mixed, target=blended, wanted_mean=mean)
    return list(sweep.run(ladder, repair_dense=correction > 0 or changed))[-1]


def _moments(user: nn.Module, inputs: Sequence[Tensor], groups: int, columns: int) -> Moments:
    """Moments of a layer's inputs from all batches together."""
    moments = Moments(groups, columns)
    for x in inputs:
        add_input(moments, user, x, share=1 / len(inputs))
    return moments


def _own_targets(original: Layer, moments: Moments, centred: bool) -> list[Tensor]:
    """Cross moments of the dense output with the dense input."""
    weight = original.matrix.float().view(moments.groups, -1, moments.columns)
    plain = [moments.covariance(i) if centred else moments.second(i) for i in range(len(moments.blocks))]
    return [weight[..., block] @ second for block, second in zip(moments.blocks, plain, strict=True)]


def _targets(
    original: Layer, moments: Moments, wanted_inputs: Sequence[Tensor], inputs: Sequence[Tensor], centred: bool
) -> tuple[list[Tensor], Tensor]:
    """Cross moments of the dense output (without bias) with the new input, and the dense output's mean."""
    user = original.users[0]
    weight = original.matrix.float().view(moments.groups, -1, moments.columns)
    total = torch.zeros_like(moments.total)
    cross = [total.new_zeros(moments.groups, b.stop - b.start, moments.columns) for b in moments.blocks]
    wanted = rows_wanted(moments.columns, 1 / len(inputs))
    for pair in zip(wanted_inputs, inputs, strict=True):
        for before, after in sampled_rows(user, pair, wanted):
            a, b = before.transpose(0, 1), after.transpose(0, 1)
            total += a.sum(1)
            for block, sums in zip(moments.blocks, cross, strict=True):
                sums.baddbmm_(b[..., block].transpose(1, 2), a)
    mean = total / moments.count
    result = []
    for block, sums in zip(moments.blocks, cross, strict=True):
        between = sums / moments.count
        if centred:
            between = between - moments.mean()[:, block, None] * mean[:, None, :]
        result.append(weight @ between.transpose(1, 2))
    return result, torch.bmm(weight, mean[:, :, None]).flatten()
