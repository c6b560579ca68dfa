"""Score a classifier on labelled images; and the accuracy that a compression shows before and after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.core.progress import Progress, Silent
from fewer.core.staging import write_together
from fewer.data.decode import to_array
from fewer.data.preprocess import Preprocess
from fewer.models.running import evaluating
from fewer.models.spec import LoadedModel
from fewer.tasks.classify.batches import exact_pixels, normalised
from fewer.tasks.classify.dataset import ClassifyData
from fewer.tasks.classify.evaluation import Evaluation
from fewer.tasks.classify.metrics import wilson
from fewer.tasks.classify.model import Classifier, ClassMap, map_classes, open_classifier, scores_of
from fewer.tasks.classify.places import placed_model
from fewer.tasks.classify.readers import open_data
from fewer.tasks.classify.settings import EvaluateSettings
from fewer.tasks.facts import facts_of
from fewer.tasks.folders import check_out, device_of, make_folder

__all__ = ["Accuracy", "batches_of", "evaluate", "evaluate_rows", "quality", "rows_to_judge"]

_MOST = 2000
"""Images that judge a compression: their interval of accuracy is about 2 % wide, and every baseline costs a pass."""


def batches_of(
    data: ClassifyData, rows: Iterable[int], preprocess: Preprocess, batch: int, skipped: list[tuple[str, str]]
) -> Iterator[tuple[Tensor, list[int]]]:
    """Normalised images [n, C, H, W] with their rows; unreadable ones go to ``skipped`` with a reason."""
    rows = np.asarray(list(rows))
    if len(rows) and exact_pixels(data.pictures, rows[:1], preprocess) is not None:  # nothing to decode
        for some in np.split(rows, range(batch, len(rows), batch)):
            pixels = exact_pixels(data.pictures, some, preprocess)
            assert pixels is not None
            yield normalised(pixels, preprocess), [int(row) for row in some]
        return
    arrays: list[np.ndarray] = []
    kept: list[int] = []
    for row in rows:
        try:
            arrays.append(to_array(data.pictures[int(row)], preprocess))
            kept.append(int(row))
        except FewerError:
            raise
        except Exception as error:  # a broken file can make a decoder raise anything
            skipped.append((data.names[row], str(error) or type(error).__name__))
        if len(arrays) == batch:
            yield torch.from_numpy(np.stack(arrays)), kept
            arrays, kept = [], []
    if arrays:
        yield torch.from_numpy(np.stack(arrays)), kept


def rows_to_judge(data: ClassifyData, loaded: LoadedModel, part: str = "auto") -> np.ndarray:
    """Rows that a model has not been trained on: its own held-out images, else the part for testing, else all."""
    if part != "auto":
        return data.rows(part)
    held = facts_of(loaded, "classify").held
    if held is not None and real_path(held.data) == real_path(data.root):
        names = set(held.names)
        rows = [i for i, name in enumerate(data.names) if name in names]
        if rows:
            return np.array(rows)
        raise FewerError(f"every image of {data.root} has trained {loaded.name}; give other data, or --part all")
    return data.rows("test") if "test" in data.parts else data.rows("all")


def evaluate_rows(
    model: nn.Module,
    classifier: Classifier,
    data: ClassifyData,
    rows: np.ndarray,
    mapped: ClassMap,
    *,
    batch: int = 64,
    progress: Progress | None = None,
) -> Evaluation:
    """Scores of some rows of a set.

    Raises
    ------
    FewerError
        When no image can be read, or the model gives NaN.
    """
    skipped: list[tuple[str, str]] = []
    names: list[str] = []
    parts: list[tuple[np.ndarray, ...]] = []
    with (progress or Silent()).stage("evaluate", len(rows)) as stage, evaluating(model):
        for images, kept in batches_of(data, rows, classifier.loaded.preprocess, batch, skipped):
            scores = scores_of(model, images)
            if not bool(torch.isfinite(scores).all()):
                raise FewerError(f"{classifier.loaded.name} gives NaN or infinity for {data.names[kept[0]]}")
            right = torch.from_numpy(mapped.outputs[data.labels[kept]])
            own = scores.gather(1, right[:, None])
            # of equal scores the first output wins, as argmax does
            before = (scores > own) | ((scores == own) & (torch.arange(scores.shape[1]) < right[:, None]))
            sure, guess = scores.softmax(1).max(1)
            parts.append((right.numpy(), guess.numpy(), before.sum(1).numpy(), sure.numpy()))
            names += [data.names[row] for row in kept]
            stage.advance(len(kept))
    if not parts:
        raise FewerError(f"none of the {len(rows)} images of {data.root} can be read; the first: {skipped[0][1]}")
    labels, guesses, rank, sure = (np.concatenate(column) for column in zip(*parts, strict=True))
    titles = _titles(classifier, data, mapped)
    return Evaluation(tuple(names), titles, labels, guesses, rank, sure, mapped.how, (*skipped, *data.skipped))


def _titles(classifier: Classifier, data: ClassifyData, mapped: ClassMap) -> tuple[str, ...]:
    if classifier.classes or data.model_classes:
        return classifier.classes or data.model_classes
    titles = [str(i) for i in range(classifier.outputs)]
    for name, output in zip(data.classes, mapped.outputs, strict=True):
        titles[int(output)] = name
    return tuple(titles)


def evaluate(
    target: str | Path,
    data: str | Path,
    *,
    out: str | Path | None = None,
    settings: EvaluateSettings | None = None,
    overwrite: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
    command: str = "",
) -> Evaluation:
    """Score a classifier on labelled images, in torch or where it will run.

    Parameters
    ----------
    target
        Any classifier: a run folder, ``fewer/NAME``, ``timm/NAME``, ``hf/NAME`` or ``FILE.py:FUNCTION``.
    data
        See :func:`~fewer.tasks.classify.readers.open_data`.
    out
        Folder for ``evaluation.json``, ``evaluation.csv`` (a line per image) and ``evaluation.html``.
    settings
        See :class:`~fewer.tasks.classify.settings.EvaluateSettings`.

    Raises
    ------
    FewerError
        When model and data do not fit each other.

    Examples
    --------
    >>> evaluate("fewer/mobilenet-v2", "photos-by-class/").top1  # doctest: +SKIP
    0.9
    """
    settings = settings or EvaluateSettings()
    check_out(out, ("evaluation.json",), overwrite)
    opened = open_data(data)
    classifier = open_classifier(str(target), settings.class_names)
    mapped = map_classes(opened, classifier)
    rows = rows_to_judge(opened, classifier.loaded, settings.part)
    placed = placed_model(target, classifier.loaded, settings)
    if settings.limit and settings.limit < len(rows):
        rows = np.sort(np.random.default_rng(0).permutation(rows)[: settings.limit])
    model = classifier.loaded.model.to(device_of(device)) if placed is None else placed
    result = evaluate_rows(model, classifier, opened, rows, mapped, batch=settings.batch, progress=progress)
    if out is not None:
        from fewer.tasks.classify.pages import evaluation_page

        where = "" if placed is None else f", run by {settings.where}"
        page = evaluation_page(f"{classifier.loaded.name} on {opened.root.name}{where}", result, opened, command)
        texts = {".csv": result.to_csv(), ".html": page.to_html(), ".json": result.to_json()}
        write_together(make_folder(out), {f"evaluation{suffix}": text for suffix, text in texts.items()})
    return result


@dataclass(frozen=True, eq=False)
class Accuracy:
    """The quality of a classifier; see :class:`fewer.tasks.Quality`. Images are read once."""

    classifier: Classifier
    data: ClassifyData
    rows: np.ndarray
    mapped: ClassMap
    lower_is_better: frozenset[str] = frozenset({"calibration error"})
    _seen: dict[str, Any] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """How many images, and what is odd about the classes."""
        doubt = self._seen.get("doubt", "")
        return f"on {len(self.rows)} labelled images" + (f"; check the classes: {doubt}" if doubt else "")

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        """Accuracy and calibration of a model."""
        found = evaluate_rows(model, self.classifier, self.data, self.rows, self.mapped)
        if model is self.classifier.loaded.model:  # a compressed model may well be near chance
            self._seen["doubt"] = found.doubt
        return found.measures()

    def interval(self, name: str, value: float) -> tuple[float, float] | None:
        """Wilson's 95 % interval of an accuracy."""
        if not name.endswith("accuracy"):
            return None
        return wilson(value * len(self.rows), len(self.rows))


def quality(loaded: LoadedModel, folder: str | Path) -> Accuracy:
    """Accuracy on the labelled images of a folder that a model was not trained on, at most 2,000 of them.

    Raises
    ------
    FewerError
        When the folder is no labelled set, or its classes are not those of the model.
    """
    data, classifier = open_data(folder), open_classifier(loaded)
    mapped = map_classes(data, classifier)
    rows = rows_to_judge(data, loaded)
    if len(rows) > _MOST:
        rows = np.sort(np.random.default_rng(0).permutation(rows)[:_MOST])
    readable = []
    for row in rows:  # what cannot be read is left out here, so that the note tells how many images judge
        try:
            data.pictures[int(row)]
            readable.append(int(row))
        except Exception:
            continue
    if not readable:
        raise FewerError(f"none of the {len(rows)} labelled images of {folder} can be read")
    return Accuracy(classifier, data, np.array(readable), mapped)
