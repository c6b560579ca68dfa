"""Save a compressed model as ``model.safetensors`` and ``recipe.json``, and load it in any process. Never a pickle."""

from __future__ import annotations

import base64
import hashlib
import math
import os
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from fewer.approximate.sites import approximate, approximations_of
from fewer.core.errors import FewerError
from fewer.core.files import as_path, explain_os_error, flush_file, sync_folder
from fewer.core.folder import finish_exchange
from fewer.core.memory import free_memory
from fewer.core.reading import check_size, refusing
from fewer.data.preprocess import Preprocess
from fewer.data.samples import tensor_bytes
from fewer.kernels.copies import set_evaluating
from fewer.kernels.frames import fewer_frames, frames_of
from fewer.kernels.pixels import fewer_pixels, pixels_of
from fewer.models.aside import Print, check_aside
from fewer.models.build import Source, build_architecture
from fewer.models.packing import decode_values, encode_values, kept_values, pack_mask, unpack_mask, unpack_weight
from fewer.models.recipe import SCHEMA_VERSION, FrameRecord, PixelRecord, Recipe, TokenRecord, UnitRecord, read_recipe
from fewer.models.storage import is_packed
from fewer.tokens.blocks import merge_after, merges_of

WEIGHTS, RECIPE = "model.safetensors", "recipe.json"
Place = str | os.PathLike[str] | tuple[str | os.PathLike[str], str | os.PathLike[str]]


@dataclass(frozen=True)
class Saved:
    """What :func:`save_artefact` wrote.

    Parameters
    ----------
    weights, recipe : Path
        The two files.
    payload : int
        Bytes of tensors in the weights file.
    size : int
        Bytes of the whole weights file, header included.
    """

    weights: Path
    recipe: Path
    payload: int
    size: int


def save_artefact(
    place: Place,
    model: nn.Module,
    units: Sequence[Mapping[str, Any]],
    source: Source,
    meta: Mapping[str, Any] | None = None,
    *,
    preprocess: Preprocess | None = None,
    provenance: str = "",
    aside: Mapping[str, Print] | None = None,
) -> Saved:
    """Write a model so that :func:`load_artefact` gives it back bit for bit.

    Parameters
    ----------
    place : folder, or (weights path, recipe path)
        A folder is made when it is missing. Files are written under temporary names and then renamed.
    model : nn.Module
        Pruned weights hold zeros where their mask is False.
    units : sequence of dict
        ``name``, ``pattern``, ``sparsity``, ``precision`` and ``mask`` (bool tensor in the weight's shape, or None
        for dense) of every unit. Layers that are not listed are stored dense.
    source : dict
        :attr:`fewer.models.spec.LoadedModel.source`.
    meta : mapping, optional
        Further JSON values for people and reports.
    preprocess : Preprocess, optional
        How the model's input is made.
    provenance : str
        Hash of the curves and the plan behind this model.
    aside : mapping, optional
        Prints of what the model computes with and a file of weights does not hold (:mod:`fewer.models.aside`).

    Returns
    -------
    Saved

    Raises
    ------
    FewerError
        When a mask does not fit, a pruned entry is not zero, a kept one is not finite, a unit is unknown,
        or the disk cannot be written.
    """
    weights_path, recipe_path = _paths(place)
    state, aliases = _unique_state(model, {_weight_key(str(unit["name"])) for unit in units})
    tensors: dict[str, Tensor] = {}
    records: list[UnitRecord] = []
    for unit in units:
        record, stored = _store_unit(unit, state, aliases)
        if any(other.name == record.name for other in records):
            raise FewerError(f"the unit {record.name!r} is listed twice")
        records.append(record)
        tensors |= stored
        del state[_weight_key(record.name)]
    for name, tensor in state.items():
        if name in tensors:
            raise FewerError(f"the model's tensor {name!r} has a name that packed storage uses; rename it")
        tensors[name] = tensor.detach().cpu().contiguous().clone()
    temporary = _temporary(weights_path), _temporary(recipe_path)
    try:
        weights_path.parent.mkdir(parents=True, exist_ok=True)
        recipe_path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary[0], metadata={"format": "pt"})
        flush_file(temporary[0])
        recipe = Recipe(
            schema_version=SCHEMA_VERSION,
            source=source,
            preprocess=None if preprocess is None else preprocess.to_dict(),
            units=records,
            aliases=aliases,
            **_changes(model),
            aside=dict(aside or {}),
            provenance=provenance,
            weights_sha256=_sha256(temporary[0]),
            meta=dict(meta or {}),
        )
        temporary[1].write_text(recipe.to_json(), encoding="utf-8")
        flush_file(temporary[1])
        # safetensors makes files that only their owner can read; a model is as open as the files beside it
        temporary[0].chmod(temporary[1].stat().st_mode & 0o777)
        temporary[0].replace(weights_path)
        temporary[1].replace(recipe_path)
        sync_folder(recipe_path.parent)
    except (OSError, SafetensorError) as error:
        raise FewerError(f"the model cannot be written to {weights_path.parent}: {error}") from error
    finally:
        for path in temporary:
            if path.exists():
                path.unlink()
    payload = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return Saved(weights_path, recipe_path, payload, weights_path.stat().st_size)


def _changes(model: nn.Module) -> dict[str, Any]:
    """What a recipe says of changes that no weight shows."""
    merges, pixels, frames = merges_of(model), pixels_of(model), frames_of(model)
    return {
        "tokens": None if merges is None else TokenRecord(**merges),
        "pixels": None if pixels is None else PixelRecord(kept=pixels[0], of=pixels[1], gain=pixels[2]),
        "frames": None if frames is None else FrameRecord(every=frames[0], axis=frames[1]),
        "integers": approximations_of(model),
    }


def load_artefact(place: Place, architecture: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Load a saved model.

    Parameters
    ----------
    place : folder, or (weights path, recipe path)
        As given to :func:`save_artefact`.
    architecture : callable, optional
        A factory of the architecture, for a model that was given as an object or whose file has moved.

    Returns
    -------
    nn.Module
        In evaluation mode, every tensor as it was saved (pruned entries are +0.0).

    Raises
    ------
    FewerError
        When a file is missing, truncated or of another run, or the architecture does not fit the tensors.
    """
    recipe, tensors = _read(place)
    room = _room(_paths(place)[0])
    model = _architecture(recipe, architecture, room)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    packed = {f"{_weight_key(record.name)}@{part}" for record in recipe.units for part in ("values", "mask", "scale")}
    keys = {_weight_key(record.name) for record in recipe.units} | (tensors.keys() - packed) | recipe.aliases.keys()
    _check_names(shapes.keys(), keys)
    state: dict[str, Tensor] = {}
    for record in recipe.units:
        key = _weight_key(record.name)
        if shapes[key] != record.shape:  # told before memory is taken for that many weights
            raise FewerError(
                f"the artefact is of another model: its recipe says that {key!r} is {record.shape}, the architecture "
                f"has {shapes[key]}"
            )
        if record.storage == "packed" or record.stored_as:
            state[key] = _stored_weight(record, key, tensors)
        else:
            state[key] = _take(tensors, key)
        if tuple(state[key].shape) != record.shape:
            raise FewerError(
                f"the stored weight {key!r} has shape {tuple(state[key].shape)}, its recipe says {record.shape}"
            )
    state |= tensors
    for alias, name in recipe.aliases.items():
        if name not in state:
            raise FewerError(f"the recipe ties {alias!r} to {name!r}, which is not stored")
        state[alias] = state[name]
    _load_state(model, state)
    if recipe.integers:
        with refusing("the recipe's integers", "save the run again"):
            approximate(model, recipe.integers)
    return set_evaluating(model)


def _architecture(recipe: Recipe, architecture: Callable[[], nn.Module] | None, room: int) -> nn.Module:
    model = build_architecture(recipe.source, architecture, room=room)
    check_aside(model, recipe.aside)
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if isinstance(tensor, UninitializedTensorMixin):
            raise FewerError(
                f"the architecture's {name!r} has no shape yet (a lazy module); let architecture= run the model once "
                "on an example before it returns it"
            )
    if recipe.tokens is not None:
        with refusing("the recipe's tokens", "save the run again"):
            merge_after(model, recipe.tokens.amounts, recipe.tokens.protected)
    if recipe.pixels is not None:
        fewer_pixels(model, recipe.pixels.kept, recipe.pixels.of, recipe.pixels.gain)
    if recipe.frames is not None:
        fewer_frames(model, recipe.frames.every, recipe.frames.axis)
    return model


def _room(weights: Path) -> int:
    """Bytes that a network may take whose weights are in this file, cut and rounded as far as it goes."""
    free = free_memory()
    return min(2**28 + 200 * weights.stat().st_size, 2**62 if free is None else free * 3 // 4)


def load_masks(place: Place) -> dict[str, Tensor]:
    """Masks of the units that were saved with a sparse pattern: unit name -> bool tensor, True is kept.

    Raises
    ------
    FewerError
        As :func:`load_artefact`.
    """
    recipe, tensors = _read(place)
    masks: dict[str, Tensor] = {}
    room = _room(_paths(place)[0])
    for record in recipe.units:
        key = _weight_key(record.name)
        room -= math.prod(record.shape)
        if room < 0:
            raise FewerError(f"the recipe says that {record.name!r} is {record.shape}, more than its file can hold")
        if record.pattern == "dense":
            continue
        if record.storage == "packed":
            mask = _mask(record, _take(tensors, f"{key}@mask"))
        elif record.mask is not None:
            with refusing(f"the mask of {record.name!r} in the recipe", "save the run again"):
                bits = np.frombuffer(base64.b64decode(record.mask, validate=True), np.uint8)
                mask = unpack_mask(bits, record.shape, record.pattern)
        else:
            weight = _stored_weight(record, key, tensors) if record.stored_as else _take(tensors, key)
            mask = (weight != 0).numpy()
        masks[record.name] = torch.from_numpy(np.ascontiguousarray(mask))
    return masks


def load_recipe(place: Place) -> Recipe:
    """The recipe of a saved model, without its tensors."""
    _finish(place)
    return read_recipe(_paths(place)[1])


def _finish(place: Place) -> None:
    """Never read a folder in the midst of an exchange that a kill has interrupted."""
    if not isinstance(place, tuple):
        finish_exchange(as_path(place))


def _paths(place: Place) -> tuple[Path, Path]:
    if isinstance(place, tuple):
        return Path(place[0]), Path(place[1])
    return Path(place) / WEIGHTS, Path(place) / RECIPE


def _temporary(path: Path) -> Path:
    # not tempfile: its files are readable by nobody else, also after the rename
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _weight_key(unit_name: str) -> str:
    return f"{unit_name}.weight" if unit_name else "weight"  # the model itself may be the layer


def _unique_state(model: nn.Module, preferred: set[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Every tensor of the state once, and alias -> name for the others. Unit weights keep their unit's name."""
    state = model.state_dict(keep_vars=True)
    name_of: dict[int, str] = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise FewerError(f"the model's state {name!r} is a {type(tensor).__name__}, which safetensors cannot hold")
        if id(tensor) not in name_of or name in preferred:
            name_of[id(tensor)] = name
    unique = {name: tensor for name, tensor in state.items() if name_of[id(tensor)] == name}
    aliases = {name: name_of[id(tensor)] for name, tensor in state.items() if name_of[id(tensor)] != name}
    return unique, aliases


def _store_unit(
    unit: Mapping[str, Any], state: Mapping[str, Tensor], aliases: Mapping[str, str]
) -> tuple[UnitRecord, dict[str, Tensor]]:
    name, pattern, mask = str(unit["name"]), str(unit["pattern"]), unit.get("mask")
    key = _weight_key(name)
    if key not in state:
        if key in aliases:
            raise FewerError(f"the unit {name!r} shares its weight with {aliases[key]!r}, which is listed too")
        near = get_close_matches(key, state, 1)
        raise FewerError(f"the model has no tensor {key!r}" + (f"; the nearest is {near[0]!r}" if near else ""))
    weight = state[key].detach().cpu()
    shape = tuple(weight.shape)
    if not torch.isfinite(weight).all():
        raise FewerError(f"the weight of unit {name!r} holds NaN or infinity; it is not saved")
    if (mask is None) != (pattern == "dense"):
        raise FewerError(f"the unit {name!r} has pattern {pattern!r} {'without' if mask is None else 'with'} a mask")
    kept, stored, mask_text = weight.numel(), "dense", None
    precision = str(unit["precision"])
    array, bits = np.ones(shape, dtype=bool), np.zeros(0, np.uint8)
    tensors = {key: weight.contiguous().clone()}
    if mask is not None:
        array = np.asarray(torch.as_tensor(mask).cpu().bool().numpy())
        if array.shape != shape:
            raise FewerError(f"the mask of unit {name!r} has shape {array.shape}, its weight {shape}")
        if bool((weight[torch.from_numpy(~array)] != 0).any()):
            raise FewerError(f"the weight of unit {name!r} is not zero where its mask prunes; apply the mask first")
        kept = int(array.sum())
        bits = pack_mask(array, pattern)
        if is_packed(shape, pattern, kept, weight.element_size(), precision):
            stored = "packed"
            tensors = {f"{key}@values": kept_values(weight, array), f"{key}@mask": torch.from_numpy(bits)}
        elif not np.array_equal((weight != 0).numpy(), array):
            # kept entries that are exactly zero would be lost; rare, and small beside the weight
            mask_text = base64.b64encode(bits.tobytes()).decode()
    encoded = encode_values(weight, precision, array if stored == "packed" else None)
    if encoded is not None:
        tensors = {f"{key}@{part}": tensor for part, tensor in encoded.items()}
        if stored == "packed":
            tensors[f"{key}@mask"] = torch.from_numpy(bits)
    record = UnitRecord(
        name=name,
        pattern=pattern,
        sparsity=float(unit["sparsity"]),
        precision=precision,
        stored_as=precision if encoded is not None else "",
        storage=stored,
        shape=shape,
        kept=kept,
        mask=mask_text,
    )
    return record, tensors


def _read(place: Place) -> tuple[Recipe, dict[str, Tensor]]:
    _finish(place)
    weights_path, recipe_path = _paths(place)
    recipe = read_recipe(recipe_path)
    if not weights_path.is_file():
        raise FewerError(f"{weights_path} does not exist beside its recipe; copy both files")
    check_weights_file(weights_path)
    try:
        tensors = load_file(weights_path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise FewerError(f"{weights_path} is truncated or no safetensors file ({error}); save the run again") from None
    if _sha256(weights_path) != recipe.weights_sha256:
        raise FewerError(f"{weights_path} is not the file that {recipe_path.name} was written for; copy both together")
    return recipe, tensors


def check_weights_file(path: Path) -> None:
    """Hold the size of a safetensors file, and of its header, against the memory before it is read.

    Raises
    ------
    FewerError
        When it is no ordinary file, or claims more than can be.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            facts = os.fstat(handle)
            if not stat.S_ISREG(facts.st_mode):
                raise FewerError(f"{path} is no ordinary file, so it is not read")
            header = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise explain_os_error(error, path, "read") from error
    free = free_memory()
    if free is not None:
        check_size(facts.st_size, free, str(path))
    if header > min(facts.st_size, 2**25):
        raise FewerError(f"{path} is truncated or no safetensors file: its header claims {header} bytes")


def _take(tensors: dict[str, Tensor], key: str) -> Tensor:
    if key not in tensors:
        raise FewerError(f"the tensor {key!r} that the recipe names is not stored")
    return tensors.pop(key)


def _stored_weight(record: UnitRecord, key: str, tensors: dict[str, Tensor]) -> Tensor:
    with refusing(f"the weight of {record.name!r}", "save the run again"):
        return _unpacked(record, key, tensors)


def _unpacked(record: UnitRecord, key: str, tensors: dict[str, Tensor]) -> Tensor:
    mask = np.ones(record.shape, dtype=bool)
    if record.storage == "packed":
        mask = _mask(record, _take(tensors, f"{key}@mask"))
    values = _take(tensors, f"{key}@values")
    if values.ndim != 1:
        raise FewerError(f"the stored values of {record.name!r} are no list")
    if not record.stored_as:
        return unpack_weight(values, mask)
    return decode_values(values, tensors.pop(f"{key}@scale", None), record.stored_as, mask)


def _mask(record: UnitRecord, bits: Tensor) -> np.ndarray:
    if bits.dtype != torch.uint8 or bits.ndim != 1:
        raise FewerError(f"the stored mask of {record.name!r} is no list of bytes")
    mask = unpack_mask(bits.numpy(), record.shape, record.pattern)
    if int(mask.sum()) != record.kept or math.prod(record.shape) < record.kept:
        raise FewerError(
            f"the stored mask of {record.name!r} keeps {int(mask.sum())} weights, its recipe says {record.kept}"
        )
    return mask


def _load_state(model: nn.Module, state: dict[str, Tensor]) -> None:
    own = model.state_dict(keep_vars=True)
    _check_names(own.keys(), state.keys())
    for name, tensor in state.items():
        if own[name].shape != tensor.shape:
            raise FewerError(
                f"the artefact is of another model: {name!r} is stored as {tuple(tensor.shape)}, "
                f"the architecture has {tuple(own[name].shape)}"
            )
        if any(step == 0 and count > 1 for step, count in zip(own[name].stride(), own[name].shape, strict=True)):
            own[name].data = own[name].data.contiguous()  # one number that stands for many cannot take them
        if own[name].dtype != tensor.dtype:
            if tensor.is_complex() or not (tensor.is_floating_point() == own[name].is_floating_point()):
                raise FewerError(f"the artefact is of another model: {name!r} is stored as {tensor.dtype}")
            own[name].data = own[name].data.to(tensor.dtype)  # a half-precision model stays one
    model.load_state_dict(state, strict=True)


def _check_names(own: Collection[str], given: Collection[str]) -> None:
    missing, unexpected = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    if missing or unexpected:
        parts = [f"it lacks {', '.join(missing[:3])}"] * bool(missing)
        parts += [f"it holds {', '.join(unexpected[:3])}, which the architecture does not know"] * bool(unexpected)
        raise FewerError(f"the artefact is of another model: {' and '.join(parts)}")


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
            digest.update(tensor_bytes(value))
    return digest.hexdigest()
