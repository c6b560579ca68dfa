"""Train a classifier: from a labelled set to a run folder with weights, scores on unseen images and a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.core.progress import Progress, Silent
from fewer.core.run import RunFolder
from fewer.data.preprocess import Preprocess
from fewer.models.artefact import save_artefact
from fewer.models.options import load_checkpoint
from fewer.models.spec import LoadedModel, load_model
from fewer.quantize.fake import QUANTISERS
from fewer.quantize.lowbit import parse_bits, plain
from fewer.quantize.metagrad import hypernetwork_of
from fewer.quantize.qat import trained_ranges
from fewer.tasks.classify.batches import Augmented
from fewer.tasks.classify.dataset import ClassifyData, holdout
from fewer.tasks.classify.distil import check_distillation, taught
from fewer.tasks.classify.evaluate import evaluate_rows
from fewer.tasks.classify.evaluation import Evaluation
from fewer.tasks.classify.lowbit import LowBit, held_by, lower, meta_optimiser, stored_units
from fewer.tasks.classify.model import Classifier, ClassMap, output_count, scores_of
from fewer.tasks.classify.networks import NETWORKS, build
from fewer.tasks.classify.readers import open_data
from fewer.tasks.classify.settings import TrainSettings
from fewer.tasks.classify.trained import TrainedRun
from fewer.tasks.runs import Order, Training, carry_out, write_report
from fewer.training.checkpoint import Checkpoint, work_key
from fewer.training.constrained import Constrained, Held
from fewer.training.loop import check_device, fit, make_accelerator
from fewer.training.optimise import Player

__all__ = ["Prepared", "prepare", "train"]

JUDGES = 1000
"""Images that are looked at during training; the end is judged on all."""
SMALL = Preprocess((3, 32, 32), mean=(0.5,), std=(0.25,), interpolation="bilinear", crop=1.0)
"""Input of the networks for small images."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A training before it begins: the set, its rows, and the network with the weights that it starts from."""

    data: ClassifyData
    rows: np.ndarray
    held: np.ndarray
    loaded: LoadedModel

    def lines(self) -> list[str]:
        """In words."""
        count = self.data.count(self.rows)
        least = min(count, key=lambda name: count[name])
        parameters = sum(p.numel() for p in self.loaded.model.parameters())
        return [
            f"{len(self.rows)} images train, {len(self.held)} judge; {len(count)} classes, {self.data.kind}",
            f"the smallest class is {least} with {count[least]} images",
            f"network {self.loaded.name}, {parameters / 1e6:.3g} M parameters, "
            f"input {' x '.join(map(str, self.loaded.input_size))}",
        ]


def prepare(data: ClassifyData | str | Path, settings: TrainSettings | None = None) -> Prepared:
    """Open a set, split it and build the network, without training.

    Raises
    ------
    FewerError
        When data and settings do not fit each other.

    Examples
    --------
    >>> prepare("photos-by-class/").lines()[0]  # doctest: +SKIP
    '160 images train, 40 judge; 2 classes, folders by class'
    """
    settings = settings or TrainSettings()
    data = data if isinstance(data, ClassifyData) else open_data(data)
    if len(data.classes) < 2:
        raise FewerError(f"{data.root} has one class, {''.join(data.classes)!r}: there is nothing to tell apart")
    if settings.bits is not None:
        parse_bits(settings.bits)  # before anything is read
    hypernetwork_of(settings.gradients)
    _ = QUANTISERS[settings.quantiser]
    check_distillation(settings)
    rows, held = holdout(data, settings.validate_share, settings.seed)
    loaded = _network(settings, len(data.classes))
    outputs = output_count(loaded)
    if outputs != len(data.classes):
        told = f"gives {outputs} scores" if outputs else "is no classifier of images"
        raise FewerError(f"{loaded.name} {told}; {data.root} has {len(data.classes)} classes")
    return Prepared(data, rows, held, loaded)


def _network(settings: TrainSettings, classes: int) -> LoadedModel:
    """The network with its start: random weights, those of a spec, or those of a run."""
    torch.manual_seed(settings.seed)
    side = settings.input_size
    if settings.network in NETWORKS:
        args = {"num_classes": classes}
        source = {"kind": "task", "task": "classify", "name": settings.network, "args": args}
        preprocess = SMALL if not side else Preprocess.of(SMALL.to_dict() | {"input_size": (3, side, side)})
        loaded = LoadedModel(build(settings.network, **args), settings.network, source, preprocess, "classify")
    else:
        if "/" not in settings.network and ":" not in settings.network:
            _ = NETWORKS[settings.network]  # says the nearest name
        loaded = load_model(settings.network, **({"input_size": (3, side, side)} if side else {}))
        if output_count(loaded) != classes:
            loaded = _new_head(loaded, classes)
    if settings.init is not None and Path(settings.init).is_file():
        load_checkpoint(loaded.model, settings.init)
    elif settings.init is not None:
        if not Path(settings.init).is_dir():
            raise FewerError(f"--init {settings.init} is neither a run folder nor a file of weights")
        start = load_model(settings.init).model.state_dict()
        own = loaded.model.state_dict()
        if start.keys() != own.keys() or any(start[name].shape != own[name].shape for name in own):
            raise FewerError(
                f"the run {settings.init} holds another network than {loaded.name}; give the same --network"
            )
        loaded.model.load_state_dict(start)
    return loaded


def _new_head(loaded: LoadedModel, classes: int) -> LoadedModel:
    """A pretrained network of the library or of timm with another number of outputs, which start at random."""
    key = {"builtin": "args", "timm": "kwargs"}.get(loaded.source["kind"])
    if key is None:
        raise FewerError(
            f"{loaded.name} has {output_count(loaded)} outputs and there are {classes} classes; return a network with "
            f"{classes} outputs"
        )
    from fewer.models.build import build_architecture

    source = {**loaded.source, key: {**loaded.source.get(key, {}), "num_classes": classes}}
    model, given = build_architecture(source), loaded.model.state_dict()
    own = model.state_dict()
    kept = {name: given[name] for name in own if name in given and given[name].shape == own[name].shape}
    model.load_state_dict(own | kept)
    return LoadedModel(model, loaded.name, source, loaded.preprocess, "classify")


def train(
    data: ClassifyData | str | Path,
    *,
    out: str | Path | None = None,
    settings: TrainSettings | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] | None = None,
    command: str = "",
) -> TrainedRun:
    """Train a classifier.

    Parameters
    ----------
    data
        See :func:`~fewer.tasks.classify.readers.open_data`.
    out
        Run folder; everything stays in memory when None.
    settings
        See :class:`~fewer.tasks.classify.settings.TrainSettings`.
    overwrite, resume
        What to do with an existing run folder.
    tell
        Is given the plan in words before the work begins.

    Raises
    ------
    FewerError
        When data and settings do not fit each other.

    Examples
    --------
    >>> run = train("photos-by-class/", out="run/", settings=TrainSettings(steps=200))  # doctest: +SKIP
    >>> run.evaluation.top1  # doctest: +SKIP
    0.87
    """
    settings, progress = settings or TrainSettings(), progress or Silent()
    check_device(settings)
    training = Training(
        "classify",
        lambda: prepare(data, settings),
        lambda prepared: {"data": str(prepared.data.root)},
        lambda prepared, scratch: _train(prepared, settings, scratch, progress),
        lambda run, prepared, result: _save(run, prepared, result, command),
    )
    return carry_out(training, settings, Order(out, overwrite, resume, tell, command))


def _train(prepared: Prepared, settings: TrainSettings, scratch: Path | None, progress: Progress) -> TrainedRun:
    data, loaded = prepared.data, prepared.loaded
    accelerator = make_accelerator(settings)
    model = loaded.model.to(accelerator.device)
    began = perf_counter()
    batches = Augmented(data, prepared.rows, loaded.preprocess, settings, progress)
    held = held_by(settings.init)
    bits: LowBit | None = None
    net, lesson = model, None
    if settings.bits is not None or settings.teacher is not None or settings.distill is not None:
        example = batches.batch(0)[0].to(accelerator.device)
        if settings.bits is not None:
            bits = lower(model, settings, example, held)
        if settings.teacher is not None or settings.distill is not None:
            net, lesson = taught(loaded, model, settings, example, len(data.classes))

    def objective(net: nn.Module, step: int) -> Tensor | dict[str, Tensor]:
        images, labels = (part.to(accelerator.device) for part in batches.batch(step))
        if lesson is not None:
            return lesson(images, labels, settings.label_smoothing)
        return F.cross_entropy(net(images).float(), labels, label_smoothing=settings.label_smoothing)

    players = [Player("", objective)]
    if bits is not None and hypernetwork_of(settings.gradients) is not None:
        players = [Player("", objective, make=lambda parameters: meta_optimiser(model, settings, parameters))]
    own = held if net is model else {f"student.{name}": what for name, what in held.items()}
    names = [data.names[row] for row in prepared.rows]
    found = fit(
        net,
        players,
        settings,
        accelerator,
        steps=settings.steps,
        name="train",
        progress=progress,
        checkpoint=Checkpoint.within(
            scratch, work_key(settings.model_dump(exclude={"device"}), names, str(loaded.source))
        ),
        validate=_accuracy(prepared, settings, progress),
        constraints=Constrained(net, own, only_trainable=True) if held else None,
        callbacks=[bits] if bits is not None else [],
    )
    found.load_best(net)
    model.eval()
    timings, began = {"train": perf_counter() - began}, perf_counter()
    evaluation = None
    if len(prepared.held):
        evaluation = _judge(model, prepared, progress)
        timings["evaluate"] = perf_counter() - began
    result = TrainedRun(model, loaded.name, data.classes, evaluation, found.history, found.best_step, settings, timings)
    if held or bits is not None:
        _store(result, prepared, held, bits, progress)
    return result


def _accuracy(prepared: Prepared, settings: TrainSettings, progress: Progress) -> Callable[[nn.Module], float] | None:
    """The score of a validation; None where no image judges."""
    some = prepared.held[:: max(1, -(-len(prepared.held) // JUDGES))]
    if not len(some):
        return None
    judges = Augmented(prepared.data, some, prepared.loaded.preprocess, settings, progress)

    def accuracy(net: nn.Module) -> float:
        net.eval()
        right = [(scores_of(net, images).argmax(1) == labels).float() for images, labels in judges.plain()]
        return float(torch.cat(right).mean())

    return accuracy


def _judge(model: nn.Module, prepared: Prepared, progress: Progress) -> Evaluation:
    """The scores of a model on all images that judge."""
    classes = prepared.data.classes
    classifier = Classifier(prepared.loaded, len(classes), classes)
    mapped = ClassMap(np.arange(len(classes)), "by name")
    return evaluate_rows(model, classifier, prepared.data, prepared.held, mapped, progress=progress)


def _store(
    result: TrainedRun, prepared: Prepared, held: Mapping[str, Held], bits: LowBit | None, progress: Progress
) -> None:
    """Give plain layers back with the weights as they are stored, and judge what that makes of the accuracy."""
    ranges = trained_ranges(result.model)
    plain(result.model)
    result.units = stored_units(result.model, held)
    if bits is None:
        return
    result.few_bits = bits.to_dict() | {"inputs": {name: [one.scale, one.zero] for name, one in ranges.items()}}
    if result.evaluation is not None:
        stored = _judge(result.model, prepared, progress)
        result.few_bits["accuracy"] = {
            "as trained": result.evaluation.top1,
            "as stored: weights rounded, inputs in fp32": stored.top1,
        }


def _save(run: RunFolder, prepared: Prepared, result: TrainedRun, command: str) -> None:
    from fewer.tasks.classify.pages import training_page

    data, loaded = prepared.data, prepared.loaded
    held = {"data": str(real_path(data.root)), "names": [data.names[row] for row in prepared.held]}
    facts = {"classes": list(data.classes), "held": held}
    meta = {"task": "classify", "classify": facts, "model": loaded.name}
    if result.few_bits:
        meta["few_bits"] = {"layers": result.few_bits["layers"], "inputs": result.few_bits["inputs"]}
    save_artefact(run.path, result.model.cpu(), result.units, loaded.source, meta, preprocess=loaded.preprocess)
    page = training_page(result, data, command)
    write_report(run, page)
    run.log("finished", best_step=result.best_step)
