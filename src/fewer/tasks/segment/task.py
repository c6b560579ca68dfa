"""The task ``segment``: what verbs ask of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_text, explain_os_error
from fewer.core.progress import Progress, Silent
from fewer.data.images import ImageSet, list_images, split_files
from fewer.models.spec import LoadedModel, load_model
from fewer.tasks.segment.dataset import Case, SegmentData, find_pictures, image_pool, open_data
from fewer.tasks.segment.doctor import checkup
from fewer.tasks.segment.evaluation import Evaluation
from fewer.tasks.segment.features import warm_features
from fewer.tasks.segment.files import LOSSLESS, Picture, suffix_of, write_picture
from fewer.tasks.segment.inference import OVERLAP, predict_mask
from fewer.tasks.segment.overlay import overlay as draw
from fewer.tasks.segment.pages import evaluation_page, examples
from fewer.tasks.segment.preparation import Preparation
from fewer.tasks.segment.reading import Sample, read_image
from fewer.tasks.segment.repair import repair
from fewer.tasks.segment.sampling import CaseStore, PatchSampler
from fewer.tasks.segment.scoring import evaluate_cases, evaluate_folder
from fewer.tasks.segment.settings import TrainSettings
from fewer.tasks.segment.training import train

__all__ = [
    "Predicted",
    "checkup",
    "evaluate",
    "images",
    "predict",
    "preparation_of",
    "quality",
    "repair",
    "train",
    "warm_features",
]

STREAM = 3
"""Keeps the draws of calibration patches apart from those of the training."""


def preparation_of(loaded: LoadedModel) -> Preparation:
    """How images become the input of a trained model.

    Raises
    ------
    FewerError
        When the model was not trained by this task.
    """
    try:
        return Preparation.of(dict(loaded.meta["segment"]["preparation"]))
    except (KeyError, TypeError):
        raise FewerError(f"{loaded.name} was not trained for segmentation; train it with: fewer train") from None


def _unseen(loaded: LoadedModel, data: SegmentData) -> tuple[Case, ...]:
    """The annotated cases that judged, if the model was trained on this very folder; else all of them."""
    split = loaded.meta.get("segment", {}).get("split", {})
    if not split or Path(split["data"]).resolve() != data.root.resolve():
        return data.cases
    names = set(split["val"])
    return tuple(case for case in data.cases if case.name in names)


def evaluate(
    target: str | Path,
    data: str | Path,
    *,
    out: str | Path | None = None,
    every: bool = False,
    overwrite: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
    command: str = "",
) -> Evaluation:
    """Score a trained run, or a folder of predicted masks, on annotated cases.

    Parameters
    ----------
    target
        Run folder (of a training, or of a compression of one), or a folder of masks called like their cases.
    data
        Data set. If the run was trained on it, only the cases that did not train are scored.
    out
        Folder for ``evaluation.json``, ``evaluation.csv`` and ``evaluation.html``.
    every
        Score the cases that trained as well.
    overwrite
        Replace these files.
    device
        Where the network runs.

    Raises
    ------
    FewerError
        When target and data do not fit each other.
    """
    found, opened = Path(target), open_data(data)
    _check_out(out, ("evaluation.json",), overwrite)
    if not found.is_dir():
        raise FewerError(f"{target} does not exist; give a run folder, or a folder of predicted masks")
    gallery = None
    if (found / "recipe.json").is_file():
        loaded = load_model(str(target))
        preparation, model = preparation_of(loaded), loaded.model.to(_device(device))
        cases = opened.cases if every else _unseen(loaded, opened)
        if not cases:
            raise FewerError(f"every case of {data} has trained {target}; give other data, or --all-cases")
        result = evaluate_cases(model, opened, cases, preparation, progress=progress)
        if out is not None:
            names = [case.name for case in cases]
            gallery = examples(opened, names, result, lambda sample: predict_mask(model, sample, preparation))
    else:
        result = evaluate_folder(target, opened, progress=progress)
    if out is not None:
        page = evaluation_page(f"{found.name} on {opened.root.name}", result, gallery, command)
        folder = _make(out)
        atomic_write_text(folder / "evaluation.csv", result.to_csv())
        atomic_write_text(folder / "evaluation.html", page.to_html())
        atomic_write_text(folder / "evaluation.json", result.to_json())
    return result


@dataclass(frozen=True)
class Predicted:
    """What :func:`predict` wrote.

    Attributes
    ----------
    masks
        Files, one per case.
    skipped
        Files that could not be read, and why.
    """

    masks: tuple[Path, ...]
    skipped: tuple[tuple[Path, str], ...] = ()


def predict(
    run: str | Path,
    pictures: str | Path,
    *,
    out: str | Path,
    overlap: float = OVERLAP,
    overlay: bool = False,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Predicted:
    """Write a mask for every image.

    A mask lies on the voxels of its image, has its geometry and its kind of file (PNG where that would lose detail),
    and holds the numbers that the classes have in the masks of the training. An image that cannot be read is left
    out and named.

    Parameters
    ----------
    run
        Run folder of a training, or of a compression of one.
    pictures
        A folder of images (of nnU-Net's channel files too), a data set, or one image file.
    out
        Folder for the masks.
    overlap
        Of the windows, 0 to below 1.
    overlay
        Write a picture with outlines for people too, into ``out/overlays``.
    overwrite, resume
        Replace masks that are there; or keep them and do the others.
    device
        Where the network runs.

    Raises
    ------
    FewerError
        When the run or the images cannot be used, or masks are there already.
    """
    if not 0 <= overlap < 1:
        raise FewerError(f"the overlap of windows lies from 0 to below 1; got {overlap}")
    if not (Path(run) / "recipe.json").is_file():
        raise FewerError(f"{run} is no run folder with a model; train one: fewer train DATA --out {run}")
    loaded = load_model(str(run))
    preparation, model = preparation_of(loaded), loaded.model.to(_device(device))
    cases = _cases(Path(pictures), preparation)
    _check_names(cases)
    folder = Path(out)
    files = [folder / f"{case.name}{_kind(case)}" for case in cases]
    there = [path for path in files if path.exists()]
    if there and not (overwrite or resume):
        raise FewerError(f"{there[0]} exists already; give --resume to do the others, or --overwrite")
    fresh = not folder.exists()
    _make(folder)
    values = torch.tensor(preparation.values).numpy()
    skipped, written = [], []
    with (progress or Silent()).stage("predict", len(cases)) as stage:
        for case, path in zip(cases, files, strict=True):
            if not (resume and path.exists()):
                try:
                    image, picture = read_image(case)
                    mask = predict_mask(model, Sample(case.name, image, None, picture), preparation, overlap)
                except FewerError as error:
                    skipped.append((case.images[0], str(error)))
                    stage.advance(1, case.name)
                    continue
                if overlay:
                    pixels = draw(image, mask, side=640)
                    colours = Picture(pixels.transpose(2, 0, 1), (1.0, 1.0))
                    write_picture(_make(folder / "overlays") / f"{case.name}.png", colours.array, colours)
                write_picture(path, values[mask], picture)  # last: where it is, everything is
            written.append(path)
            stage.advance(1, case.name)
    if not written:
        if fresh:
            folder.rmdir()  # nothing is in it
        raise FewerError(f"none of the {len(cases)} images could be read; the first: {skipped[0][1]}")
    return Predicted(tuple(written), tuple(skipped))


def _check_names(cases: Sequence[Case]) -> None:
    """Raise a :class:`FewerError` where two images would have their masks in one file."""
    seen: dict[str, Case] = {}
    for case in cases:
        if case.name in seen:
            raise FewerError(
                f"{case.images[0]} and {seen[case.name].images[0]} have the same name, so that one mask would replace "
                "the other; rename one of them"
            )
        seen[case.name] = case


def _kind(case: Case) -> str:
    suffix = suffix_of(case.images[0])
    return suffix if suffix in LOSSLESS else ".png"


def _cases(place: Path, preparation: Preparation) -> list[Case]:
    if place.is_file():
        return list(image_pool([place]).unlabelled)
    if (place / "dataset.json").is_file() or any((place / name).is_dir() for name in ("images", "imagesTr")):
        data = open_data(place)
        return [Case(case.name, case.images) for case in (*data.cases, *data.unlabelled)]
    if not place.is_dir():
        raise FewerError(f"{place} does not exist; give a folder of images")
    files = find_pictures(place)
    if not files:
        raise FewerError(f"{place} holds no image (PNG, TIFF, JPEG or NIfTI)")
    cases = list(image_pool(files).unlabelled)
    groups: dict[str, list[Path]] = {}
    for case in cases:  # nnU-Net's names: the channel is the last four digits
        name, mark, channel = case.name.rpartition("_")
        if not (mark and len(channel) == 4 and channel.isdigit()):
            return cases
        groups.setdefault(name, []).append(case.images[0])
    sizes = {len(paths) for paths in groups.values()}
    if sizes not in ({preparation.channels}, {1}):
        return cases
    return [Case(name, tuple(paths)) for name, paths in groups.items()]


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise FewerError("there is no CUDA device here; give --device cpu")
    return torch.device(name)


def _check_out(out: str | Path | None, names: tuple[str, ...], overwrite: bool) -> None:
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise FewerError(f"--out {out} is a file; give a folder")
    for name in names if out is not None else ():
        if (Path(out or ".") / name).exists() and not overwrite:
            raise FewerError(f"{Path(out or '.') / name} exists already; give another --out, or --overwrite")


def _make(folder: str | Path) -> Path:
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, Path(folder), "make the folder") from None
    return Path(folder)


def images(loaded: LoadedModel, folder: str | Path, count: int, *, part: str, seed: int) -> ImageSet:
    """Patches of images as the model sees them, for a method that needs inputs and no labels.

    Parameters
    ----------
    loaded
        A trained model.
    folder
        A data set (masks are not read), or any folder of images.
    count
        Patches.
    part
        ``calibration`` or ``heldout``: of different cases. Of the data set that the model was trained on, the cases
        that judged are held out.
    seed
        Chooses cases and places.

    Raises
    ------
    FewerError
        When the folder holds too few images.
    """
    preparation = preparation_of(loaded)
    place = Path(folder)
    try:
        data = open_data(place)
        cases = [Case(c.name, c.images) for c in (*data.cases, *data.unlabelled)]
        held = {case.name for case in _unseen(loaded, data)}
        known = 0 < len(held) < len(data.cases)
    except FewerError:
        paths = find_pictures(place) if place.is_dir() else []
        data = image_pool(paths or list_images(place))
        cases, held, known = list(data.unlabelled), set(), False
    if known:
        chosen = [case for case in cases if (case.name in held) == (part == "heldout")]
    else:
        files = split_files([case.images[0] for case in cases], [case.name for case in cases], part)
        chosen = [case for case in cases if case.images[0] in set(files)]
    settings = TrainSettings(seed=seed, foreground=0.0, augment="none")
    store = CaseStore(data, chosen, preparation, settings.cache * 2**30, masks=False)
    good, skipped = [], []
    for index in np.random.default_rng([seed, STREAM]).permutation(len(chosen)):
        try:
            _ = store[int(index)]
            good.append(int(index))
        except FewerError as error:
            skipped.append((chosen[index].images[0], str(error)))
        if len(good) == count:
            break
    if not good:
        reason = f"; the first: {skipped[0][1]}" if skipped else ""
        raise FewerError(f"{folder} holds no readable image for the {part} part{reason}")
    sampler = PatchSampler(store, settings)
    # as many of each image as can be, and those of one image together
    rows = sorted(good[number % len(good)] for number in range(count))
    patches = [
        sampler.draw(index, np.random.default_rng([seed, STREAM, number]))[0] for number, index in enumerate(rows)
    ]
    return ImageSet(torch.stack(patches), [chosen[index].images[0] for index in rows], skipped)


@dataclass(frozen=True)
class _Labelled:
    data: SegmentData
    cases: tuple[Case, ...]
    preparation: Preparation
    note: str
    lower_is_better: frozenset[str]

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        return evaluate_cases(model, self.data, self.cases, self.preparation).measures()


def quality(loaded: LoadedModel, folder: str | Path) -> Any:
    """How good models of this kind are on the annotated cases of a folder, without those that trained.

    Returns
    -------
    Quality
        See :class:`fewer.tasks.Quality`.

    Raises
    ------
    FewerError
        When the folder is no data set, or has no annotated case.
    """
    data = open_data(folder)
    cases = _unseen(loaded, data)
    if not cases:
        raise FewerError(f"{folder} has no annotated case that {loaded.name} was not trained on; give other data")
    lower = {"missed structures", "spurious structures", "HD95, found (mm)", "HD95, found (pixels)"}
    return _Labelled(data, cases, preparation_of(loaded), f"on {len(cases)} annotated cases", frozenset(lower))
