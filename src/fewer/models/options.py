"""What may stand behind a question mark in a model's spec: weights of one's own, and how images become its input.

``timm/resnet50?checkpoint=best.safetensors&classes=10&input_size=96`` is one word, so a run folder that keeps the spec
can open the same model again.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fewer.core.errors import FewerError, near_match
from fewer.core.reading import check_ordinary, check_size, data_limit, refusing
from fewer.models.artefact import check_weights_file
from fewer.models.strangers import refuse_tensor

__all__ = ["SpecOptions", "load_checkpoint", "other_head", "read_checkpoint", "split_spec", "with_options"]

NAMES = ("checkpoint", "classes", "input_size", "mean", "std", "interpolation", "crop")
_NESTED = ("state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model_state", "model", "net", "ema")
"""Names under which training scripts keep the weights, beside the optimiser's state."""
_PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")
"""What wrappers put before every name."""


@dataclass(frozen=True)
class SpecOptions:
    """The options of a spec.

    Attributes
    ----------
    checkpoint
        File of weights, or None for those that the model comes with.
    classes
        Outputs of the model; None for its own number.
    preprocess
        Overrides of :class:`~fewer.data.preprocess.Preprocess`.
    """

    checkpoint: str | None = None
    classes: int | None = None
    preprocess: Mapping[str, Any] = field(default_factory=dict)


def split_spec(spec: str) -> tuple[str, SpecOptions]:
    """Take a spec apart.

    Raises
    ------
    FewerError
        For an unknown option (with the nearest one) or a value that is no number.

    Examples
    --------
    >>> base, options = split_spec("timm/resnet50?input_size=96&mean=0.5")
    >>> base, options.preprocess
    ('timm/resnet50', {'input_size': (3, 96, 96), 'mean': (0.5,)})
    """
    base, mark, tail = spec.partition("?")
    if not mark or Path(spec).exists():
        return spec, SpecOptions()
    found: dict[str, str] = {}
    for part in tail.split("&"):
        name, equals, value = part.partition("=")
        if name not in NAMES or not equals or not value:
            raise FewerError(f"the model {spec!r} has the unknown option {name!r}{near_match(name, NAMES)}")
        found[name] = value
    preprocess = {name: _READERS[name](value) for name, value in found.items() if name in _READERS}
    classes = found.get("classes")
    if classes is not None and not (classes.isdecimal() and len(classes) <= 7 and int(classes)):
        raise FewerError(f"the number of classes is {classes!r}; write for example classes=10")
    return base, SpecOptions(found.get("checkpoint"), int(classes) if classes else None, preprocess)


def with_options(spec: str, **options: Any) -> str:
    """Add options to a spec; those that are None are left out.

    Examples
    --------
    >>> with_options("timm/resnet50", checkpoint="best.pt", mean=None, input_size="96")
    'timm/resnet50?checkpoint=best.pt&input_size=96'
    """
    parts = [f"{name}={value}" for name, value in options.items() if value is not None]
    return spec + ("&" if "?" in spec else "?") + "&".join(parts) if parts else spec


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise FewerError(f"{text!r} is no number; mean, std and crop are on the 0 to 1 scale, such as 0.5") from None


def _size(text: str) -> tuple[int, ...]:
    """``96`` is a square of three channels; ``1x28x28`` says all."""
    parts = text.lower().split("x")
    if not all(part.isdecimal() and len(part) <= 5 for part in parts) or len(parts) > 3:
        raise FewerError(f"cannot read input_size={text}; write a side such as 96, or channels and sides: 1x28x28")
    numbers = [int(part) for part in parts]
    return {1: (3, *numbers * 2), 2: (3, *numbers), 3: tuple(numbers)}[len(numbers)]


_READERS: dict[str, Callable[[str], Any]] = {
    "input_size": _size,
    "mean": _numbers,
    "std": _numbers,
    "interpolation": str,
    "crop": lambda text: _numbers(text)[0],
}


def load_checkpoint(model: nn.Module, path: str | Path, *, new_head: bool = False) -> nn.Module:
    """Put the weights of a file into a model. No code of the file is run.

    Parameters
    ----------
    model
        Of the architecture that the file was saved from.
    path
        ``.safetensors``, or a file of ``torch.save`` that holds tensors: a state dict, or one inside of a training
        checkpoint. Prefixes of wrappers, such as ``module.``, are taken off.
    new_head
        Leave the one layer as it is that has another number of outputs in the file, if it is the only one.

    Raises
    ------
    FewerError
        When the file cannot be read, holds more than weights, or belongs to another architecture.
    """
    state = _fitting(read_checkpoint(path), model)
    own = model.state_dict()
    # files from before torch 0.4.1 do not count the batches that a norm has seen, and nothing depends on it
    state = {name: own[name] for name in own if name.endswith("num_batches_tracked")} | state
    if new_head:
        state |= {name: own[name] for name in _head(state, own)}
    missing, unknown = [n for n in own if n not in state], [n for n in state if n not in own]
    if missing or unknown:
        told = f"lacks {', '.join(missing[:3])}" if missing else f"has {', '.join(unknown[:3])}"
        known = near_match(missing[0], unknown) if missing and unknown else ""
        raise FewerError(f"the checkpoint {path} is of another model: it {told}{known}")
    for name, tensor in state.items():
        if tensor.is_complex() and not own[name].is_complex():
            raise FewerError(f"the checkpoint {path} is of another model: {name} is complex there and real here")
        if tensor.shape != own[name].shape:
            head = f"; where only the head differs, give its size: classes={len(tensor)}" if tensor.ndim else ""
            raise FewerError(
                f"the checkpoint {path} is of another model: {name} is {tuple(tensor.shape)} there and "
                f"{tuple(own[name].shape)} here{head}"
            )
    model.load_state_dict(state)
    return model


def other_head(model: nn.Module, path: str | Path) -> list[str]:
    """Names of the tensors that ``load_checkpoint(..., new_head=True)`` leaves as they are; none where all fit."""
    return _head(_fitting(read_checkpoint(path), model), model.state_dict())


def _head(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors of the one layer that differs in the number of its outputs alone; none where more differ."""
    other = [name for name in own if name in state and state[name].shape != own[name].shape]
    fits = all(state[name].ndim and state[name].shape[1:] == own[name].shape[1:] for name in other)
    return other if fits and len({name.rpartition(".")[0] for name in other}) == 1 else []


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """The weights of a file by name: of safetensors, or of ``torch.save``, also inside of a training's checkpoint.

    No code of the file is run.

    Raises
    ------
    FewerError
        When the file is missing or damaged, is too large, or holds more than weights.

    Examples
    --------
    >>> read_checkpoint("no.pt")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: the checkpoint no.pt does not exist
    """
    path = Path(path)
    if not path.is_file():
        raise FewerError(f"the checkpoint {path} does not exist")
    if path.suffix == ".safetensors":
        check_weights_file(path)
        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError) as error:
            raise FewerError(f"the checkpoint {path} is truncated or no safetensors file ({error})") from None
    _check_unpacked(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        code = re.search(r"GLOBAL ([\w.]+)", str(error))  # torch's own text is long, and coloured
        reason = f"it names the Python code {code[1]}" if code else " ".join(str(error).split())[:120]
        raise FewerError(
            f"the checkpoint {path} holds more than weights, or is damaged, and is not opened ({reason}); save its "
            "state_dict() with safetensors.torch.save_file"
        ) from None
    for _ in range(len(_NESTED)):  # a file may hold a dictionary that holds itself
        if not isinstance(found, Mapping) or any(isinstance(value, Tensor) for value in found.values()):
            break
        inner = next((found[name] for name in _NESTED if isinstance(found.get(name), Mapping)), None)
        if inner is None:
            break
        found = inner
    named = isinstance(found, Mapping) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items())
    if not named or not found:
        raise FewerError(f"the checkpoint {path} holds no weights by name; save the model's state_dict()")
    for name, tensor in found.items():
        refuse_tensor(tensor, f"{name} of the checkpoint {path}")
    return dict(found)


def _check_unpacked(path: Path) -> None:
    """Hold the size of what ``torch.save`` wrote, an archive, against the memory before it is unpacked."""
    check_ordinary(path)
    if zipfile.is_zipfile(path):
        with refusing(f"the checkpoint {path}"), zipfile.ZipFile(path) as archive:
            check_size(
                sum(one.file_size for one in archive.infolist()), data_limit(), f"the checkpoint {path}, unpacked,"
            )


def _fitting(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The same weights without the prefixes that all names have and the model's names have not."""
    own = {*model.state_dict()}
    for _ in _PREFIXES:
        for prefix in _PREFIXES:
            if own & {*state}:
                return state
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    inside = {f"model.{name}": tensor for name, tensor in state.items()}  # what a wrapper of ours puts there
    return inside if own & {*inside} and not own & {*state} else state
