"""Train a segmentation network: from a data set to a run folder with weights, scores on unseen cases and a report."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.core.progress import Progress, Silent
from fewer.core.run import RunFolder
from fewer.models.artefact import save_artefact
from fewer.models.spec import LoadedModel, load_model
from fewer.tasks.facts import facts_of
from fewer.tasks.runs import Order, Training, carry_out, plain_settings, write_report
from fewer.tasks.segment.dataset import Case, SegmentData, Split, open_data
from fewer.tasks.segment.inference import predict_logits
from fewer.tasks.segment.losses import ScaledLoss, named_loss
from fewer.tasks.segment.memory import check_memory, estimate_memory
from fewer.tasks.segment.networks import build_network, check_network, scales
from fewer.tasks.segment.preparation import Preparation, fit_preparation
from fewer.tasks.segment.sampling import CaseStore, PatchSampler
from fewer.tasks.segment.scoring import evaluate_cases
from fewer.tasks.segment.settings import TrainSettings
from fewer.tasks.segment.trained import TrainedRun, TrainingPlan
from fewer.tasks.segment.warmup import WARM, transfer, warm_up
from fewer.training.checkpoint import Checkpoint, work_key
from fewer.training.devices import process_rank
from fewer.training.loop import Fit, Special, Validation, check_device, fit, make_accelerator

__all__ = ["plan_training", "start_from", "train"]

JUDGES = 32
"""Validation cases that are looked at during training; the end is judged on all."""


def plan_training(
    data: SegmentData | str | Path, settings: TrainSettings | None = None, split: Split | None = None
) -> TrainingPlan:
    """Look at a data set, build the network and estimate the memory, without training.

    Raises
    ------
    FewerError
        When data and settings do not fit each other, or the memory does not suffice.

    Examples
    --------
    >>> plan_training("lesions/").sentence  # doctest: +SKIP
    'training needs about 310 MB of memory (weights 8 MB, activations 290 MB, images 12 MB); 9.1 GB is free'
    """
    settings = settings or TrainSettings()
    data = data if isinstance(data, SegmentData) else open_data(data)
    given, split = split, split or _split(data, settings)
    cases = [data.case(name) for name in split.train]
    preparation = fit_preparation(data, cases, settings)
    if len(preparation.classes) < 2:
        raise FewerError(f"the masks of {data.root} are all empty: there is nothing to learn")
    outputs = len(preparation.classes)
    network = build_network(settings, preparation.dims, preparation.channels, outputs)
    check_network(network.model, network.name, preparation.channels, outputs, preparation.patch)
    shape = (settings.batch, preparation.channels, *preparation.patch)
    moments = (1 if settings.optimiser == "sgd" else 2) + (settings.average > 0)
    held = _prepared_bytes(cases, preparation, settings)
    half = settings.precision != "no"
    memory = estimate_memory(network.model, shape, outputs, cases=held, moments=moments, half=half)
    device = "cpu" if settings.device == "cpu" or not torch.cuda.is_available() else "cuda"
    # a split that was given is the user's own
    drawn = given is None and not data.splits and settings.fold >= 0
    told = data.subjects(settings.subject).sentence() if drawn else ""
    return TrainingPlan(data, split, preparation, network, memory, check_memory(memory, device), told)


def _prepared_bytes(cases: list[Case], preparation: Preparation, settings: TrainSettings) -> int:
    from fewer.tasks.segment.files import read_picture

    space = preparation.shape_of(read_picture(cases[0].images[0]))
    whole = len(cases) * prod(space) * (4 * preparation.channels + 1)
    return min(whole, int(settings.cache * 2**30))


def _split(data: SegmentData, settings: TrainSettings) -> Split:
    if settings.fold < 0:
        return Split(tuple(case.name for case in data.cases), ())
    return data.split(settings.fold, settings.folds, settings.seed, settings.subject)


def train(
    data: SegmentData | str | Path,
    *,
    out: str | Path | None = None,
    settings: TrainSettings | None = None,
    split: Split | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    command: str = "",
) -> TrainedRun:
    """Train a segmentation network.

    Parameters
    ----------
    data
        Folder, or a data set that was opened.
    out
        Run folder; everything stays in memory when None.
    settings
        See :class:`TrainSettings`.
    split
        Cases that train and judge; by default those of the settings' fold. With few names in ``train`` it is the
        training of an active-learning round.
    overwrite, resume
        What to do with an existing run folder.
    progress
        Shows what is going on.
    tell
        Is given the plan in words before the work begins.
    command
        The command line, for the report.

    Returns
    -------
    TrainedRun
        With the weights of the best validation, or the last ones if no case judges.

    Raises
    ------
    FewerError
        When data, settings or memory do not suffice; the sentence says what to change.

    Examples
    --------
    >>> run = train("lesions/", out="run/", settings=TrainSettings(steps=200))  # doctest: +SKIP
    >>> run.evaluation.overall.dice, run.evaluation.overall.missed  # doctest: +SKIP
    (0.91, 0)
    """
    settings, progress = settings or TrainSettings(), progress or Silent()
    check_device(settings)
    # under torchrun or accelerate launch, one process owns the folder; the others read its checkpoint when they resume
    if process_rank() > 0:
        scratch = Path(out) / ".scratch" if out is not None and resume else None
        return _train(plan_training(data, settings, split), settings, scratch, Silent(), judge=False)

    def plan() -> TrainingPlan:
        with progress.stage("look at the data", 1) as stage:
            found = plan_training(data, settings, split)
            stage.advance(1)
        return found

    training = Training(
        "segment",
        plan,
        lambda plan: {"data": str(plan.data.root)},
        lambda plan, scratch: _train(plan, settings, scratch, progress),
        lambda run, plan, result: _save(run, plan, result, settings, command),
    )
    return carry_out(training, settings, Order(out, overwrite, resume, tell, command))


def _train(
    plan: TrainingPlan, settings: TrainSettings, scratch: Path | None, progress: Progress, judge: bool = True
) -> TrainedRun:
    preparation, data, split = plan.preparation, plan.data, plan.split
    timings: dict[str, float] = {}
    accelerator = make_accelerator(settings)
    limit = settings.cache * 2**30
    store = CaseStore(data, [data.case(name) for name in split.train], preparation, limit)
    model, warm = plan.network.model, []
    began = perf_counter()
    if settings.init is not None:
        start_from(model, settings, preparation)
    elif settings.warm_up != "none":
        every = [*(data.case(name) for name in split.train), *data.unlabelled]
        checkpoint = scratch and scratch / "warm-up.safetensors"
        warm = warm_up(model, data, every, preparation, settings, accelerator, progress=progress, checkpoint=checkpoint)
        timings["warm-up"] = perf_counter() - began
        began = perf_counter()
    key = work_key(
        settings.model_dump(exclude={"cache", "device", "subject"}),
        preparation.to_dict(),
        split,
        str(plan.network.source),
    )
    model.to(accelerator.device)
    sampler = PatchSampler(store, settings, accelerator.process_index, accelerator.num_processes)
    loss = ScaledLoss(named_loss(settings.loss), settings.scale_weights)

    def objective(net: nn.Module, step: int) -> Tensor:
        images, masks = (part.to(accelerator.device) for part in sampler.batch(step))
        return loss(scales(net(images), preparation.dims), masks)

    judges = [data.case(name) for name in split.val]
    judges = judges[:: max(1, -(-len(judges) // JUDGES))]
    judged = CaseStore(data, judges, preparation, limit)
    found = fit(
        model,
        objective,
        settings,
        accelerator,
        name="train",
        progress=progress,
        checkpoint=Checkpoint.within(scratch, key),
        validate=Validation(lambda net: pooled_dice(net, judged), name="Dice") if judges else None,
        special=Special(splits=True),
    )
    found.load_best(model)
    timings["train"] = perf_counter() - began
    model.eval()
    return _finish(plan, settings, model, found, warm, timings, progress, judge)


def _finish(
    plan: TrainingPlan,
    settings: TrainSettings,
    model: nn.Module,
    found: Fit,
    warm: list[dict[str, float]],
    timings: dict[str, float],
    progress: Progress,
    judge: bool,
) -> TrainedRun:
    began, evaluation = perf_counter(), None
    if plan.split.val and judge:
        cases = [plan.data.case(name) for name in plan.split.val]
        evaluation = evaluate_cases(model, plan.data, cases, plan.preparation, progress=progress)
        timings["evaluate"] = perf_counter() - began
    return TrainedRun(
        model, plan.preparation, evaluation, found.history, found.best_step, settings, plan.split, warm, timings
    )


def pooled_dice(model: nn.Module, store: CaseStore) -> float:
    """Mean over classes of the Dice of all voxels together: defined for empty masks too, and quick.

    Examples
    --------
    >>> pooled_dice(model, store)  # doctest: +SKIP
    0.87
    """
    classes = len(store.preparation.classes)
    both = torch.zeros(classes, dtype=torch.float64)
    either = torch.zeros(classes, dtype=torch.float64)
    for index in range(len(store)):
        image, mask = store[index]
        assert mask is not None
        guess = predict_logits(model, image, store.preparation.patch, classes, 0.25).argmax(0).cpu()
        for value in range(1, classes):
            p, r = guess == value, mask == value
            both[value] += 2 * (p & r).sum()
            either[value] += p.sum() + r.sum()
    present = either[1:] > 0
    return float((both[1:][present] / either[1:][present]).mean()) if present.any() else 0.0


def start_from(model: nn.Module, settings: TrainSettings, preparation: Preparation) -> str:
    """Give a network the weights of a trained run, or of a warm-up, whose output is another.

    Returns
    -------
    str
        What a user should know, in words: that the run saw its images on another scale. Empty where there is nothing.

    Raises
    ------
    FewerError
        When that run holds another network, with the flags that would make the same.
    """
    assert settings.init is not None
    start, own = load_model(settings.init), model.state_dict()
    state = start.model.state_dict()
    differing = [name for name, tensor in own.items() if name not in state or state[name].shape != tensor.shape]
    # a warm-up puts out an image instead of classes; everything before its output must be the same network
    is_warm = WARM in start.meta
    if state.keys() != own.keys() or len(differing) > (len(own) // 2 if is_warm else 0):
        here, there = (len(size) - 1 for size in ((0, *preparation.patch), start.meta.get("input_size") or ()))
        if there > 0 and here != there:
            raise FewerError(f"the run {settings.init} was trained on {there}-D images, and these are {here}-D")
        told = _flags_of(start)
        advice = f"give {told}, and as many classes" if told else "give the same settings"
        raise FewerError(f"the run {settings.init} holds another network than the one to be trained; {advice}")
    if is_warm:
        transfer(start.model, model, preparation, settings.warm_up_transfer)
        return ""
    model.load_state_dict(state)
    found = facts_of(start, "segment").preparation
    if found is None or (theirs := Preparation.of(found).normalise) == preparation.normalise:
        return ""
    return (
        f"the run {settings.init} saw its images on another scale ({theirs}) than they have here "
        f"({preparation.normalise}): --normalise {theirs} keeps what it knows"
    )


def _flags_of(start: LoadedModel) -> str:
    """The flags that a run got its network with; empty where it does not say."""
    facts = start.meta.get("segment")
    used = facts.get("settings") if isinstance(facts, dict) else None
    if not isinstance(used, dict):
        return ""
    return " ".join(f"--{name} {used[name]}" for name in ("network", "width", "levels") if name in used)


def _save(run: RunFolder, plan: TrainingPlan, result: TrainedRun, settings: TrainSettings, command: str) -> None:
    from fewer.tasks.segment.pages import training_page

    split = {"data": str(real_path(plan.data.root)), "train": list(plan.split.train), "val": list(plan.split.val)}
    facts = {"preparation": plan.preparation.to_dict(), "settings": plain_settings(settings), "split": split}
    size = [plan.preparation.channels, *plan.preparation.patch]
    meta = {"task": "segment", "segment": facts, "model": plan.network.name, "input_size": size}
    preprocess = plan.preparation.preprocess()
    save_artefact(run.path, result.model.cpu(), [], plan.network.source, meta, preprocess=preprocess)
    page = training_page(plan, result, command)
    write_report(run, page)
    run.log("finished", best_step=result.best_step)
