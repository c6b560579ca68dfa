"""A tuned model for the engine, as one network from views to logits of levels; and compressed ones, opened again."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.reading import nested, read_json
from fewer.data.images import left_out, list_images, split_files
from fewer.data.samples import TensorSamples
from fewer.models import builtin
from fewer.models.foreign import check_values
from fewer.models.spec import LoadedModel, load_model
from fewer.study.tables import is_table, read_scores
from fewer.tasks.folders import device_of
from fewer.tasks.quality.asking import choose, level_scores
from fewer.tasks.quality.building import TINY, assemble
from fewer.tasks.quality.correlation import correlations
from fewer.tasks.quality.encoders import Backbone, ImageEncoder
from fewer.tasks.quality.language import need_transformers, open_tokenizer
from fewer.tasks.quality.levels import LevelForm
from fewer.tasks.quality.perception import score_answers
from fewer.tasks.quality.questions import read_questions
from fewer.tasks.quality.scorer import LevelScorer
from fewer.tasks.quality.settings import TuneSettings
from fewer.tasks.quality.talks import Pictures
from fewer.tasks.quality.tuning import Tuned, load_tuned
from fewer.tasks.quality.words import PlainWords, PretrainedWords

__all__ = ["Answers", "build_scorer", "images_for", "judge_answers", "open_run", "open_tuned"]

NETWORK = "scorer"
_SHAPE = ("quality_encoder", "quality_width", "grid", "crops", "input_size", "readings")
"""Settings that the shape of a model follows from, besides its parts of transformers."""


def open_run(folder: str | Path) -> LoadedModel | None:
    """The network of a run of ``fewer tune``; None for a run that is saved as all networks are.

    Adapters are merged into the language model, so that all of its layers can be cut and rounded.

    Raises
    ------
    FewerError
        When it cannot be loaded, or is a vision-language model of transformers, which has a processor before it.
    """
    recipe = read_json(Path(folder) / "recipe.json", 2**28)
    if not isinstance(recipe, dict) or "schema_version" in recipe:
        return None
    tuned = _whole(load_tuned(folder))
    scorer, settings = LevelScorer(tuned), tuned.settings
    plain = isinstance(tuned.words, PlainWords)
    args: dict[str, Any] = {name: getattr(settings, name) for name in _SHAPE}
    args |= {"asked": scorer.ids.shape[1], "words": len(tuned.words) if plain else 0}
    args |= {} if plain else {"language": _described(scorer.model.language)}
    for encoder in scorer.model.encoders:
        if isinstance(encoder, ImageEncoder):
            units: dict[str, Any] = {"mean": encoder.mean, "std": encoder.std}
            colours = {name: values.flatten().tolist() for name, values in units.items()}
            args["encoder"] = {**_described(encoder.model), **colours, "width": encoder.width}
    size = [1 + (settings.crops or 0), 3, settings.input_size, settings.input_size]
    words = tuned.words.words if isinstance(tuned.words, PlainWords) else None
    meta = {"task": "quality", "input_size": size, "settings": settings.model_dump(), "words": words}
    meta |= {"levels": asdict(tuned.levels)}
    source = {"kind": "task", "task": "quality", "name": NETWORK, "args": args}
    return LoadedModel(scorer.eval(), str(folder), source, task="quality", meta=meta)


def _whole(tuned: Tuned) -> Tuned:
    """A copy without adapters, whose encoders look at every image anew: what a frozen one kept would hide a cut."""
    model: Any = copy.deepcopy(tuned.model)
    merge = getattr(getattr(model, "language", None), "merge_and_unload", None)
    if merge is not None:
        model.language = merge()
    for encoder in getattr(model, "encoders", ()):
        if isinstance(encoder, ImageEncoder):
            encoder.frozen = False
    return replace(tuned, model=model)


def _described(model: Any) -> dict[str, Any]:
    """A part as a recipe may hold it: its kind, and of transformers those facts that name no place."""
    if isinstance(model, Backbone):
        return {"kind": "fewer", "config": {"name": model.name}}
    config = {}
    for name, value in json.loads(model.config.to_json_string(use_diff=False)).items():
        try:
            config |= check_values({name: value}, None, "part")
        except FewerError:
            continue
    return {"kind": str(model.config.model_type), "config": config}


def build_scorer(name: str, args: Mapping[str, Any]) -> nn.Module:
    """The network of a compressed run with random weights.

    Raises
    ------
    FewerError
        For another name, and for arguments that no such network has.
    """
    if name != NETWORK:
        raise FewerError(f"the task quality has no network {name!r} that can be built; it has {NETWORK}")
    transformers = need_transformers()
    # networks from before there were readings have none
    settings = TuneSettings.of({"readings": False} | {key: args[key] for key in _SHAPE if key in args}, "recipe.json")
    if args.get("words"):
        language = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=int(args["words"]), **TINY))
    else:
        language = transformers.AutoModelForCausalLM.from_config(_config(transformers, args.get("language")))
    given: Any = args.get("encoder")

    def encoder() -> ImageEncoder:
        if nested(given, "kind") == "fewer":
            name = str(nested(given, "config", "name"))
            found = Backbone(builtin.build(name, {}), name)  # type: ignore[arg-type]
        else:
            found = transformers.AutoModel.from_config(_config(transformers, given))
            found = getattr(found, "vision_model", found)
        return ImageEncoder(found, int(given["width"]), given["mean"], given["std"], settings.grid, frozen=False)

    settings = settings.model_copy(update={"encoder": "none" if given is None else "transformers"})
    return LevelScorer.empty(assemble(settings, language.float(), encoder), int(args["asked"]))


def _config(transformers: Any, described: Any) -> Any:
    kind, config = nested(described, "kind"), nested(described, "config")
    if not isinstance(kind, str) or not isinstance(config, Mapping):
        raise FewerError("the recipe says neither which words the language model knows nor how it is built")
    return transformers.AutoConfig.for_model(kind, **{k: v for k, v in config.items() if k != "model_type"})


def open_tuned(folder: str | Path, device: str = "cpu") -> Tuned:
    """Open a run of ``fewer tune``, or what ``fewer compress`` made of one.

    Raises
    ------
    FewerError
        When it is neither, or what it needs is not there.
    """
    recipe = read_json(Path(folder) / "recipe.json", 2**28)
    if not isinstance(recipe, dict) or "schema_version" not in recipe:
        return load_tuned(folder, device)
    scorer: Any = load_model(str(folder)).model
    if not isinstance(scorer, LevelScorer):
        raise FewerError(f"{folder} is no run of fewer tune, nor one that was compressed")
    settings = TuneSettings.of(nested(recipe, "meta", "settings") or {}, f"{folder}/recipe.json")
    told = nested(recipe, "meta", "words")
    words = PlainWords(told) if isinstance(told, list) else PretrainedWords(open_tokenizer(settings.language))
    form = LevelForm.read(nested(recipe, "meta", "levels"))
    return Tuned(scorer.model.to(device_of(device)).eval(), words, settings, Path(folder), levels=form)


def images_for(loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> TensorSamples:
    """Views of images of a folder, unlabelled; a quarter of the files is held out, by their names alone.

    Raises
    ------
    FewerError
        When no image of this part can be read.
    """
    settings = TuneSettings.of(dict(loaded.meta["settings"]), loaded.name)
    root = Path(folder)
    files = list_images(root)
    keys = [path.relative_to(root).as_posix() for path in files]
    chosen = split_files(files, keys, part) if len(files) > 1 else files
    pictures = Pictures(root, settings.input_size, settings.crops)
    found, read = [], []
    skipped = [(root / name, reason) for name, reason in left_out(root)[0]]
    for index in np.random.default_rng([seed, 29]).permutation(len(chosen)):
        path = chosen[int(index)]
        try:
            found.append(pictures(path.relative_to(root).as_posix()))
            read.append(path)
        except FewerError as error:
            skipped.append((path, str(error)))
        if len(found) == count:
            break
    if not found:
        raise FewerError(f"{folder} holds no readable image for the {part} part")
    return TensorSamples(torch.from_numpy(np.stack(found)).float(), read, skipped)


@dataclass(frozen=True, eq=False)
class Answers:
    """How well a tuned model answers questions, or orders opinions; see :class:`fewer.tasks.task.Quality`.

    Attributes
    ----------
    tuned
        The dense one, whose words are used.
    data
        Questions (LLVisionQA), or a table ``file,score``; the images are beside it.
    note
        What the numbers come from.
    """

    tuned: Tuned
    data: Path
    note: str
    lower_is_better: frozenset[str] = frozenset()

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Accuracy by likelihood of the words, or SRCC and PLCC of the five levels."""
        asked = LevelScorer.put_into(self.tuned, model)
        pictures = self.tuned.pictures(self.data.parent)
        if is_table(self.data):
            opinions = read_scores(self.data)
            scores = level_scores(asked, pictures, list(opinions))
            return correlations(scores, np.array(list(opinions.values())))
        questions = [q for q in read_questions(self.data) if q.answer is not None]
        return {"accuracy": score_answers(questions, choose(asked, pictures, questions)).accuracy}


def judge_answers(loaded: LoadedModel, data: str | Path) -> Answers:
    """What judges a network by questions or opinions.

    Raises
    ------
    FewerError
        When there is no question with a public answer, or there are fewer than two opinions.
    """
    place = Path(data)
    if not isinstance(loaded.model, LevelScorer):
        raise FewerError(f"{loaded.name} is no network of fewer tune")
    settings = TuneSettings.of(dict(loaded.meta["settings"]), loaded.name)
    told: Any = loaded.meta.get("words")
    words = PlainWords(told) if told is not None else PretrainedWords(open_tokenizer(settings.language))
    form = LevelForm.read(loaded.meta.get("levels"))
    tuned = Tuned(loaded.model.model, words, settings, levels=form)  # type: ignore[arg-type]
    if is_table(place):
        names = list(read_scores(place))
        count, what = len(names), "opinions, by five levels"
    else:
        asked = [question for question in read_questions(place) if question.answer is not None]
        names = [name for question in asked for name in question.images]
        count, what = len(asked), "questions, by likelihood of the words"
    tuned.pictures(place.parent).need(names, place, "they must lie beside it")
    if count < 2:
        raise FewerError(f"{data} has {count} entries that can judge; give questions with answers, or opinions")
    return Answers(tuned, place, f"on {count} {what}")
