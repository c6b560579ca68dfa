"""Bring a model and its images together: what every verb needs before it can start."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewer.compensate.layers import Layer, find_layers
from fewer.core.errors import FewerError
from fewer.cost.profile import DeviceProfile
from fewer.cost.static import fixed_costs
from fewer.data.calibration import as_calibration
from fewer.data.datafree import batchnorm_inputs, gaussian_noise
from fewer.data.images import ImageSet, list_images
from fewer.models.coupling import Couplings, find_links
from fewer.models.matching import MatchResult, match
from fewer.models.reorder import Reordering, reorder, reordered
from fewer.models.running import Forward
from fewer.models.spec import LoadedModel, load_model
from fewer.patterns import with_columns
from fewer.patterns.grid import COLUMNS
from fewer.quantize.smooth import smoothed
from fewer.tasks import TASKS, open_task
from fewer.verbs.settings import Settings


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
    dtype = next((p.dtype for p in loaded.model.parameters() if p.is_floating_point()), found.calibration.dtype)
    calibration, heldout = found.calibration.to(dtype), found.heldout.to(dtype)
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
        found.notes,
        forward,
        _apart(len(calibration), settings.sensing, found.near),
        couplings=couplings,
        heldout_files=found.heldout_files,
        reorderings=tuple(orders),
        as_it_came=as_it_came,
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


# fewer calibration images than this are all needed for the repair
_ENOUGH = 6


def _apart(count: int, wanted: int, near: int | None = None) -> tuple[int, int]:
    """How many images to measure harm on, and where the images for the repair that is measured begin.

    ``near`` is the number of leading images that share no file with the others, or None where files are not known.

    Examples
    --------
    >>> _apart(64, 16), _apart(12, 16), _apart(2, 16), _apart(64, 16, 25)
    ((16, 16), (4, 4), (2, 0), (16, 25))
    """
    if count < _ENOUGH:
        return min(wanted, count), 0
    measured = min(wanted, count // 3, near or count)
    return measured, near or measured


def _by_file(files: Sequence[Path]) -> tuple[list[int], int]:
    """An order in which the crops of two fifths of the files come first, in turns; and how many crops those are.

    Harm is measured on the first images: from many files, because one photo is not like another.

    Examples
    --------
    >>> _by_file([Path(name) for name in "aabbccddeef"])
    ([0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10], 4)
    """
    names = list(dict.fromkeys(files))
    first = set(names[: max(1, len(names) * 2 // 5)])
    turn = [files[:i].count(name) for i, name in enumerate(files)]
    near = sorted((i for i, name in enumerate(files) if name in first), key=lambda i: turn[i])
    return near + [i for i, name in enumerate(files) if name not in first], len(near)


def load_untouched(model: Any) -> LoadedModel:
    """Load a model; a module keeps its own training flags, which :func:`load_model` alone would change.

    Examples
    --------
    >>> load_untouched(nn.Linear(1, 1)).model.training
    True
    """
    if isinstance(model, LoadedModel):
        return model
    flags = [(module, module.training) for module in model.modules()] if isinstance(model, nn.Module) else []
    loaded = load_model(model)
    for module, flag in flags:
        module.training = flag
    return loaded


@dataclass(frozen=True, eq=False)
class _Images:
    """The images of a run, as in :class:`Prepared`; ``near`` as for :func:`_apart`."""

    calibration: Tensor
    heldout: Tensor
    source: str
    skipped: list[tuple[str, str]]
    notes: list[str]
    near: int | None = None
    heldout_files: tuple[Path, ...] = ()


def _of_files(first: ImageSet, second: ImageSet, source: str, note: str) -> _Images:
    order, near = _by_file(first.files)
    skipped = _named(first) + _named(second)
    return _Images(first.tensor[order], second.tensor, source, skipped, [note], near, tuple(second.files))


def _images(loaded: LoadedModel, images: Any, settings: Settings) -> _Images:
    wanted, apart = settings.calibration, settings.heldout
    if settings.data_free is not None:
        return _made_up(loaded, images, settings)
    if images is None:
        raise FewerError("images are missing: give a folder of images, a tensor, or data_free='noise'")
    if loaded.task in TASKS and isinstance(images, (str, Path)):
        reader = open_task(loaded.task).images
        first = reader(loaded, images, wanted, part="calibration", seed=settings.seed)
        second = reader(loaded, images, apart, part="heldout", seed=settings.seed)
        note = (
            f"{len(first)} calibration patches from {len(set(first.files))} images, {len(second)} held-out patches "
            f"from {len(set(second.files))} other images."
        )
        return _of_files(first, second, str(images), note)
    common: dict[str, Any] = {"seed": settings.seed, "preprocess": loaded.preprocess, "crops": settings.crops}
    if isinstance(images, (str, Path)) or (isinstance(images, (list, tuple)) and _all_paths(images)):
        files = list_images(images) if isinstance(images, (str, Path)) else list(images)
        source = str(images) if isinstance(images, (str, Path)) else f"{len(files)} files"
        if len(files) == 1:
            whole = as_calibration(images, wanted + apart, **common)
            return _Images(*_cut(whole, wanted, apart), source, _named(whole), [_SAME])
        first = as_calibration(images, wanted, part="calibration", **common)
        second = as_calibration(images, apart, part="heldout", **common)
        if len(first) == 0 or len(second) == 0:
            raise FewerError(f"{source} holds too few readable images to keep some apart for the report")
        note = (
            f"{len(first)} calibration images from {len(set(first.files))} files, {len(second)} held-out images "
            f"from {len(set(second.files))} other files."
        )
        return _of_files(first, second, source, note)
    ndim = max(1, len(loaded.preprocess.input_size))
    whole = as_calibration(images, wanted + apart, sample_ndim=ndim)
    notes = [] if len(whole) > 1 else [_SAME]
    return _Images(*_cut(whole, wanted, apart), "a tensor given in Python", _named(whole), notes)


_SAME = "Too few images to keep any apart: the held-out numbers come from the calibration image itself."


def _all_paths(images: list[Any] | tuple[Any, ...]) -> bool:
    return bool(images) and all(isinstance(i, (str, Path)) for i in images)


def _cut(whole: ImageSet, wanted: int, apart: int) -> tuple[Tensor, Tensor]:
    """Calibration first, held out last; a quarter at most is held out."""
    n = len(whole)
    if n == 1:
        return whole.tensor, whole.tensor
    held = max(1, min(apart, n // 4))
    return whole.tensor[: min(wanted, n - held)], whole.tensor[n - held :]


def _named(images: ImageSet) -> list[tuple[str, str]]:
    return [(str(path), reason) for path, reason in images.skipped]


def _made_up(loaded: LoadedModel, images: Any, settings: Settings) -> _Images:
    size = loaded.preprocess.input_size
    if settings.data_free == "noise":
        made, note = gaussian_noise(size, settings.calibration, settings.seed), "Gaussian noise instead of images."
    else:
        made, note = batchnorm_inputs(loaded.model, size, settings.calibration, settings.seed)
    if images is not None:
        # real images may still judge the result; none of them calibrates it
        real = Settings.of({**settings.model_dump(), "data_free": None})
        found = _images(loaded, images, real)
        source = f"data-free ({settings.data_free}); judged on {found.source}"
        return replace(found, calibration=made, source=source, notes=[note, *found.notes], near=None)
    heldout = gaussian_noise(size, settings.heldout, settings.seed + 1) if settings.data_free == "noise" else made
    return _Images(made, heldout, f"data-free ({settings.data_free})", [], [note, "Judged on made-up inputs as well."])


def state_hash(model: nn.Module, *extra: Tensor) -> str:
    """SHA-256 of a model's state and further tensors, as hex text.

    Examples
    --------
    >>> state_hash(nn.Linear(1, 1)) != state_hash(nn.Linear(1, 1))
    True
    """
    digest = hashlib.sha256()
    state: Mapping[str, Any] = model.state_dict()
    for name, value in [*sorted(state.items()), *((f"extra{i}", t) for i, t in enumerate(extra))]:
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(str((value.dtype, tuple(value.shape))).encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
