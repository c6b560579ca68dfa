"""Train a gait network: from silhouettes to a run folder with weights, scores on other persons and a page."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.core.progress import SILENT, Progress, Silent
from fewer.core.run import RunFolder
from fewer.models.artefact import save_artefact
from fewer.tasks.gait.data.dataset import WIDTH, GaitData, open_data, refuse_names
from fewer.tasks.gait.data.silhouettes import SIZE
from fewer.tasks.gait.data.store import Sequences, prepared_once
from fewer.tasks.gait.embed import embed_walks
from fewer.tasks.gait.losses import class_loss, triplet_loss
from fewer.tasks.gait.networks import GaitNetwork, NetworkConfig, build_network
from fewer.tasks.gait.pages import training_page
from fewer.tasks.gait.protocols import protocol_for
from fewer.tasks.gait.protocols.records import Walk, Walks
from fewer.tasks.gait.protocols.scores import Scores
from fewer.tasks.gait.sampling import PersonSampler
from fewer.tasks.gait.settings import TrainSettings
from fewer.tasks.gait.tpa import CHOICES
from fewer.tasks.gait.trained import GaitPlan, TrainedGait
from fewer.tasks.runs import Order, Training, carry_out, write_report
from fewer.training.checkpoint import Checkpoint, work_key
from fewer.training.devices import process_rank
from fewer.training.history import Fit
from fewer.training.loop import Validation, check_device, fit, make_accelerator

__all__ = ["objective_of", "plan_training", "save_gait", "score_people", "train", "train_planned"]

_PREPARED = "prepared-"
_FEW = 8
"""Persons below which all train, and the last state is taken."""


def plan_training(data: GaitData | str | Path, settings: TrainSettings | None = None) -> GaitPlan:
    """Look at a data set and choose the network, without training.

    Raises
    ------
    FewerError
        When there is nothing to train with.
    """
    settings = settings or TrainSettings()
    data = open_data(data)
    refuse_names(data)
    train, test = data.part("train"), data.part("test")
    people = sorted({walk.person for walk in train})
    if len(people) < 2:
        raise FewerError(f"{data.root} has {len(people)} person to train with; two are needed, and more to judge")
    if settings.tpa != "off" and settings.order == "unordered":
        raise FewerError(f"--tpa {settings.tpa} looks at the order of frames; leave out --order unordered")
    kept = round(settings.validate_share * len(people)) if len(people) >= _FEW else 0
    last = set(people[len(people) - max(2, kept) :]) if kept else set()
    note = why_not_judged([w for w in train if w.person in last], data) if last else ""
    if note:
        last, note = set(), f"all of them train, since nobody can choose the best state: {note}"
    config = NetworkConfig(
        network=settings.network, size=settings.size, classes=len(people) - len(last), tpa=CHOICES[settings.tpa]
    )
    return GaitPlan(
        data, [w for w in train if w.person not in last], [w for w in train if w.person in last], test, config, note
    )


def why_not_judged(walks: list[Walk], data: GaitData) -> str:
    """Why no protocol can score sequences of these names; empty where one can. It is told before a training."""
    try:
        made_up = Walks(walks, np.arange(len(walks), dtype=np.float32)[:, None])
        protocol_for(made_up, data.partition.get("probes", ()))(made_up)
    except FewerError as error:
        return str(error)
    return ""


def objective_of(
    model: GaitNetwork, sampler: PersonSampler, settings: TrainSettings, accelerator: Any
) -> Callable[..., Any]:
    """Losses of a step, by name: triplets, and classes where the network has them."""

    def objective(net: nn.Module, step: int) -> dict[str, Tensor]:
        x, labels = (t.to(accelerator.device) for t in sampler.batch(step))
        embeddings, scores = model.train_outputs(x)
        losses = {"triplet": triplet_loss(embeddings.float(), labels, settings.margin)[0]}
        if scores is not None:
            scale = 1.0 if model.config.network == "gaitgl" else 16.0  # its scores are no cosines
            losses["classes"] = class_loss(scores.float(), labels, scale)
        return losses

    return objective


def score_people(model: nn.Module, data: GaitData, walks: list[Walk], progress: Progress | None = None) -> Scores:
    """Scores by the protocol that the names speak for."""
    found, skipped = embed_walks(model, data, walks, progress=progress)
    return protocol_for(found, data.partition.get("probes", ()))(found).noting(skipped)


def train(
    data: GaitData | str | Path,
    *,
    out: str | Path | None = None,
    settings: TrainSettings | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    command: str = "",
) -> TrainedGait:
    """Train a gait network.

    Parameters
    ----------
    data
        Folder, or a data set that was opened.
    out
        Run folder; everything stays in memory when None.
    settings
        See :class:`~fewer.tasks.gait.settings.TrainSettings`.
    overwrite, resume
        What to do with an existing run folder.
    progress, tell, command
        For the command line.

    Raises
    ------
    FewerError
        When data and settings do not fit each other.

    Examples
    --------
    >>> train("walks/", out="run/", settings=TrainSettings(steps=1000)).scores.headline  # doctest: +SKIP
    81.4
    """
    settings, progress = settings or TrainSettings(), progress or Silent()
    check_device(settings)
    training = Training(
        "gait",
        lambda: plan_training(data, settings),
        lambda plan: {"data": str(plan.data.root)},
        lambda plan, scratch: train_planned(plan, settings, scratch, progress),
        lambda run, plan, result: _save(run, plan, result, command),
    )
    return carry_out(training, settings, Order(out, overwrite, resume, tell, command))


def _save(run: RunFolder, plan: GaitPlan, result: TrainedGait, command: str) -> None:
    save_gait(run.path, result.model, plan, result.settings.frames)
    page = training_page(result, command)
    write_report(run, page)
    run.log("finished", best_step=result.best_step)


def train_planned(
    plan: GaitPlan, settings: TrainSettings, scratch: Path | None = None, progress: Progress = SILENT
) -> TrainedGait:
    """Train what was planned; what does not fit into ``settings.cache`` is read from its files again and again.

    The checkpoint, and silhouettes of videos and pictures, are kept in ``scratch``.
    """
    began = perf_counter()
    torch.manual_seed(settings.seed)
    model = build_network(plan.config)
    # of several processes, the one that owns the run clears its folder; the others must not lose theirs to it
    home = scratch if process_rank() == 0 else None
    for left in home.glob(f"{_PREPARED}*") if home else ():  # by a training that was killed
        shutil.rmtree(left, ignore_errors=True)
    with TemporaryDirectory(prefix=_PREPARED, dir=home) as folder:
        data = prepared_once(plan.data, plan.train + plan.val, Path(folder), progress)
        sequences = Sequences(data, plan.train, settings.cache * 2**30)
        sequences.check(progress)
        found = _fitted(model, data, plan, sequences, settings, scratch, progress)
    if plan.val:
        found.load_best(model)
    model.to("cpu").eval()
    scores, note = None, ""
    seconds = perf_counter() - began
    if plan.test:
        try:
            scores = score_people(model, plan.data, plan.test, progress)
        except FewerError as error:
            note = f"not judged: {error}"
    return TrainedGait(model, plan, settings, scores, list(found.history), found.best_step, seconds, note=note)


def _fitted(
    model: GaitNetwork,
    data: GaitData,
    plan: GaitPlan,
    sequences: Sequence[np.ndarray],
    settings: TrainSettings,
    scratch: Path | None,
    progress: Progress,
) -> Fit:
    accelerator = make_accelerator(settings)
    model.to(accelerator.device)
    sampler = PersonSampler(
        plan.train,
        sequences,
        people=max(2, settings.batch // settings.each),
        each=settings.each,
        frames=settings.frames,
        order=settings.order,
        skip=settings.skip,
        flip=settings.flip,
        seed=settings.seed,
    )
    names = [str(walk) for walk in plan.train]
    settled = settings.model_dump(exclude={"cache", "device"})
    key = work_key(settled, plan.config.model_dump(mode="json"), names, len(sequences))
    validate = Validation(lambda net: score_people(net, data, plan.val).headline, name="rank-1")
    return fit(
        model,
        objective_of(model, sampler, settings, accelerator),
        settings,
        accelerator,
        name="train",
        progress=progress,
        checkpoint=Checkpoint.within(scratch, key),
        validate=validate if plan.val else None,
    )


def save_gait(folder: Path, model: GaitNetwork, plan: GaitPlan, frames: int = 30) -> None:
    """Weights and recipe of a gait network, as ``load_model`` reads them."""
    args = model.config.model_dump(mode="json")
    source = {"kind": "task", "task": "gait", "name": model.config.network, "args": args}
    trained = sorted({walk.person for walk in plan.train + plan.val})
    split = {"data": str(real_path(plan.data.root)), "train": trained, "classes": plan.people}
    meta = {"task": "gait", "gait": {"split": split}, "model": model.config.network}
    meta["input_size"] = [frames, SIZE, WIDTH]
    save_artefact(folder, model.cpu(), [], source, meta)
