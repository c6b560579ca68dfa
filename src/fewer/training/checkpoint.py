"""A training that is under way, as one safetensors file: whole or not there, and never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes
from fewer.core.reading import parse_json
from fewer.training.average import Average
from fewer.training.constrained import Constrained
from fewer.training.history import Fit, History

__all__ = ["Checkpoint", "Training", "restore", "store", "work_key"]

VERSION = 2
"""Of the file's layout."""


@dataclass(frozen=True)
class Checkpoint:
    """Where a training that is under way is kept, and how often.

    Attributes
    ----------
    path
        A file that is written now and then and on Ctrl-C, and read first where it is there.
    key
        Names the training; the checkpoint of another one is refused. See :func:`work_key`.
    seconds
        Between two writes at most; the step under way is finished first.
    at_validations
        Write after every validation too.
    """

    path: Path
    key: str = ""
    seconds: float = 30.0
    at_validations: bool = True

    @classmethod
    def within(cls, folder: Path | None, key: str, name: str = "checkpoint") -> Checkpoint | None:
        """The checkpoint of this name in a folder; None where there is no folder to keep it in.

        Examples
        --------
        >>> Checkpoint.within(None, "a key") is None
        True
        """
        return None if folder is None else cls(folder / f"{name}.safetensors", key)


@dataclass(eq=False)
class Training:
    """Everything that goes on changing during a training, and so must be kept.

    Attributes
    ----------
    fit
        Numbers and best state.
    weights
        Parameters that learn, with the model that they belong to.
    optimisers
        By the name of the player.
    average
        Moving average, or None.
    scaler
        Gradient scaler of fp16, or None.
    losses
        Losses since the last validation, by name.
    """

    fit: Fit
    weights: Constrained
    optimisers: Mapping[str, torch.optim.Optimizer]
    average: Average | None = None
    scaler: Any = None
    losses: dict[str, list[Tensor]] = field(default_factory=dict)


def work_key(*parts: Any) -> str:
    """Hash of everything that decides the course of a training.

    Examples
    --------
    >>> work_key({"seed": 0}) != work_key({"seed": 1})
    True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def store(path: Path, key: str, state: Training) -> None:
    """Write everything that going on needs.

    Raises
    ------
    FewerError
        When the disk is full or may not be written to.
    """
    fit, weights = state.fit, state.weights
    tensors = {f"model.{name}": tensor for name, tensor in weights.model.state_dict().items()}
    for name, latent, live in zip(weights.names(), weights.parameters(), weights.live(), strict=True):
        if latent is not live:
            tensors[f"latent.{name}"] = latent
    if state.average is not None:
        values = dict(zip(weights.names(), state.average.values, strict=True)) | state.average.buffers
        tensors |= {f"average.{name}": value for name, value in values.items()}
    tensors |= {f"best.{name}": value for name, value in (fit.best or {}).items()}
    tensors |= {f"losses.{name}": torch.stack(values) for name, values in state.losses.items() if values}
    plain: dict[str, Any] = {}
    for player, optimiser in state.optimisers.items():
        for index, parts in optimiser.state_dict()["state"].items():
            for part, value in parts.items():
                _sort_in(f"optimiser.{player}/{index}/{part}", value, tensors, plain)
    facts: dict[str, Any] = {"version": VERSION, "key": key, "plain": plain}
    facts["fit"] = {one.name: getattr(fit, one.name) for one in fields(fit) if one.name != "best"}
    facts["has_best"] = fit.best is not None
    # steps that are relative to the weights are relative to those of the start, which a later process may not have
    groups = {player: optimiser.param_groups for player, optimiser in state.optimisers.items()}
    facts["scales"] = {player: [group.get("scale") for group in those] for player, those in groups.items()}
    if state.scaler is not None:
        facts["scaler"] = state.scaler.state_dict()
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    atomic_write_bytes(path, save(whole, {"facts": json.dumps(facts)}))


def _sort_in(name: str, value: Any, tensors: dict[str, Tensor], plain: dict[str, Any]) -> None:
    if isinstance(value, Tensor):
        tensors[name] = value
    elif value is None or isinstance(value, bool | int | float | str):
        plain[name] = value
    else:
        raise FewerError(f"the optimiser keeps {name!r} as {type(value).__name__}, which a checkpoint cannot hold")


@torch.no_grad()
def restore(path: Path, key: str, state: Training) -> None:
    """Put a training back to where :func:`store` left it.

    Raises
    ------
    FewerError
        When the file is damaged or belongs to another training.
    """
    facts, parts = _read(path)
    if facts["key"] != key:
        raise FewerError(
            "the interrupted training had another model, other images, other settings or code; repeat its own command "
            "with --resume, or start anew with --overwrite"
        )
    weights = state.weights
    try:
        weights.model.load_state_dict(parts["model"])
        for name, latent in zip(weights.names(), weights.parameters(), strict=True):
            if name in parts["latent"]:
                latent.copy_(parts["latent"][name])
        if state.average is not None:
            for name, value in zip(weights.names(), state.average.values, strict=True):
                value.copy_(parts["average"][name])
            for name, value in state.average.buffers.items():
                value.copy_(parts["average"][name])
            state.average.refresh()
        for player, optimiser in state.optimisers.items():
            _load_optimiser(optimiser, player, parts["optimiser"] | facts["plain"])
            for group, scale in zip(optimiser.param_groups, facts["scales"][player], strict=True):
                if scale is not None:
                    group["scale"] = float(scale)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise FewerError(f"the checkpoint {path} does not fit the model ({error}); start with --overwrite") from None
    if "scaler" in facts and state.scaler is not None:
        state.scaler.load_state_dict(facts["scaler"])
    values = dict(facts["fit"])
    values["history"] = History(values["history"])
    for name, value in values.items():
        setattr(state.fit, name, value)
    state.fit.best = parts["best"] if facts["has_best"] else None
    state.losses = {name: list(stacked.unbind()) for name, stacked in parts["losses"].items()}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    try:
        with safe_open(path, "pt") as file:
            facts = parse_json(file.metadata()["facts"], f"the checkpoint {path}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if facts["version"] != VERSION:
            raise ValueError(f"layout {facts['version']}")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FewerError(f"the checkpoint {path} cannot be read ({error}); start anew with --overwrite") from None
    parts: dict[str, dict[str, Tensor]] = {
        name: {} for name in ("model", "latent", "average", "best", "losses", "optimiser")
    }
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part not in parts:
            raise FewerError(f"the checkpoint {path} holds {name!r}, which is of none; start anew with --overwrite")
        parts[part][rest if part != "optimiser" else name] = tensor
    return facts, parts


def _load_optimiser(optimiser: torch.optim.Optimizer, player: str, values: Mapping[str, Any]) -> None:
    state: dict[int, dict[str, Any]] = {}
    for name, value in values.items():
        owner, index, part = name.removeprefix("optimiser.").rsplit("/", 2)
        if owner == player:
            state.setdefault(int(index), {})[part] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
