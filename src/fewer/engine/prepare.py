"""Bring a model and its images together: what every verb needs before it can start."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.cost.profile import DeviceProfile
from fewer.cost.static import fixed_costs
from fewer.engine.model_checks import Conduct, check_model
from fewer.engine.samples import _apart, _images
from fewer.engine.settings import Settings
from fewer.models.coupling import Couplings, find_links
from fewer.models.layers import Layer, find_layers
from fewer.models.matching import MatchResult, match
from fewer.models.reorder import Reordering, reorder, reordered
from fewer.models.running import Forward, input_dtype
from fewer.models.spec import LoadedModel, load_untouched
from fewer.patterns import with_columns
from fewer.patterns.grid import COLUMNS
from fewer.quantize.smooth import smoothed


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
    calibration, heldout
        Image tensors (samples first); ``heldout`` shares no file with ``calibration`` unless ``notes`` says so.
    source
        Where the images come from.
    skipped
        Files that could not be read, and why.
    notes
        What a reader of the report should know about the images.
    apart
        ``calibration[:a]`` are the images that harm is measured on, and the repair whose harm it is learns from
        ``calibration[b:]``, for ``apart = (a, b)``: a repair looks too good on the images that it was fitted to. The
        final repair learns from all of them.
    shared
        What several plans for this model share once it was computed (moments, sensitivities).
    couplings
        Whose channels can be removed together; looked for only where the settings' pattern asks for columns.
    heldout_files
        The file of each held-out image, where there are files.
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
    calibration: Tensor
    heldout: Tensor
    source: str
    skipped: list[tuple[str, str]]
    notes: list[str]
    forward: Forward | None = None
    apart: tuple[int, int] = (0, 0)
    shared: dict[str, Any] = field(default_factory=dict)
    couplings: Couplings = field(default_factory=Couplings)
    heldout_files: tuple[Path, ...] = ()
    reorderings: tuple[Reordering, ...] = ()
    as_it_came: nn.Module | None = None
    conduct: Conduct = field(default_factory=Conduct)

    @property
    def sensing_images(self) -> Tensor:
        """The images that harm is measured on."""
        return self.calibration[: self.apart[0]]

    @property
    def repair_images(self) -> Tensor:
        """The images that the repair of sensing learns from."""
        return self.calibration[self.apart[1] :]

    @property
    def model(self) -> nn.Module:
        """The original model."""
        return self.loaded.model


def prepare(
    model: Any,
    images: Any,
    settings: Settings,
    forward: Forward | None = None,
    reorderings: Sequence[Reordering] | None = None,
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

    Raises
    ------
    FewerError
        When the model, the images or the device cannot be used.
    """
    if settings.device != "cpu":
        raise FewerError(f"device '{settings.device}' cannot be used: this version works on the CPU, --device cpu")
    if settings.profile is not None:
        DeviceProfile.load(settings.profile)  # a wrong name is told before anything is done
    loaded = load_untouched(model)
    as_it_came = loaded.model
    found = _images(loaded, images, settings)
    dtype = input_dtype(loaded.model, found.calibration[:1], forward)
    calibration, heldout = found.calibration.to(dtype), found.heldout.to(dtype)
    conduct = check_model(loaded.model, calibration, settings, forward)
    loaded = replace(loaded, model=_smooth(loaded.model, calibration, settings, forward))
    matched = match(loaded.model, calibration[:1], forward, settings.exclude)
    orders: Sequence[Reordering] = ()
    if reorderings is not None:
        orders = reorderings
        loaded = replace(loaded, model=reorder(copy.deepcopy(loaded.model), orders)) if orders else loaded
    else:
        same, orders = _reorder(loaded.model, matched, calibration, settings, forward)
        loaded = replace(loaded, model=same)
    couplings = couplings_of(loaded.model, matched, calibration[:1], settings.pattern, forward)
    fixed = fixed_costs(loaded.model, calibration[:1], matched, forward)
    fixed.pop("parameters")
    return Prepared(
        loaded,
        matched,
        find_layers(loaded.model, matched.units, calibration[:1], forward),
        {**fixed, "weights": 0.0},
        sum(p.numel() for p in loaded.model.parameters()),
        calibration,
        heldout,
        found.source,
        found.skipped,
        [*found.notes, *conduct.notes],
        forward,
        _apart(len(calibration), settings.sensing, found.near),
        couplings=couplings,
        heldout_files=found.heldout_files,
        reorderings=tuple(orders),
        as_it_came=as_it_came,
        conduct=conduct,
    )


def _smooth(model: nn.Module, images: Tensor, settings: Settings, forward: Forward | None) -> nn.Module:
    # only plans for time round activations
    if not (settings.smooth and settings.measure and "int8" in settings.precisions):
        return model
    return smoothed(model, images[:1], forward, settings.smooth)[0]


def _reorder(
    model: nn.Module, matched: MatchResult, images: Tensor, settings: Settings, forward: Forward | None
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
        layers=find_layers(model, prepared.matched.units, prepared.calibration[:1], prepared.forward),
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
