"""The training loop: plain steps on accelerate, a checkpoint now and then, and a resume that equals never stopping."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes
from fewer.core.progress import Progress
from fewer.training.settings import LoopSettings

__all__ = ["Fit", "check_device", "fit", "make_accelerator", "work_key"]

CLIP = 12.0
"""Largest norm of a gradient, as in nnU-Net."""


@dataclass
class Fit:
    """What a loop has done.

    Attributes
    ----------
    step
        Steps finished.
    history
        One entry per validation: ``step``, mean ``loss`` since the one before, and ``score`` if there is one.
    best_score, best_step, best
        Of the best validation so far, and its state.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_score: float | None = None
    best_step: int = 0
    best: dict[str, Tensor] | None = None


def work_key(*parts: Any) -> str:
    """Hash of everything that decides the course of a training.

    Examples
    --------
    >>> work_key({"seed": 0}) != work_key({"seed": 1})
    True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def check_device(settings: LoopSettings) -> None:
    """Tell before any work that the device of the settings is not there.

    Raises
    ------
    FewerError
    """
    if settings.device == "cuda" and not torch.cuda.is_available():
        raise FewerError("there is no CUDA device here; give --device cpu, or auto")


def make_accelerator(settings: LoopSettings) -> Any:
    """An ``Accelerator`` for the device and precision of the settings.

    Raises
    ------
    FewerError
        When the device is not there.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    if PartialState._shared_state and PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)  # an earlier training in this process chose otherwise
    return Accelerator(cpu=settings.device == "cpu", mixed_precision=settings.precision)


def fit(
    model: nn.Module,
    objective: Callable[[nn.Module, int], Tensor],
    settings: LoopSettings,
    accelerator: Any,
    *,
    steps: int,
    name: str,
    progress: Progress,
    checkpoint: Path | None = None,
    key: str = "",
    validate: Callable[[nn.Module], float] | None = None,
) -> Fit:
    """Train in place.

    The randomness of a step depends on the seed and its number alone; so a run that was interrupted and goes on from
    its last checkpoint ends with the very weights of one that was not.

    Parameters
    ----------
    model
        On the accelerator's device.
    objective
        ``objective(model, step)``: the loss of this process's part of a batch.
    settings
        Optimiser, rates, seed, ``every``.
    accelerator
        See :func:`make_accelerator`.
    steps
        Number of steps.
    name
        Of the progress bar.
    checkpoint
        File that is written at every validation, and read first if it is there.
    key
        Must be that of the checkpoint; see :func:`work_key`.
    validate
        ``validate(model)``: a score, higher is better.

    Raises
    ------
    FewerError
        When the loss is no longer finite, or the checkpoint belongs to other settings.
    """
    optimiser = _optimiser(model, settings)
    done = Fit()
    if checkpoint is not None and checkpoint.exists():
        done = _restore(checkpoint, key, model, optimiser, accelerator)
    wrapped, stepper = accelerator.prepare(model, optimiser)
    losses: list[Tensor] = []
    with progress.stage(name, steps) as stage:
        stage.advance(done.step)
        while done.step < steps:
            wrapped.train()
            torch.manual_seed(settings.seed * 1_000_003 + done.step)
            for group in stepper.param_groups:
                group["lr"] = settings.learning_rate * (1 - done.step / steps) ** 0.9
            loss = objective(wrapped, done.step)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(wrapped.parameters(), CLIP)
            stepper.step()
            stepper.zero_grad()
            losses.append(loss.detach())
            done.step += 1
            last = done.step == steps
            if not last and done.step % settings.every:
                stage.advance(1)
                continue
            mean = float(torch.stack(losses).mean())
            losses.clear()
            if not math.isfinite(mean):
                raise FewerError(
                    f"the loss is {mean} at step {done.step}; lower --learning-rate, or train with --precision no"
                )
            _note(done, mean, model, validate)
            stage.advance(1, _words(done))
            if checkpoint is not None and accelerator.is_main_process:
                _keep(checkpoint, key, done, model, optimiser, accelerator)
            accelerator.wait_for_everyone()
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)  # mixed precision had replaced its forward
    accelerator.free_memory()
    return done


def _optimiser(model: nn.Module, settings: LoopSettings) -> torch.optim.Optimizer:
    parameters = [p for p in model.parameters() if p.requires_grad]
    common: dict[str, Any] = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay}
    if settings.optimiser == "sgd":
        return torch.optim.SGD(parameters, momentum=0.99, nesterov=True, **common)
    return torch.optim.AdamW(parameters, **common)


def _note(done: Fit, loss: float, model: nn.Module, validate: Callable[[nn.Module], float] | None) -> None:
    entry = {"step": float(done.step), "loss": loss}
    if validate is not None:
        entry["score"] = score = validate(model)
        if done.best_score is None or score >= done.best_score:  # of equals the later, which has seen more
            done.best_score, done.best_step = score, done.step
            done.best = {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()}
    done.history.append(entry)


def _words(done: Fit) -> str:
    latest = done.history[-1]
    score = f", Dice {latest['score']:.3f}" if "score" in latest else ""
    return f"loss {latest['loss']:.3f}{score}"


def _keep(
    path: Path, key: str, done: Fit, model: nn.Module, optimiser: torch.optim.Optimizer, accelerator: Any
) -> None:
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in (done.best or {}).items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    facts: dict[str, Any] = {"key": key, "step": done.step, "history": done.history}
    facts |= {"best_score": done.best_score, "best_step": done.best_step}
    if accelerator.scaler is not None:
        facts["scaler"] = accelerator.scaler.state_dict()
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    atomic_write_bytes(path, save(whole, {"facts": json.dumps(facts)}))


def _restore(path: Path, key: str, model: nn.Module, optimiser: torch.optim.Optimizer, accelerator: Any) -> Fit:
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads(file.metadata()["facts"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise FewerError(f"the checkpoint {path} cannot be read ({error}); start anew with --overwrite") from None
    if facts["key"] != key:
        raise FewerError(
            "the interrupted training had other settings, cases or code; repeat its own command with --resume, "
            "or start anew with --overwrite"
        )
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "optimiser": {}}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    model.load_state_dict(parts["model"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in parts["optimiser"].items():
        index, _, rest = name.partition(".")
        state.setdefault(int(index), {})[rest] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    if "scaler" in facts and accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(facts["scaler"])
    best = parts["best"] or None
    return Fit(facts["step"], facts["history"], facts["best_score"], facts["best_step"], best)
