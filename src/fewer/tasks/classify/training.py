"""Train a classifier: from a labelled set to a run folder with weights, scores on unseen images and a report."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes, real_path
from fewer.core.progress import Progress, Silent
from fewer.core.run import RunFolder
from fewer.core.staging import NEXT
from fewer.distortion.outputs import output_tensors
from fewer.models.artefact import save_artefact
from fewer.models.running import evaluating
from fewer.models.spec import LoadedModel
from fewer.quantize.lowbit import plain
from fewer.quantize.metagrad import MetaGrad, hypernetwork_of
from fewer.quantize.qat import trained_ranges
from fewer.tasks.classify.batches import Augmented
from fewer.tasks.classify.dataset import ClassifyData, holdout
from fewer.tasks.classify.distil import check_distillation, taught
from fewer.tasks.classify.evaluate import evaluate_rows
from fewer.tasks.classify.evaluation import Evaluation
from fewer.tasks.classify.lowbit import (
    ExactGradients,
    LowBit,
    check_bits,
    lower,
    meta_optimiser,
    still_held,
    stored_units,
)
from fewer.tasks.classify.model import Classifier, ClassMap, output_count, scores_of
from fewer.tasks.classify.networks import NETWORKS
from fewer.tasks.classify.readers import open_data
from fewer.tasks.classify.settings import TrainSettings
from fewer.tasks.classify.starting import Start, start_of
from fewer.tasks.classify.trained import TrainedRun
from fewer.tasks.runs import Order, Training, carry_out, write_report
from fewer.training.callbacks import Callback
from fewer.training.checkpoint import Checkpoint, work_key
from fewer.training.constrained import Constrained
from fewer.training.history import Fit
from fewer.training.loop import NotFinite, check_device, fit, make_accelerator
from fewer.training.optimise import Player

__all__ = ["Prepared", "prepare", "train"]

JUDGES = 1000
"""Images that are looked at during training; the end is judged on all."""
LAST_GOOD = "last_good.safetensors"
"""What is left in the run folder of a training whose loss became NaN."""
_PHOTO, _LOOKED_AT = 96, 9
"""From this side on images are photos, which a network for small images sees as a blur; images that are looked at."""
_BESIDE = 0.3
"""Weight of scores that a network gives beside its own, in training alone."""
_EXAMPLES = 16
"""Images that ranges start from, at least: a single bright one would have the first layer clip all that is dark."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A training before it begins: the set, its rows, and the network with the weights that it starts from."""

    data: ClassifyData
    rows: np.ndarray
    held: np.ndarray
    start: Start
    subjects: str = ""

    @property
    def loaded(self) -> LoadedModel:
        """The network."""
        return self.start.loaded

    def lines(self) -> list[str]:
        """In words."""
        count = self.data.count(self.rows)
        least = min(count, key=lambda name: count[name])
        parameters = sum(p.numel() for p in self.loaded.model.parameters())
        return [
            f"{len(self.rows)} images train, {len(self.held)} judge; {len(count)} classes, {self.data.kind}",
            *filter(None, [self.subjects]),
            f"the smallest class is {least} with {count[least]} images",
            f"network {self.loaded.name}, {parameters / 1e6:.3g} M parameters, "
            f"input {' x '.join(map(str, self.loaded.input_size))}",
            *self.start.notes,
            *self._left_out(),
            *self._hints(),
        ]

    def _left_out(self) -> list[str]:
        """What of the set does not train, and why, with one example."""
        if not self.data.skipped:
            return []
        name, why = self.data.skipped[0]
        return [f"{len(self.data.skipped)} of {self.data.root} left out, such as {name}: {why}"]

    def _hints(self) -> list[str]:
        """Whether the network sees much less of the images than there is."""
        side = min(self.loaded.input_size[1:])
        if self.loaded.name not in NETWORKS or 2 * side >= _PHOTO:
            return []
        sides = []
        for row in self.rows[:: max(1, len(self.rows) // _LOOKED_AT)][:_LOOKED_AT]:
            try:
                sides.append(min(self.data.pictures[int(row)].size))
            except Exception:  # a broken file can make a decoder raise anything; the training leaves it out
                continue
        usual = int(np.median(sides)) if sides else 0
        if usual < _PHOTO:
            return []
        return [
            f"hint: images are about {usual} pixels wide and {self.loaded.name} sees {side}; for photos give "
            "--network fewer/mobilenet-v2, which starts from ImageNet, or --input-size"
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
    check_bits(settings)
    check_distillation(settings)
    rows, held = holdout(data, settings.validate_share, settings.seed, settings.subject)
    start = start_of(settings, data.classes)
    loaded, outputs = start.loaded, output_count(start.loaded)
    if not outputs and settings.input_size:
        side = " x ".join(map(str, loaded.input_size[1:]))
        raise FewerError(f"{loaded.name} gives no scores for images of {side} pixels; leave --input-size out")
    if outputs != len(data.classes):
        told = f"gives {outputs} scores" if outputs else "is no classifier of images"
        raise FewerError(f"{loaded.name} {told}; {data.root} has {len(data.classes)} classes")
    told = "" if data.has_parts or not len(held) else data.subjects(settings.subject).sentence()
    return Prepared(data, rows, held, start, told)


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
    batches = Augmented(data, prepared.rows, loaded.preprocess, settings, progress)
    held, stored_names = prepared.start.held, set(model.state_dict())
    bits: LowBit | None = None
    net: nn.Module = model
    if settings.bits is not None or settings.teacher is not None or settings.distill is not None:
        example = _example(batches).to(accelerator.device)
        if settings.bits is not None:
            bits = lower(model, settings, example, held)
            held = still_held(model, held)
        if settings.teacher is not None or settings.distill is not None:
            net = taught(loaded, model, settings, example, data)

    def objective(net: nn.Module, step: int) -> Tensor | dict[str, Tensor]:
        images, labels = (part.to(accelerator.device) for part in batches.batch(step))
        if settings.teacher is not None or settings.distill is not None:
            return net(images, labels, settings.label_smoothing)
        return label_losses(net(images), labels, settings.label_smoothing)

    players, watching = _learning(net, model, objective, settings, bits)
    own = held if net is model else {f"student.{name}": what for name, what in held.items()}
    names = [data.names[row] for row in prepared.rows]
    began = perf_counter()
    with keeping_last_good(net, stored_names, scratch, watching):
        found = fit(
            net,
            players,
            settings,
            accelerator,
            name="train",
            progress=progress,
            checkpoint=Checkpoint.within(
                scratch, work_key(settings.model_dump(exclude={"device", "subject"}), names, str(loaded.source))
            ),
            validate=_accuracy(prepared, settings, progress),
            constraints=Constrained(net, own, only_trainable=True) if held else None,
            callbacks=watching,
        )
    found.load_best(net)
    model.eval()
    timings, began = {"train": perf_counter() - began}, perf_counter()
    evaluation = None
    if len(prepared.held):
        evaluation = _judge(model, prepared, progress)
        timings["evaluate"] = perf_counter() - began
    result = TrainedRun(model, loaded.name, data.classes, evaluation, found.history, found.best_step, settings, timings)
    result.step_seconds, result.skipped = found.seconds / max(1, found.step), {**dict(data.skipped), **batches.skipped}
    if held or bits is not None:
        _store(result, prepared, bits, progress)
    return result


def label_losses(output: Any, labels: Tensor, smoothing: float = 0.0) -> Tensor | dict[str, Tensor]:
    """Cross-entropy of what a network gives in training.

    A network that gives other scores beside its own then, as GoogLeNet's heads halfway do, has these learn too, with
    the weight that its paper gives them (arXiv 1409.4842, section 5).

    Parameters
    ----------
    output
        Scores [N, classes], or a tuple, mapping or object with them first.
    labels
        [N].
    smoothing
        Share of a label that is spread over all classes.

    Returns
    -------
    Tensor or dict of str to Tensor
        The loss; losses by name where there are other scores.

    Examples
    --------
    >>> scores, labels = torch.zeros(2, 3), torch.tensor([0, 2])
    >>> [round(float(loss), 2) for loss in label_losses((scores, scores), labels).values()]
    [1.1, 0.33]
    """
    scores, *others = (t.float() for t in output_tensors(output))
    loss = F.cross_entropy(scores, labels, label_smoothing=smoothing)
    beside = [F.cross_entropy(t, labels, label_smoothing=smoothing) for t in others if t.shape == scores.shape]
    return {"labels": loss, "beside": _BESIDE * torch.stack(beside).sum()} if beside else loss


def _example(batches: Augmented) -> Tensor:
    """The first batch, or the first few where they are small."""
    size = min(batches.settings.batch, len(batches))
    count = max(1, min(-(-_EXAMPLES // size), len(batches) // size))
    return torch.cat([batches.batch(step)[0] for step in range(count)])


def _learning(
    net: nn.Module, model: nn.Module, objective: Any, settings: TrainSettings, bits: LowBit | None
) -> tuple[list[Player], list[Callback]]:
    """Who learns, with the hypernetwork of gradients where there is one, and what looks on."""
    watching: list[Callback] = [bits] if bits is not None else []
    if bits is None or hypernetwork_of(settings.gradients) is None:
        return [Player("", objective)], watching
    lessons = ExactGradients(net, objective, settings.exact_every, settings.accumulate)

    def optimiser(parameters: list[nn.Parameter]) -> MetaGrad:
        lessons.meta = meta_optimiser(model, settings, parameters)
        return lessons.meta

    watching += [lessons] if settings.meta_loss != "next" else []
    return [Player("", objective, make=optimiser)], watching


@contextmanager
def keeping_last_good(
    net: nn.Module, names: Collection[str], scratch: Path | None, callbacks: list[Callback]
) -> Iterator[None]:
    """Leave the weights of the best validation, or of the last good step, where a loss or gradient is not finite.

    Parameters
    ----------
    net
        That is trained.
    names
        Of the tensors of the plain network.
    scratch
        Within the run folder; None keeps nothing.
    callbacks
        Of the training; one that looks on is added.
    """
    seen = _Seen()
    callbacks.append(seen)
    try:
        yield
    except NotFinite as error:
        if scratch is None:
            raise
        best = seen.fit.best if seen.fit is not None else None
        state = {name.removeprefix("student."): value for name, value in (best or net.state_dict()).items()}
        place = (scratch.parent.parent if scratch.parent.name == NEXT else scratch.parent) / LAST_GOOD
        atomic_write_bytes(place, save({n: v.cpu().contiguous().clone() for n, v in state.items() if n in names}))
        which = (
            f"step {seen.fit.best_step}, the best so far," if best and seen.fit is not None else "the last good step"
        )
        raise NotFinite(
            f"{error}; the weights of {which} are in {place}: go on from them with --init (--resume would end here "
            "again)"
        ) from None


class _Seen(Callback):
    """Remembers how far a training is."""

    fit: Fit | None = None

    def start(self, fit: Fit) -> None:
        self.fit = fit


def _accuracy(prepared: Prepared, settings: TrainSettings, progress: Progress) -> Callable[[nn.Module], float] | None:
    """The score of a validation; None where no image judges."""
    some = prepared.held[:: max(1, -(-len(prepared.held) // JUDGES))]
    if not len(some):
        return None
    judges = Augmented(prepared.data, some, prepared.loaded.preprocess, settings, progress)

    def accuracy(net: nn.Module) -> float:
        with evaluating(net):  # torch's fused transformer layers would read weights that are not rounded
            right = [(scores_of(net, images).argmax(1) == labels).float() for images, labels in judges.plain()]
        return float(torch.cat(right).mean())

    return accuracy


def _judge(model: nn.Module, prepared: Prepared, progress: Progress) -> Evaluation:
    """The scores of a model on all images that judge."""
    classes = prepared.data.classes
    classifier = Classifier(prepared.loaded, len(classes), classes)
    mapped = ClassMap(np.arange(len(classes)), "by name")
    return evaluate_rows(model, classifier, prepared.data, prepared.held, mapped, progress=progress)


def _store(result: TrainedRun, prepared: Prepared, bits: LowBit | None, progress: Progress) -> None:
    """Give plain layers back with the weights as they are stored, and judge what that makes of the accuracy."""
    ranges, held = trained_ranges(result.model), still_held(result.model, prepared.start.held)
    plain(result.model)
    result.units = stored_units(result.model, held, prepared.start.patterns)
    if bits is None:
        return
    result.few_bits = bits.to_dict() | {"inputs": {name: one.to_list() for name, one in ranges.items()}}
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
    (run.home / LAST_GOOD).unlink(missing_ok=True)  # of an attempt before
    page = training_page(result, data, command)
    write_report(run, page)
    run.log("finished", best_step=result.best_step)
