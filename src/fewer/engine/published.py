"""A whole model pruned as a paper does it, on the images of a run: a row of the comparison that owes us nothing."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from fewer.compensate.lockstep import PausedForwards
from fewer.compensate.moments import Moments, add_input
from fewer.compensate.published import PUBLISHED
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.engine.apply import fitting_batches
from fewer.engine.work import Work
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.models.layers import find_layers
from fewer.patterns import Pattern

__all__ = ["prune_as_published"]


def prune_as_published(work: Work, method: str, chosen: Mapping[str, Option], *, title: str = "prune") -> nn.Module:
    """Cut a copy of a model layer by layer in execution order, each on the inputs that the cuts before it leave.

    Parameters
    ----------
    work
        The original model, its units and images.
    method
        A row of :data:`fewer.compensate.published.PUBLISHED`.
    chosen
        Pattern and sparsity of each unit.
    title
        Of the stage that is shown.

    Raises
    ------
    FewerError
        When an option is more than a mask of weights, so that the method has no such thing.
    """
    strange = next((o for o in chosen.values() if o.precision != "fp32" or not _is_mask(o)), None)
    if strange is not None:
        raise FewerError(f"the method {method!r} cannot do {strange}: it removes weights, in fp32")
    prepared, prune = work.prepared, PUBLISHED[method].run
    model = set_evaluating(copied_module(prepared.model))
    layers = find_layers(model, prepared.matched.units, prepared.example, prepared.forward)
    stops = {user: name for name, layer in layers.items() for user in layer.users}
    batches = fitting_batches(prepared, work.settings.batch)
    with (
        work.progress.stage(title, len(layers)) as stage,
        PausedForwards(model, batches, stops, prepared.forward) as walk,
    ):
        while (reached := walk.advance()) is not None:
            name, inputs = reached
            layer, option = layers[name], chosen[name]
            if not option.is_dense:
                moments = Moments(getattr(layer.users[0], "groups", 1), layer.matrix.shape[1])
                for batch in inputs:
                    add_input(moments, layer.users[0], batch, share=1 / len(inputs))
                moments.check(name)
                rows = layer.matrix.view(moments.groups, -1, moments.columns)
                pruned = prune(rows, moments, Pattern.parse(option.pattern), option.sparsity)
                layer.install(pruned.view_as(layer.matrix))
            stage.advance(1, name)
    return model


def _is_mask(option: Option) -> bool:
    return option.is_dense or option.pattern.partition(":")[0] in ("unstructured", "block", "nm")
