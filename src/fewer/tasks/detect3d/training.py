"""Train a detector: from annotated scans to a run folder with weights, scores on unseen scans and a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.core.progress import Progress, Silent
from fewer.core.run import RunFolder
from fewer.models.artefact import save_artefact
from fewer.tasks.detect3d.augment import ObjectBank, augmented, only
from fewer.tasks.detect3d.dataset import DetectionData, open_data
from fewer.tasks.detect3d.field import fitted_reach, share_within, with_field
from fewer.tasks.detect3d.frames import Frame, Objects
from fewer.tasks.detect3d.kept import KeptFrames
from fewer.tasks.detect3d.loaded import columns_for, scan_tensor
from fewer.tasks.detect3d.networks import Detector, DetectorConfig, build_network, small_config
from fewer.tasks.detect3d.networks.config import Anchor, has_prior, published_config, short_config
from fewer.tasks.detect3d.pages import training_page
from fewer.tasks.detect3d.scoring import score_detector
from fewer.tasks.detect3d.settings import TrainSettings
from fewer.tasks.detect3d.starting import begin, config_to_start_from
from fewer.tasks.detect3d.trained import DetectorPlan, TrainedDetector
from fewer.tasks.runs import Order, Training, carry_out, write_report
from fewer.training.checkpoint import Checkpoint, work_key
from fewer.training.loop import Validation, check_device, fit, make_accelerator

_EXAMPLE = 1024
"""Points of the made-up scan that tells a run's layers where no scan is at hand."""

_LOOKED_AT, _ENOUGH = 50, 20
"""Scans whose objects shape the priors, and objects of a class that are needed for that where one is known."""

_SIZES = {"short": short_config, "small": small_config, "published": published_config}

__all__ = ["ScanSampler", "fitted_anchor", "plan_training", "save_detector", "source_of", "train"]


def plan_training(data: DetectionData | str | Path, settings: TrainSettings | None = None) -> DetectorPlan:
    """Look at a data set and choose the network, without training.

    Raises
    ------
    FewerError
        When nothing is annotated, or the annotations hold none of the classes.
    """
    settings = settings or TrainSettings()
    data = data if isinstance(data, DetectionData) else open_data(data, settings.view)
    names, val = data.split(settings.seed)
    if not names:
        raise FewerError(f"{data.root} has no annotated scan to train with")
    begun = config_to_start_from(settings)
    config = begun or _SIZES[settings.size](settings.network, settings.classes)
    seen = [data.objects(name) for name in names[:_LOOKED_AT]]
    known = {name for objects in seen for name in objects.classes}
    if not known & set(config.classes):
        raise FewerError(
            f"none of the classes {', '.join(config.classes)} is in the first scans of {data.root}, whose labels hold "
            f"{', '.join(sorted(known)) or 'no object'}; name what is to be learnt with --classes"
        )
    boxes = np.concatenate([objects.of(config.classes).boxes for objects in seen])
    if begun is not None:  # its heads have learnt its priors, in its cells
        asked: Any = settings.reach
        config = with_field(config, asked, settings.cell)
    else:
        config = _with_field(config, settings, boxes)
    if config.anchors and settings.size != "published" and begun is None:
        anchors = zip(config.classes, config.anchors, strict=True)
        config = config.model_copy(update={"anchors": tuple(fitted_anchor(a, name, seen) for name, a in anchors)})
    within = share_within(boxes, config.reach)
    if not within:
        sides = ", ".join(f"{v:g}" for v in config.reach)
        x, y, z = np.median(boxes[:, :3], 0)
        raise FewerError(
            f"none of the {len(boxes)} labelled objects stands where the network looks ({sides}); their middle is "
            f"at x {x:.1f}, y {y:.1f}, z {z:.1f} m: give their range with --reach=x,y,z,x,y,z"
        )
    lacking = tuple(name for name in config.classes if name not in known)
    return DetectorPlan(data, names, val, config, within, settings.init, lacking)


def _with_field(config: DetectorConfig, settings: TrainSettings, boxes: np.ndarray) -> DetectorConfig:
    """The field that was asked for; else that of the size, moved to where the objects of small networks stand."""
    asked: Any = settings.reach
    if asked is None and settings.size != "published":
        fitted = fitted_reach(config.reach, boxes)
        asked = None if fitted == config.reach else fitted
    return with_field(config, asked, settings.cell)


def fitted_anchor(anchor: Anchor, name: str, seen: Sequence[Objects]) -> Anchor:
    """The prior of a class with the mean size and the median underside of its objects, if there are enough of them.

    Examples
    --------
    >>> box = np.array([[9, 0, -1, 4, 2, 1.5, 0.0]])
    >>> fitted_anchor(Anchor(size=(3, 1, 1), bottom=0), "Car", [Objects(box, ("Car",))] * 20).size
    (4.0, 2.0, 1.5)
    """
    boxes = np.concatenate([np.zeros((0, 7)), *(objects.of([name]).boxes for objects in seen)])
    if not len(boxes):
        return anchor
    bottom = round(float(np.median(boxes[:, 2] - boxes[:, 5] / 2)), 2)
    # sizes of a few say little, but all of a class stand on the same road, and of a bus more than a car's
    if len(boxes) < _ENOUGH and has_prior(name):
        return anchor.model_copy(update={"bottom": bottom})
    length, width, height = boxes[:, 3:6].mean(0).round(2).tolist()
    return anchor.model_copy(update={"size": (length, width, height), "bottom": bottom})


class ScanSampler:
    """Batches of scans with objects of other scans set in, flipped, turned and scaled.

    The batch of a step depends on the seed and the step alone.

    Parameters
    ----------
    frames
        Scans that train.
    config, settings
        Of the training.
    bank
        Objects that are set in.
    """

    def __init__(
        self, frames: Sequence[Frame], config: DetectorConfig, settings: TrainSettings, bank: ObjectBank
    ) -> None:
        self.frames, self.config, self.settings, self.bank = frames, config, settings, bank

    def batch(self, step: int) -> tuple[tuple[Tensor, ...], list[Tensor], list[Tensor]]:
        """Scans, boxes and class numbers."""
        config, settings = self.config, self.settings
        rng = np.random.default_rng([22, settings.seed, step])
        scans, boxes, labels = [], [], []
        rare = settings.set_in // 2
        counts = {name: rare if at else settings.set_in for at, name in enumerate(config.classes)}
        for at in rng.integers(len(self.frames), size=settings.batch):
            frame = self.bank.set_in(self.frames[int(at)], counts, rng)
            frame = only(
                augmented(frame, rng, settings.turn, shine=settings.shine),
                config.classes,
                config.reach,
                settings.least_points,
            )
            scans.append(torch.from_numpy(columns_for(frame.points, config, f"scan {frame.name}")))
            boxes.append(torch.from_numpy(np.asarray(frame.objects.boxes, dtype=np.float32).reshape(-1, 7)))
            labels.append(torch.tensor([config.classes.index(n) for n in frame.objects.classes], dtype=torch.long))
        return tuple(scans), boxes, labels


def train(
    data: DetectionData | str | Path,
    *,
    out: str | Path | None = None,
    settings: TrainSettings | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    command: str = "",
) -> TrainedDetector:
    """Train a detector.

    Parameters
    ----------
    data
        Folder, or a data set that was opened.
    out
        Run folder; everything stays in memory when None.
    settings
        See :class:`TrainSettings`.
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
    >>> run = train("kitti/", out="run/", settings=TrainSettings(steps=1000))  # doctest: +SKIP
    >>> run.scores.ap("Car")  # doctest: +SKIP
    74.1
    """
    settings, progress = settings or TrainSettings(), progress or Silent()
    check_device(settings)
    training = Training(
        "detect3d",
        lambda: plan_training(data, settings),
        lambda plan: {"data": str(plan.data.root)},
        lambda plan, scratch: _train(plan, settings, scratch, progress),
        lambda run, plan, result: _save(run, plan, result, command),
    )
    return carry_out(training, settings, Order(out, overwrite, resume, tell, command))


def _train(plan: DetectorPlan, settings: TrainSettings, scratch: Path | None, progress: Progress) -> TrainedDetector:
    began, config = perf_counter(), plan.config
    frames, bank = KeptFrames(plan.data, plan.train), ObjectBank()
    with progress.stage("read scans", len(plan.train)) as stage:
        for frame in frames:
            if not np.isfinite(frame.points[:, : config.features]).all():
                told = f"fewer doctor {plan.data.root} --fix --out FOLDER writes a copy without such points"
                raise FewerError(f"intensities of {plan.data.file(frame.name)} are NaN or infinite; {told}")
            bank.add(replace(frame, objects=frame.objects.of(config.classes)))
            stage.advance(1, frame.name)
    _usable(plan)
    if settings.objects is not None:
        other = open_data(settings.objects)
        for name in other.labelled():
            frame = other.frame(name)
            bank.add(only(frame, config.classes, config.reach))
    torch.manual_seed(settings.seed)
    model = build_network(config)
    if settings.init is not None:
        begin(model, settings.init)
    accelerator = make_accelerator(settings)
    model.to(accelerator.device)
    sampler = ScanSampler(frames, config, settings, bank)

    def objective(net: nn.Module, step: int) -> Tensor:
        scans, boxes, labels = sampler.batch(step)
        there = accelerator.device
        moved = tuple(s.to(there) for s in scans)
        return model.loss(moved, [b.to(there) for b in boxes], [n.to(there) for n in labels])

    judges = plan.val[:: max(1, -(-len(plan.val) // settings.judges))]
    judged_by = f"AP {config.classes[0]}" if len(config.classes) == 1 else "mAP"

    def judge(net: nn.Module) -> float:
        return score_detector(net, plan.data, judges)[0].measures().get("mAP", 0.0)

    key = work_key(
        settings.model_dump(exclude={"device"}), config.model_dump(mode="json", exclude={"vote"}), plan.train, plan.val
    )
    found = fit(
        model,
        objective,
        settings,
        accelerator,
        name="train",
        progress=progress,
        checkpoint=Checkpoint.within(scratch, key),
        # a detector that came trained is kept where further steps make it no better
        validate=Validation(judge, name=judged_by, at_start=settings.init is not None) if judges else None,
    )
    found.load_best(model)
    model.to("cpu").eval()
    seconds = perf_counter() - began
    scores = score_detector(model, plan.data, plan.val, progress=progress)[0] if plan.val else None
    return TrainedDetector(model, plan, settings, scores, found.history, found.best_step, seconds)


def _usable(plan: DetectorPlan) -> None:
    """See to it that scans have points where the network looks, before the training and not at its first validation.

    Raises
    ------
    FewerError
        When none of those that train has any, or none of those that judge.
    """
    for kind, names in (("train", plan.train), ("judge", plan.val)):
        reasons = []
        for name in names:
            try:
                scan_tensor(plan.data.points(name), plan.config, plan.data.file(name))
                break
            except FewerError as error:
                reasons.append(str(error))
        else:
            if reasons:
                raise FewerError(f"none of the {len(names)} scans that {kind} can be used; the first: {reasons[0]}")


def _save(run: RunFolder, plan: DetectorPlan, result: TrainedDetector, command: str) -> None:
    save_detector(run.path, result.model, plan, result.settings.view)
    page = training_page(result, command)
    write_report(run, page)
    run.log("finished", best_step=result.best_step)


def save_detector(folder: Path, model: Detector, plan: DetectorPlan | None, view: str = "full", **facts: Any) -> None:
    """Weights and recipe of a detector, as ``load_model`` reads them.

    Parameters
    ----------
    folder
        Where to.
    model
        With its configuration.
    plan
        Of its training, so that scans that judged are known; None where there was none here.
    view
        Of the scans that it was trained on.
    facts
        Further JSON values to keep.
    """
    source, meta = source_of(model, plan, view, **facts)
    save_artefact(folder, model.cpu(), [], source, meta)


def source_of(
    model: Detector, plan: DetectorPlan | None, view: str = "full", **facts: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """How a detector is built again, and what is kept with it; see :func:`save_detector`."""
    args = model.config.model_dump(mode="json")
    source = {"kind": "task", "task": "detect3d", "name": model.config.network, "args": args}
    kept: dict[str, Any] = {"view": view, **facts}
    if plan is not None:
        kept["bright"] = plan.data.bright
        kept["split"] = {"data": str(real_path(plan.data.root)), "train": list(plan.train), "val": list(plan.val)}
    meta = {"task": "detect3d", "detect3d": kept, "model": model.config.network}
    meta["input_size"] = [_EXAMPLE, model.config.features]
    return source, meta
