"""Apply: from a plan to a compressed model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fewer.compensate.again import calls_of
from fewer.compensate.lost_inputs import without_inputs
from fewer.compensate.sequential import HeldOut, Layered, UnitFacts, compress_in_order
from fewer.core.option import Option
from fewer.data.samples import Samples
from fewer.engine.felt import places_of
from fewer.engine.outer import with_outer
from fewer.engine.prepare import Prepared
from fewer.engine.sense import repair_of, row_sensitivity, score_gradients, sensing_batches
from fewer.engine.shrink import rows_follow
from fewer.engine.work import Work
from fewer.formats.integers import rounded
from fewer.kernels.copies import copied_module, set_evaluating
from fewer.kernels.frames import with_frames
from fewer.kernels.pixels import with_pixels
from fewer.models.inputs import layer_input
from fewer.models.layers import channel_axis, find_layers
from fewer.models.running import call, evaluating
from fewer.patterns import to_weight

# The whole calibration set goes through two models at once; what that may take decides how many images are used.
MEMORY_BYTES = 4e9
_ROWS = 16  # positions of one sample that are kept of layers that lose inputs to another one's choice


def images_in_memory(prepared: Prepared, limit: float = MEMORY_BYTES) -> int:
    """How many images fit in ``limit`` bytes while two forward passes run in step."""
    largest = 0

    def look(_module: nn.Module, _inputs: Any, output: Any) -> None:
        nonlocal largest
        if isinstance(output, Tensor):
            largest = max(largest, output.numel() * output.element_size())

    handles = [m.register_forward_hook(look) for m in prepared.model.modules()]
    try:
        with evaluating(prepared.model):
            call(prepared.model, prepared.example, prepared.forward)
    finally:
        for handle in handles:
            handle.remove()
    # an activation, the one before it and a copy, in both models
    return max(1, int(limit // max(1, 6 * largest)))


def fitting_images(prepared: Prepared) -> Samples:
    """As many calibration samples as fit in memory while two forward passes run in step."""
    # crops of one file stand together: every so many takes some of each file
    return prepared.calibration[:: _stride(prepared)]


def _stride(prepared: Prepared) -> int:
    return -(-len(prepared.calibration) // images_in_memory(prepared))


def fitting_batches(prepared: Prepared, size: int) -> list[Samples]:
    """:func:`fitting_images` in as few batches as can be; samples of different shapes with one part in each batch."""
    samples, folds = fitting_images(prepared), file_folds(prepared)
    if folds is None or samples.tensor is not None:
        return samples.batches_of_all(size)
    edge = folds.index(1)
    return samples[:edge].batches_of_all(size) + samples[edge:].batches_of_all(size)


def file_folds(prepared: Prepared) -> list[int] | None:
    """Two parts of :func:`fitting_images` that share no file, or None where there are too few images for that."""
    near, count = prepared.apart[1], len(prepared.calibration)
    if not 0 < near < count:
        return None
    folds = [int(i >= near) for i in range(0, count, _stride(prepared))]
    return folds if len(set(folds)) == 2 else None


def apply_options(
    work: Work,
    options: Mapping[str, Sequence[Option]],
    chosen: Mapping[str, Option],
    *,
    model: nn.Module | None = None,
    alive: Mapping[str, Tensor] | None = None,
    outer: Mapping[str, Any] | None = None,
    title: str = "apply",
    believed: dict[str, float] | None = None,
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Cut and repair a copy of a model. Removed rows and columns are zero; :mod:`fewer.engine.shrink` takes them out.

    Parameters
    ----------
    work
        The original model, its units and images, and how to repair.
    options
        Ladder of each unit.
    chosen
        Option of each unit.
    model, alive
        Model and masks of an earlier round.
    outer
        Tokens that are merged after the repair, or pixels or frames that go before it
        (:func:`fewer.engine.outer.with_outer`); nothing for None.
    title
        Of the stage that is shown.
    believed
        Filled with the share of each layer's repair that other files bear out, by unit name.

    Returns
    -------
    nn.Module
        The compressed copy.
    dict of str to Tensor
        Mask of every unit in its weight's shape.
    """
    prepared, settings, progress = work.prepared, work.settings, work.progress
    target = set_evaluating(copied_module(model if model is not None else prepared.model))
    dense = set_evaluating(copied_module(prepared.model))
    units = prepared.matched.units
    example = prepared.example
    ladders = {u.name: _path(options[u.name], chosen[u.name]) for u in units}
    batches = sensing_batches(work) if settings.score == "taylor" else []
    reference = prepared.reference(batches, dense) if batches else None
    pixels, frames = ((outer or {}).get(key) for key in ("pixels", "frames"))
    for one in (dense, target):  # layers are repaired on the inputs that they will get
        with_frames(with_pixels(one, pixels), frames)
    size = next((change["name"] for change in (pixels, frames) if change is not None), None)
    if prepared.shared.get("moments size") != size:  # those of one size are kept, as they take much memory
        prepared.shared.update({"moments": {}, "moments size": size})
    known = prepared.shared.setdefault("moments", {})
    fitted_to = fitting_batches(prepared, settings.batch)
    places = places_of(prepared, settings, range(0, len(prepared.calibration), _stride(prepared)), fitted_to)
    with progress.stage(title, len(units)) as stage:
        masks = compress_in_order(
            Layered(dense, find_layers(dense, units, example, prepared.forward)),
            Layered(target, find_layers(target, units, example, prepared.forward)),
            ladders,
            fitted_to,
            replace(repair_of(settings), polish=8, descents=2),
            correction=settings.correction,
            facts=UnitFacts(
                alive,
                score_gradients(work, target, batches, reference) if reference else None,
                row_sensitivity(work, model if model is not None else prepared.model)[1],
                places,
                _calls(prepared),
            ),
            held_out=HeldOut(file_folds(prepared), known, {} if believed is None else believed),
            forward=prepared.forward,
            done=lambda name: stage.advance(1, name),
        )
    if model is None and not outer and all(o.is_dense and o.precision == "fp32" for o in chosen.values()):
        # what needs no cut is given back bit by bit, and not smoothed or reordered
        target = set_evaluating(copied_module(prepared.as_it_came or prepared.model))
    shaped = {u.name: to_weight(masks[u.name], u.shape) for u in units}
    read = _read_by_others(work, target, chosen, fitted_to) if settings.compensation != "none" else {}
    whole = {name: _matrix(target, name) for name in read}
    followed = rows_follow(target, shaped, prepared.couplings, chosen)
    for name, inputs in read.items():
        _refit(target.get_submodule(name), whole[name], inputs, followed[name], chosen[name].precision)
    return with_outer(target, outer), followed


def _calls(prepared: Prepared) -> dict[str, int]:
    """How often the dense model uses the layers of each unit in a pass."""
    if "calls" not in prepared.shared:  # several plans are carried out
        model = prepared.model
        users = {u.name: [model.get_submodule(n) for n in (u.name, *u.aliases)] for u in prepared.matched.units}
        prepared.shared["calls"] = calls_of(model, users, prepared.example, prepared.forward)
    return prepared.shared["calls"]


def _matrix(model: nn.Module, name: str) -> Tensor:
    weight: Any = model.get_submodule(name).weight
    return weight.detach().flatten(1).clone()


def _read_by_others(
    work: Work, model: nn.Module, chosen: Mapping[str, Option], batches: Sequence[Samples]
) -> dict[str, Tensor]:
    """What reaches layers that will lose the inputs that a consumer has lost, (samples, inputs) by unit name."""
    links = [link for link in work.prepared.couplings.links if chosen[link.consumer].removes == "columns"]
    found: dict[str, list[Tensor]] = {name: [] for link in links for name in link.readers}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            x = layer_input(inputs, keywords).detach()
            x = x.movedim(channel_axis(module, x), -1)
            rows = x.reshape(-1, x.shape[-1])  # of a module that is called for one sample without a batch as well
            found[name].append(rows[:: max(1, len(rows) // (_ROWS * len(x)))])

        return keep

    handles = [model.get_submodule(n).register_forward_pre_hook(hook(n), with_kwargs=True) for n in found]
    try:
        if handles:
            with evaluating(model):
                for batch in batches:
                    call(model, batch, work.prepared.forward)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


@torch.no_grad()
def _refit(module: Any, whole: Tensor, inputs: Tensor, mask: Tensor, precision: str) -> None:
    """Make up for the inputs that a layer has lost."""
    alive = mask.flatten(1).any(dim=0)
    weight, shift = without_inputs(whole, inputs, alive, biased=module.bias is not None)
    module.weight.data.copy_((rounded(weight, precision) * mask.flatten(1)).view_as(module.weight))
    if module.bias is not None:
        module.bias.data.add_(shift)


def _path(options: Sequence[Option], chosen: Option) -> list[Option]:
    """The options that a sweep visits on its way to the chosen one, so that it is the very sweep that was sensed."""
    if chosen.is_dense or chosen.removes == "rows":
        return [chosen]
    way = [o for o in options if o.family == chosen.family and o.sparsity < chosen.sparsity]
    # rounding comes last, so on the way the precision does not matter
    return [*dict.fromkeys(Option(o.pattern, o.sparsity) for o in way), chosen]
