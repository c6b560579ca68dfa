"""Bring a model and its images together: what every verb needs before it can start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from fewer.core.errors import FewerError
from fewer.cost.profile import DeviceProfile
from fewer.cost.static import fixed_costs
from fewer.data.samples import Samples
from fewer.distortion.distance import Distance, MakeDistance
from fewer.distortion.outputs import Reference
from fewer.engine.model_checks import Conduct, check_model
from fewer.engine.samples import Inputs, find_inputs, sensing_share
from fewer.engine.settings import Settings
from fewer.kernels.copies import copied_module
from fewer.models.choices import remember_choices
from fewer.models.coupling import Couplings, find_links
from fewer.models.coupling_search import difference
from fewer.models.layers import Layer, find_layers
from fewer.models.matching import MatchResult, match, mean_positions
from fewer.models.reorder import Reordering, reorder, reordered
from fewer.models.running import Forward, call, device_of, evaluating, input_dtype, numbers_of
from fewer.models.spec import LoadedModel, load_untouched
from fewer.patterns import with_columns
from fewer.patterns.grid import COLUMNS
from fewer.quantize.smooth import smoothed
from fewer.tasks import TASKS, open_task

_SAME = 1e-3
"""Relative difference of a model's answer that is rounding."""
_OCCUPANCY = 16
"""Samples of different length that costs are averaged over."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model, its units and its images.

    Attributes
    ----------
    loaded
        The original model, never changed; where int8 activations are an option, a copy that gives the very same
        outputs and is easier to round (:func:`fewer.quantize.smooth.smoothed`).
    matched
        Its units, and what was skipped.
    layers
        The units in the original model.
    fixed
        What the rest of the model costs: ``macs``, ``flops``, ``size``, ``weights`` (0).
    inputs
        The samples of the run; the held-out ones share no file with the others unless their notes say so.
    apart
        ``calibration[:a]`` are the images that distortion is measured on, and the repair whose distortion it is learns
        from ``calibration[b:]``, for ``apart = (a, b)``: a repair looks too good on the images that it was fitted to.
        The final repair learns from all of them.
    shared
        What several plans for this model share once it was computed (moments, sensitivities).
    couplings
        Whose channels can be removed together; looked for only where the settings' pattern asks for columns.
    distance
        How a change of the output is measured: :class:`~fewer.distortion.outputs.Reference`, or the task's own.
    reorderings
        What was done to the model for the sake of blocks.
    as_it_came
        The model before it was smoothed or reordered.
    conduct
        What it does that it should not.
    """

    loaded: LoadedModel
    matched: MatchResult
    layers: dict[str, Layer]
    fixed: dict[str, float]
    parameters: int
    inputs: Inputs
    forward: Forward | None = None
    apart: tuple[int, int] = (0, 0)
    shared: dict[str, Any] = field(default_factory=dict)
    couplings: Couplings = field(default_factory=Couplings)
    distance: MakeDistance = Reference
    reorderings: tuple[Reordering, ...] = ()
    as_it_came: nn.Module | None = None
    conduct: Conduct = field(default_factory=Conduct)

    @property
    def model(self) -> nn.Module:
        """The original model."""
        return self.loaded.model

    @property
    def stored(self) -> dict[str, str]:
        """The precision of units that come in less than fp32; a half-precision model is stored as it is."""
        kinds = {p.dtype for p in self.model.parameters() if p.is_floating_point()}
        return dict(self.loaded.stored) if kinds == {torch.float32} else {}

    @property
    def calibration(self) -> Samples:
        """The samples to work with."""
        return self.inputs.calibration

    @property
    def heldout(self) -> Samples:
        """The samples that judge."""
        return self.inputs.heldout

    @property
    def deciding(self) -> Samples | None:
        """The samples that decide between finished models; None where none can be spared."""
        return self.inputs.deciding

    @property
    def example(self) -> Samples:
        """One sample."""
        return self.calibration[:1]

    @property
    def sensing_images(self) -> Samples:
        """The samples that distortion is measured on."""
        return self.calibration[: self.apart[0]]

    @property
    def repair_images(self) -> Samples:
        """The samples that the repair of sensing learns from."""
        return self.calibration[self.apart[1] :]

    def reference(self, batches: Sequence[Any], model: nn.Module | None = None) -> Distance:
        """The outputs of the original model on some batches, ready to measure changes against."""
        model = self.model if model is None else model
        with evaluating(model):
            return self.distance([call(model, batch, self.forward) for batch in batches])


def _few_bits(loaded: LoadedModel, settings: Settings) -> list[str]:
    """What becomes of layers that the run stores in few bits."""
    if not loaded.stored:
        return []
    if settings.measure:
        kept = "kernels compute in precisions of their own: the plan says which layer is stored in what"
    else:
        kept = "a layer keeps at most the bits that it has, and a relative size counts from what the run stores"
    trained = " Inputs that were rounded in its training are not rounded here: to train again, fewer train --init RUN."
    return [f"The run is stored in few bits: {kept}." + (trained if loaded.meta.get("few_bits") else "")]


def _as_given_where_other(
    given: Any, folded: LoadedModel, device: str, example: Any, forward: Forward | None
) -> LoadedModel:
    """The model without plain layers in place of those that compute their weight, where that is another model.

    A part of it may read such a weight without being the layer that holds it, as a tied decoder does.
    """
    plain = load_untouched(given, fold=False)
    plain = replace(plain, model=on_device(plain.model, device))
    found = []
    for loaded in (plain, folded):
        with evaluating(loaded.model):
            found.append(numbers_of(call(loaded.model, example, forward)))
    return folded if difference(*found) <= _SAME else plain


def prepare(
    model: Any,
    images: Any,
    settings: Settings,
    forward: Forward | None = None,
    reorderings: Sequence[Reordering] | None = None,
    distance: MakeDistance | None = None,
) -> Prepared:
    """Load a model, read images and match units.

    Parameters
    ----------
    model
        Spec, ``nn.Module`` or :class:`~fewer.models.spec.LoadedModel`.
    images
        Folder, files, tensor or iterable; not read when ``settings.data_free``.
    settings
        See :class:`Settings`.
    forward
        ``forward(model, batch)``, for models that are not called with one tensor.
    reorderings
        Of a run that is opened again; None finds them.
    distance
        See :mod:`fewer.distortion.distance`; by default that of the model's task, if it has one.

    Raises
    ------
    FewerError
        When the model, the images or the device cannot be used.
    """
    if settings.profile is not None:
        DeviceProfile.load(settings.profile)  # a wrong name is told before anything is done
    loaded = load_untouched(model)
    loaded = replace(loaded, model=on_device(loaded.model, settings.device))
    as_it_came = loaded.model
    found = find_inputs(loaded, images, settings, forward)
    _fill_lazy_layers(loaded.model, found.calibration[:1], forward)
    dtype = input_dtype(loaded.model, found.calibration[:1], forward)
    third = found.deciding
    inputs = replace(
        found,
        calibration=found.calibration.to(dtype),
        heldout=found.heldout.to(dtype),
        deciding=None if third is None else third.to(dtype),
    )
    calibration, example = inputs.calibration, inputs.calibration[:1]
    if loaded.source.get("computed"):
        loaded = _as_given_where_other(model, loaded, settings.device, example, forward)
        as_it_came = loaded.model
    own = distance or _distance_of(loaded, settings.distance)
    conduct = check_model(loaded.model, calibration, settings, forward, plain=own is Reference)
    remember_choices(loaded.model)  # before any copy is made of it
    inputs = replace(inputs, notes=[*inputs.notes, *conduct.notes, *_few_bits(loaded, settings)])
    loaded = replace(loaded, model=_smooth(loaded.model, calibration, settings, forward))
    matched = match(loaded.model, example, forward, settings.exclude)
    orders: Sequence[Reordering] = ()
    if reorderings is not None:
        orders = reorderings
        loaded = replace(loaded, model=reorder(copied_module(loaded.model), orders)) if orders else loaded
    else:
        same, orders = _reorder(loaded.model, matched, calibration, settings, forward)
        loaded = replace(loaded, model=same)
    fixed = fixed_costs(loaded.model, example, matched, forward)
    fixed.pop("parameters")
    if calibration.tensor is None:  # one sample does not tell what a layer costs on others of another length
        matched = mean_positions(loaded.model, matched, calibration.split(1)[:_OCCUPANCY], forward)
    return Prepared(
        loaded,
        matched,
        find_layers(loaded.model, matched.units, example, forward),
        {**fixed, "weights": 0.0},
        sum(p.numel() for p in loaded.model.parameters()),
        inputs,
        forward,
        sensing_share(len(calibration), settings.sensing, found.near),
        couplings=couplings_of(loaded.model, matched, example, settings.pattern, forward),
        distance=own,
        reorderings=tuple(orders),
        as_it_came=as_it_came,
        conduct=conduct,
    )


def _fill_lazy_layers(model: nn.Module, example: Any, forward: Forward | None) -> None:
    """Give lazy layers of our own copy their shapes, which torch cannot copy without."""
    if any(isinstance(one, UninitializedTensorMixin) for one in [*model.parameters(), *model.buffers()]):
        with evaluating(model):
            call(model, example, forward)


def on_device(model: nn.Module, device: str) -> nn.Module:
    """The model where it is to work: itself where it is there already, else a copy.

    Raises
    ------
    FewerError
        When there is no such device here.

    Examples
    --------
    >>> net = nn.Linear(1, 1)
    >>> on_device(net, "cpu") is net
    True
    """
    try:
        wanted = torch.device(device)
        here = device_of(model)
        if here is None or (here.type == wanted.type and wanted.index in (None, here.index)):
            return model
        return copied_module(model).to(wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise FewerError(f"the device '{device}' cannot be used: {reason}; leave --device out for the CPU") from error


def _distance_of(loaded: LoadedModel, form: str) -> MakeDistance:
    """The task's own distance, or its plain form; the relative squared change where it has none."""
    task: Any = open_task(loaded.task) if loaded.task is not None and loaded.task in TASKS else None
    own = task.distance(loaded) if hasattr(task, "distance") else None
    if form == "plain":
        own = getattr(own, "plain_form", None)
    return own or Reference


def _smooth(model: nn.Module, images: Samples, settings: Settings, forward: Forward | None) -> nn.Module:
    # only plans for time round activations
    if not (settings.smooth and settings.measure and "int8" in settings.precisions):
        return model
    return smoothed(model, images[:1], forward, settings.smooth)[0]


def _reorder(
    model: nn.Module, matched: MatchResult, images: Samples, settings: Settings, forward: Forward | None
) -> tuple[nn.Module, Sequence[Reordering]]:
    if not (settings.reorder and "block" in settings.pattern):
        return model, ()
    return reordered(model, matched.units, images, forward)


def prepared_for(prepared: Prepared, settings: Settings) -> Prepared:
    """The same model and images for another method: smoothed and reordered, or not, as its settings say."""
    model = prepared.as_it_came or prepared.model
    model = _smooth(model, prepared.calibration, settings, prepared.forward)
    model, orders = _reorder(model, prepared.matched, prepared.calibration, settings, prepared.forward)
    return replace(
        prepared,
        loaded=replace(prepared.loaded, model=model),
        layers=find_layers(model, prepared.matched.units, prepared.example, prepared.forward),
        reorderings=tuple(orders),
        shared={},
    )


def couplings_of(
    model: nn.Module, matched: MatchResult, example: Any, pattern: str, forward: Forward | None = None
) -> Couplings:
    """Which channels can be removed together, if a pattern asks for that.

    Raises
    ------
    FewerError
        When nothing but columns is asked for and there are none.

    Examples
    --------
    >>> couplings_of(nn.Linear(1, 1), match(nn.Linear(1, 1), torch.zeros(1, 1)), torch.zeros(1, 1), "block:16x4").links
    ()
    """
    if not with_columns(pattern):
        return Couplings()
    found = find_links(model, matched.units, example, forward)
    if not found.links and all(part.strip() == COLUMNS for part in pattern.split(",")):
        (reason, count), *_ = Counter((found.reasons or {}).values()).most_common(1)
        raise FewerError(f"no layer of this model has channels that can be removed; of {count} layers, {reason}")
    return found
