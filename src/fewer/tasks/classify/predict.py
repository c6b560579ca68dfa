"""Write the most probable classes of every image of a folder."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.display import Told, skipped_lines
from fewer.core.errors import FewerError
from fewer.core.folder import finish_exchange
from fewer.core.progress import Progress, Silent
from fewer.core.reading import read_json, refusing
from fewer.core.staging import Staging, write_together
from fewer.data.images import left_out, list_images
from fewer.models.running import evaluating
from fewer.tasks.classify.dataset import ClassifyData
from fewer.tasks.classify.evaluate import batches_of
from fewer.tasks.classify.model import open_classifier, scores_of
from fewer.tasks.classify.pictures import FilePictures
from fewer.tasks.classify.readers import format_of, open_data
from fewer.tasks.classify.settings import PredictSettings
from fewer.tasks.folders import check_out, device_of, make_folder, results_aside

__all__ = ["Predicted", "predict"]

FILES = ("predictions.json", "predictions.csv")


@dataclass(frozen=True, repr=False)
class Predicted(Told):
    """What :func:`predict` wrote.

    Attributes
    ----------
    folder
        Where ``predictions.json`` and ``predictions.csv`` are.
    guesses
        By image: classes and probabilities, the most probable first.
    skipped
        Images that could not be read, and why.
    """

    folder: Path
    guesses: dict[str, list[tuple[str, float]]]
    skipped: tuple[tuple[str, str], ...] = ()

    def lines(self) -> list[str]:
        """How many images, and what was skipped."""
        told = [f"{len(self.guesses)} images in {self.folder / FILES[1]}"]
        return told + skipped_lines(self.skipped)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        rows = [
            {"file": name, "guesses": [{"class": c, "probability": round(p, 6)} for c, p in found]}
            for name, found in self.guesses.items()
        ]
        skipped = [{"file": name, "reason": reason} for name, reason in self.skipped]
        return {"folder": str(self.folder), "predictions": rows, "skipped": skipped}

    def to_csv(self) -> str:
        """One line per image: its first class, its probability, and the other classes."""
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["file", "class", "probability", "others"])
        for name, found in self.guesses.items():
            others = " ".join(f"{c}:{p:.4f}" for c, p in found[1:])
            table.writerow([name, found[0][0], f"{found[0][1]:.4f}", others])
        return text.getvalue()


def predict(
    run: str | Path,
    inputs: str | Path,
    *,
    out: str | Path,
    settings: PredictSettings | None = None,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Predicted:
    """Write the most probable classes of every image.

    Parameters
    ----------
    run
        Any classifier; see :func:`~fewer.tasks.classify.evaluate.evaluate`.
    inputs
        A folder of images (folders in it are searched too), one image, or a labelled set, whose labels are not read.
    out
        Folder for ``predictions.json`` and ``predictions.csv``.
    settings
        See :class:`~fewer.tasks.classify.settings.PredictSettings`.
    resume
        Keep predictions that are there: the work is done.

    Raises
    ------
    FewerError
        When model or images cannot be used, or predictions are there already.
    """
    settings = settings or PredictSettings()
    folder = Path(out)
    there = [name for name in FILES if (folder / name).is_file()]
    if resume and not overwrite and len(there) == len(FILES) and not Staging(folder).exists():
        finish_exchange(folder)
        return _read(folder)
    check_out(out, FILES, overwrite or resume)
    classifier = open_classifier(str(run), settings.class_names)
    data = _images(Path(inputs), folder)
    model = classifier.loaded.model.to(device_of(device))
    guesses: dict[str, list[tuple[str, float]]] = {}
    skipped: list[tuple[str, str]] = []
    top = min(settings.top, classifier.outputs)
    aside = results_aside(make_folder(folder), [], overwrite and bool(there), resume)
    with (progress or Silent()).stage("predict", len(data)) as stage, evaluating(model):
        for images, kept in batches_of(data, range(len(data)), classifier.loaded.preprocess, settings.batch, skipped):
            sure, which = scores_of(model, images).softmax(1).topk(top, 1)
            for row, values, outputs in zip(kept, sure.tolist(), which.tolist(), strict=True):
                found = zip(outputs, values, strict=True)
                guesses[data.names[row]] = [(classifier.name(output), value) for output, value in found]
            stage.advance(len(kept))
    if not guesses:
        if aside is not None:
            aside.discard()
        raise FewerError(f"none of the {len(data)} images of {inputs} can be read; the first: {skipped[0][1]}")
    result = Predicted(folder, guesses, (*skipped, *data.skipped))
    text = json.dumps(result.to_dict(), indent=1, ensure_ascii=False) + "\n"
    write_together(folder if aside is None else aside.path, {FILES[1]: result.to_csv(), FILES[0]: text})
    if aside is not None:
        aside.commit([])
    return result


def _images(place: Path, out: Path) -> ClassifyData:
    """Images with a label that means nothing; what lies in ``out`` is ours."""
    kind = format_of(place)
    if kind and not kind.startswith("folders"):
        return open_data(place)
    files = [place] if place.is_file() else list_images(place)
    root = place.parent if place.is_file() else place
    names = tuple(path.relative_to(root).as_posix() for path in files)
    skipped = () if place.is_file() else tuple(left_out(root, out)[0])
    pictures = FilePictures(tuple(files))
    return ClassifyData(root, pictures, names, np.zeros(len(files), np.int64), ("",), skipped=skipped)


def _read(folder: Path) -> Predicted:
    path = folder / FILES[0]
    found = read_json(path, 2**30)
    with refusing(str(path), "predict again with --overwrite"):
        rows = {row["file"]: [(g["class"], g["probability"]) for g in row["guesses"]] for row in found["predictions"]}
        skipped = tuple((row["file"], row["reason"]) for row in found["skipped"])
        return Predicted(folder, rows, skipped)
