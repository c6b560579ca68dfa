"""What of a run's model other runtimes get: the part that its task names, with inputs that its data make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.run import RunFolder
from fewer.cost.stopwatch import Stopwatch
from fewer.data.samples import ListSamples
from fewer.models.artefact import load_recipe
from fewer.models.running import evaluating
from fewer.models.spec import load_model
from fewer.tasks import TASKS, open_task, reads_inputs
from fewer.tasks.part import RuntimePart
from fewer.timing.sources import AcceleratedRun, Subject, load_run

__all__ = ["Entry", "entry_of", "part_of"]

_SAMPLES = 12
"""Samples that inputs are made of."""


def part_of(task: Any, model: nn.Module, samples: Sequence[Any] = ()) -> RuntimePart | None:
    """The part of a model that its task gives to other runtimes; None for all of it, or where no task is known."""
    return open_task(task).part(model, samples) if isinstance(task, str) and task in TASKS else None


@dataclass(frozen=True, eq=False)
class Entry:
    """What is timed side by side.

    Attributes
    ----------
    subject
        The dense model, or its part.
    images
        Inputs of it, one row each; None where the task has none to give.
    extras
        Of a part: the compressed part, in plain torch and on the kernels; name -> (call, precision, note).
    """

    subject: Subject
    images: Tensor | None = None
    extras: Mapping[str, tuple[nn.Module, str | None, str]] = field(default_factory=dict)


def entry_of(subject: Subject, images: Any = None, seed: int = 0) -> Entry:
    """What a bench of a run of a task compares; anything else is taken as it is.

    Parameters
    ----------
    subject
        As it was opened.
    images
        Data set of the task, or anything else that a bench takes; by default the one that the run was made with.
    seed
        Chooses samples.
    """
    if subject.run is None:
        return Entry(subject)
    task = load_recipe(subject.run).meta.get("task")
    if not isinstance(task, str) or task not in TASKS:
        return Entry(subject)
    samples = _samples(task, subject.run, images, seed)
    part = part_of(task, subject.model, samples)
    if part is None or not part.note:
        same = [x for x in samples if isinstance(x, Tensor) and x.shape == samples[0].shape]
        return Entry(subject, torch.stack(same) if same else None)
    told = f"{part.note[0].upper()}{part.note[1:]}. {_share(subject.model, part)}"
    dense = replace(subject, model=part.module, name=f"{subject.name}, dense part", source=None)
    return Entry(
        replace(dense, notes=(*subject.notes, told)), torch.cat(list(part.shaped())), _extras(task, subject, part)
    )


def _samples(task: str, run: Path, images: Any, seed: int) -> list[Any]:
    """Samples of the task's data, if they are at hand."""
    folder = RunFolder.open(run)
    given = images is not None
    if not given and folder.has("config"):
        images = folder.read_config().get("images")
    if not isinstance(images, (str, Path)) or not Path(images).is_dir() or not reads_inputs(task, images):
        return []
    try:
        found = open_task(task).images(load_model(str(run)), images, _SAMPLES, part="heldout", seed=seed)
    except FewerError:
        if given:
            raise
        return []
    if isinstance(found, ListSamples):
        return list(found.items)
    return [] if found.tensor is None else list(found.tensor)


def _share(model: nn.Module, part: RuntimePart) -> str:
    """How much of the model's time its part takes, in torch."""
    whole = part.whole if isinstance(part.whole, tuple) else (part.whole,)
    with evaluating(model), torch.no_grad():
        calls = {"whole": lambda: model(*whole), "part": lambda: part.module(part.inputs[0])}
        found = Stopwatch(runtimes=True).time(calls, budget_ms=300.0, warm=True)
    return f"In torch the part takes {100 * found['part'].ratio / found['whole'].ratio:.0f} % of the whole model's time"


def _extras(task: str, subject: Subject, part: RuntimePart) -> dict[str, tuple[nn.Module, str | None, str]]:
    run = subject.run
    assert run is not None
    rows: dict[str, tuple[nn.Module, str | None, str]] = {}
    fast = "each layer on the fastest kernel measured here, at the precision that the plan gave it"
    forms = {
        f"fewer {run}": (load_run(run), None, ""),
        f"fewer {run} accelerated": (load_run(run, part.whole), AcceleratedRun(run).precision(), fast),
    }
    for name, (model, precision, note) in forms.items():
        own = part_of(task, model)
        if own is not None:
            rows[name] = (own.module, precision, note)
    return rows
