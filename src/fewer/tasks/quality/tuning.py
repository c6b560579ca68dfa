"""Tune a vision-language model on conversations about how images look (Q-Instruct, part d)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.display import Told
from fewer.core.errors import FewerError
from fewer.core.folder import finish_exchange
from fewer.core.progress import SILENT, Progress
from fewer.core.reading import read_json
from fewer.core.run import RunFolder
from fewer.core.version import __version__
from fewer.data.images import list_images
from fewer.tasks.folders import device_of
from fewer.tasks.quality.building import build, memory_estimate
from fewer.tasks.quality.encoders import StatisticsEncoder
from fewer.tasks.quality.levels import LevelForm, form_of
from fewer.tasks.quality.model import IGNORED, QualityModel
from fewer.tasks.quality.pretraining import pretrain
from fewer.tasks.quality.records import Record, UnusableRecord, read_records
from fewer.tasks.quality.seeing import SeeingModel, is_seeing
from fewer.tasks.quality.settings import TuneSettings
from fewer.tasks.quality.talks import Pictures, Talks, plain_turns
from fewer.tasks.quality.told import learn_told, what_is_told
from fewer.tasks.quality.words import PlainWords, Words
from fewer.tasks.runs import Order, Training, carry_out
from fewer.timing.sample import peak_memory
from fewer.training.checkpoint import Checkpoint, work_key
from fewer.training.history import Fit
from fewer.training.loop import fit, make_accelerator
from fewer.training.optimise import Group, Optimiser

__all__ = ["Tuned", "load_tuned", "plan_tuning", "tune"]

_LEFT_OUT = "an image is missing or cannot be read, or it is about a video or no question about its images"
_CROPS = 2
"""At native resolution, where images are larger than a view."""
_SETTLES = 64
"""Images whose statistics give the units of an encoder that was not taught."""


@dataclass(eq=False, repr=False)
class Tuned(Told):
    """A tuned model, and how it came about.

    Attributes
    ----------
    model, words
        Ready to be asked.
    settings
        Of the tuning.
    folder
        Where it is kept; None in memory alone.
    fit
        History; None for a model that was loaded.
    facts
        Tokens and images per second, seconds, and the memory at most, measured and modelled.
    levels
        How it is asked for one of the five rating words, as it learnt them.
    """

    model: QualityModel | SeeingModel
    words: Words
    settings: TuneSettings
    folder: Path | None = None
    fit: Fit | None = None
    facts: dict[str, Any] | None = None
    levels: LevelForm = field(default_factory=LevelForm)

    def pictures(self, folder: str | Path) -> Pictures:
        """Views of images as this model takes them."""
        return Pictures(folder, self.settings.input_size, self.settings.crops)

    def lines(self) -> list[str]:
        """What was done."""
        facts = self.facts or {}
        last = self.fit.history[-1]["loss"] if self.fit is not None and self.fit.history else float("nan")
        told = [f"tuned {facts.get('trained', 0):,} of {facts.get('parameters', 0):,} weights; last loss {last:.3f}"]
        told.append(
            f"{facts.get('images_per_second', 0):.1f} images/s, {facts.get('tokens_per_second', 0):.0f} tokens/s"
        )
        peak, modelled = facts.get("memory_peak"), facts.get("memory_modelled", {}).get("total", 0)
        if peak:
            told[-1] += f"; {peak / 1e9:.2f} GB of memory at most ({modelled / 1e9:.2f} modelled for the tuning alone)"
        if facts.get("conversations_cut"):
            told.append(
                f"{facts['conversations_cut']} conversations that were drawn have no answer within --longest "
                f"{self.settings.longest} words and taught nothing"
            )
        if facts.get("conversations_left_out"):
            told.append(f"{facts['conversations_left_out']} conversations were left out: {_LEFT_OUT}")
        return told + ([f"run     {self.folder}"] if self.folder else [])

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"folder": str(self.folder) if self.folder else None, **(self.facts or {})}


def _records(data: str | Path | Sequence[Record], unusable: list[str] | None) -> list[Record]:
    if not isinstance(data, (str, Path)):
        return list(data)
    try:
        return read_records(data, unusable)
    except UnusableRecord as error:
        raise FewerError(f"{error}; --leave-out tunes on the conversations that can be used") from None


def _folder(data: Any, settings: TuneSettings) -> Path:
    if settings.images:
        return Path(settings.images)
    if isinstance(data, (str, Path)):
        return Path(data).parent
    raise FewerError("which folder holds the images? give images=")


def plan_tuning(data: str | Path, settings: TuneSettings) -> list[str]:
    """Conversations, images, weights and modelled memory of a tuning."""
    material = _Material.of(data, settings)
    settings, records = _with_crops(settings, data, material), material.records
    model, _ = build(settings, material.all())
    needed = memory_estimate(model, settings)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    total = sum(p.numel() for p in model.parameters())
    parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in needed.items() if name != "total")
    images = len({name for record in records for name in record.images})
    other = [f"{len(material.other)} conversations of other tasks, {settings.strategy}"] if material.other else []
    return [
        f"{len(records)} conversations about {images} images in {_folder(data, settings)}",
        *material.lines()[1:],
        *other,
        f"{model.image_tokens} tokens per image; {trained:,} of {total:,} weights train",
        f"about {needed['total'] / 1e9:.2f} GB of memory (modelled: {parts})",
    ]


def tune(
    data: str | Path | Sequence[Record],
    *,
    out: str | Path | None = None,
    settings: TuneSettings | None = None,
    start: Tuned | None = None,
    encoder: StatisticsEncoder | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
    command: str = "",
) -> Tuned:
    """Tune on conversations; the loss is taken at the answers alone.

    Parameters
    ----------
    data
        Records, or a file of them in the form of LLaVA-v1.5.
    out
        Folder for the run; nothing is written when None.
    settings
        See :class:`~fewer.tasks.quality.settings.TuneSettings`.
    start
        A tuned model that goes on; it is changed in place.
    encoder
        A quality encoder that has learnt before (:func:`~fewer.tasks.quality.pretraining.pretrain`), in place of
        ``settings.clean_photos``. Its weights do not train on conversations, which say less than the truth that it
        learnt.

    Raises
    ------
    FewerError
        When data or packages are missing, or an image cannot be read.
    """
    settings = settings or TuneSettings()

    def plan() -> _Material:
        return _Material.of(data, settings)

    def inputs(material: _Material) -> dict[str, str]:
        return {"data": str(data)} if isinstance(data, (str, Path)) else {}

    def learn(material: _Material, scratch: Path | None) -> Tuned:
        torch.manual_seed(settings.seed)
        chosen = _with_crops(settings, data, material, start)
        built = (start.model, start.words) if start else build(chosen, material.all())
        pictures = Pictures(_folder(data, chosen), chosen.input_size, chosen.crops)
        if start is None:
            _teach(built[0], chosen, encoder, material, pictures, progress or SILENT)
        return _learn(*built, material, chosen, pictures, scratch, progress or SILENT)

    def save(run: RunFolder, material: _Material, tuned: Tuned) -> None:
        _save(run, tuned, command)

    training = Training("quality", plan, inputs, learn, save, what="tuning", ends="recipe")
    return carry_out(training, settings, Order(out, overwrite, resume, command=command))


def _with_crops(settings: TuneSettings, data: Any, material: _Material, start: Tuned | None = None) -> TuneSettings:
    """The settings with a number of crops: that of a model that goes on, else by the size of the images."""
    if settings.crops is not None:
        return settings
    count = (start.settings.crops or 0) if start is not None else 0
    names = list(dict.fromkeys(name for record in material.all() for name in record.images))
    if start is None and names and not is_seeing(settings.language):
        count = _CROPS * Pictures(_folder(data, settings), settings.input_size, 0).larger(names)
    return settings.model_copy(update={"crops": count})


@dataclass(frozen=True)
class _Material:
    """Conversations of the task, and others that go with them."""

    records: list[Record]
    other: list[Record]
    gone: int = 0
    """Conversations that were left out: an image of theirs is missing or cannot be read, or they are of no use."""

    @classmethod
    def of(cls, data: Any, settings: TuneSettings) -> _Material:
        """What is there, before anything is trained.

        Raises
        ------
        FewerError
            When images are missing or cannot be read, or a strategy has nothing to do.
        """
        if settings.strategy == "after" and not settings.high_level:
            raise FewerError("--strategy after trains on other tasks first; give their conversations with --high-level")
        gone: list[str] | None = [] if settings.leave_out else None
        other = _records(settings.high_level, gone) if settings.high_level else []
        made = cls(_records(data, gone), other)
        made = replace(made, gone=len(gone or ()))
        names = dict.fromkeys(name for record in made.all() for name in record.images)
        if names:
            folder = _folder(data, settings)
            pictures = Pictures(folder, settings.input_size, settings.crops)
            missing = pictures.missing(names)
            broken = pictures.broken(set(names) - set(missing))
            if (missing or broken) and settings.leave_out and len(missing) + len(broken) < len(names):
                return made.without({*missing, *broken})
            if missing:
                raise FewerError(
                    f"{len(missing)} of {len(names)} images are not in {folder}, such as {missing[0][:80]!r}; give "
                    "their folder with --images, or leave their conversations out with --leave-out"
                )
            if broken:
                raise FewerError(
                    f"{len(broken)} of {len(names)} images in {folder} cannot be read, such as {min(broken)[:80]!r}; "
                    "leave their conversations out with --leave-out"
                )
        return made

    def without(self, names: set[str]) -> _Material:
        """What is left without the conversations about some images."""
        kept = [[r for r in group if not names.intersection(r.images)] for group in (self.records, self.other)]
        if not kept[0]:
            raise FewerError("no conversation is left whose images are all there")
        return _Material(kept[0], kept[1], self.gone + len(self.all()) - len(kept[0]) - len(kept[1]))

    def all(self) -> list[Record]:
        return [*self.records, *self.other]

    def lines(self) -> list[str]:
        left = [f"{self.gone} more were left out: {_LEFT_OUT}"]
        return [f"{len(self.all())} conversations", *(left if self.gone else [])]


def _learn(
    model: QualityModel | SeeingModel,
    words: Words,
    material: _Material,
    settings: TuneSettings,
    pictures: Pictures,
    scratch: Path | None,
    progress: Progress,
) -> Tuned:
    """Train a model that was built, and measure how fast that went."""
    accelerator = make_accelerator(settings)
    device = accelerator.device
    model.to(device)
    first, second = _stages(material.records, material.other, settings, pictures, words)
    # in batches, of which every process and every part of a step has its own
    batches = settings.steps * settings.accumulate * accelerator.num_processes
    before = int(batches * settings.first_share) if first is not None else 0
    counts = {"tokens": 0, "images": 0, "silent": 0}

    def objective(net: Any, step: int) -> Tensor:
        talks = first if first is not None and step < before else second
        if isinstance(model, SeeingModel):
            return _seen_loss(net, talks.records(step, settings.batch), pictures, settings, counts)
        batch = talks.draw(step, settings.batch)
        counts["tokens"] += int(batch.mask.sum())
        counts["silent"] += int((batch.labels == IGNORED).all(1).sum())
        if batch.views is not None:
            counts["images"] += len(batch.mask) * batch.views.shape[1] // len(model.place)
        parts = [part.to(device) if part is not None else None for part in batch]
        return net.loss(*parts, settings.answer_power)

    key = work_key(settings.model_dump_json(), len(material.records), [r.id for r in material.records[:50]])
    began, point = perf_counter(), Checkpoint.within(scratch, key)
    how = _optimiser(settings)
    done = fit(model, objective, settings, optimiser=how, name="tune", progress=progress, checkpoint=point)
    seconds = perf_counter() - began
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "seconds": seconds,
        "tokens_per_second": counts["tokens"] / max(seconds, 1e-9),
        "images_per_second": counts["images"] / max(seconds, 1e-9),
        "conversations_cut": counts["silent"],
        "conversations_left_out": material.gone,
        "memory_peak": _peak(device),
        "memory_modelled": memory_estimate(model, settings),
    }
    return Tuned(model.eval(), words, settings, None, done, facts, form_of(material.records))


def _peak(device: torch.device) -> int | None:
    """Bytes that this process has taken at most, with all that it did before; on a GPU, those of tensors there."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_memory()


def _seen_loss(
    net: Any, records: Sequence[Record], pictures: Pictures, settings: TuneSettings, counts: dict[str, int]
) -> Tensor:
    """The loss of a model that takes images by its own processor."""
    talks = []
    for record in records:
        turns = [(question.strip(), answer) for question, answer in plain_turns(record)]  # as they are asked
        talks.append(([pictures.pixels(name) for name in record.images], turns))
    loss, tokens, silent = net.loss(talks, settings.longest, settings.answer_power)
    counts["tokens"] += tokens
    counts["silent"] += silent
    counts["images"] += sum(len(images) for images, _ in talks)
    return loss


def _teach(
    model: QualityModel | SeeingModel,
    settings: TuneSettings,
    taught: StatisticsEncoder | None,
    material: _Material,
    pictures: Pictures,
    progress: Progress,
) -> None:
    """Give the model an encoder that sees distortions already, and keep it so; or one that learns from the texts.

    Without clean photos, what the conversations say of an image's aspects and of its quality is all that is known; the
    encoder learns to read that first, and goes on learning with the language model.
    """
    encoder = None if isinstance(model, SeeingModel) else model.encoders[0]
    if not isinstance(encoder, StatisticsEncoder):
        if taught is not None or settings.clean_photos:
            raise FewerError("only the encoder of statistics learns from photos; give --quality-encoder statistics")
        return
    if taught is not None:
        own = encoder.state_dict()
        encoder.load_state_dict({name: value for name, value in taught.state_dict().items() if name in own})
    elif settings.clean_photos:
        more: Any = {"side": settings.input_size, "seed": settings.seed, "progress": progress}
        pretrain(encoder, list_images(Path(settings.clean_photos)), settings.distorted, **more)
    else:
        names = list(dict.fromkeys(name for record in material.all() for name in record.images))
        told = what_is_told(material.records)
        learn_told(encoder, told, pictures, names[:_SETTLES], seed=settings.seed, progress=progress)
    encoder.requires_grad_(taught is None and not settings.clean_photos)


def _optimiser(settings: TuneSettings) -> Optimiser:
    """A pretrained language model learns at a rate of its own; one from nothing learns like the rest."""
    rate = 1.0 if settings.language == "tiny" else settings.language_rate
    return Optimiser(
        settings.optimiser,
        settings.learning_rate,
        settings.weight_decay,
        clip=settings.clip,
        groups=(Group("language.*", rate=rate),),
    )


def _stages(
    records: list[Record], other: list[Record], settings: TuneSettings, pictures: Pictures, words: Words
) -> tuple[Talks | None, Talks]:
    """Talks of the first and of the second stage; one stage alone for mix."""
    more = (pictures, words, settings.longest, settings.seed)
    if other and settings.strategy == "after":
        return Talks(other, *more), Talks(records, *more)
    return None, Talks([*records, *other], *more)


def _kept(model: nn.Module, whole: bool) -> dict[str, Tensor]:
    """What a run keeps: everything of a model from nothing; without the frozen weights of a pretrained one.

    The quality encoder is ours and always kept, frozen or not.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    trained |= {name for name in model.state_dict() if name.startswith("encoders.0.")}
    return {
        name: value.detach().cpu().contiguous().clone()
        for name, value in model.state_dict().items()
        if whole or name in trained
    }


def _save(run: RunFolder, tuned: Tuned, command: str) -> None:
    from safetensors.torch import save

    plain = tuned.words.words if isinstance(tuned.words, PlainWords) else None
    recipe = {
        "meta": {"task": "quality", "fewer_version": __version__, "command": command},
        "settings": tuned.settings.model_dump(),
        "words": plain,
        "levels": asdict(tuned.levels),
        "facts": tuned.facts,
    }
    run.write_bytes("model", save(_kept(tuned.model, plain is not None)))
    run.write_json("recipe", recipe)


def load_tuned(folder: str | Path, device: str = "cpu") -> Tuned:
    """Open what :func:`tune` left.

    Raises
    ------
    FewerError
        When it is no such run, or does not fit its weights.
    """
    from safetensors.torch import load_file

    from fewer.core.reading import nested, refusing

    folder = Path(folder)
    finish_exchange(folder)
    recipe = read_json(folder / "recipe.json", 2**28)
    if nested(recipe, "meta", "task") != "quality" or "settings" not in recipe:
        raise FewerError(f"{folder} is no run of fewer tune; give the folder of its --out")
    # runs from before there were readings have none
    settings = TuneSettings.of({"readings": False, **recipe["settings"]}, f"{folder}/recipe.json")
    model, words = build(settings, words=recipe.get("words"))
    with refusing(str(folder / "model.safetensors"), "tune again"):
        state = load_file(folder / "model.safetensors")
        missing, unexpected = model.load_state_dict(state, strict=False)
        wanted = {n for n, p in model.named_parameters() if p.requires_grad} - {"later"}  # runs of one image lack it
        if unexpected or wanted & set(missing):
            raise ValueError("it does not fit the model of recipe.json")
    form = LevelForm.read(recipe.get("levels"))
    return Tuned(model.to(device_of(device)).eval(), words, settings, folder, levels=form)
