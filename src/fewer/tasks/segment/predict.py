"""Write a mask for every image of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fewer.core.display import Told, skipped_lines
from fewer.core.errors import FewerError
from fewer.core.files import as_path, real_path, refuse_inputs
from fewer.core.progress import Progress, Silent
from fewer.data.images import left_out
from fewer.models.spec import load_model
from fewer.tasks.folders import device_of, make_folder, results_aside
from fewer.tasks.segment.dataset import Case
from fewer.tasks.segment.files import LOSSLESS, Picture, suffix_of, write_picture
from fewer.tasks.segment.inference import predict_mask
from fewer.tasks.segment.inputs import cases_in
from fewer.tasks.segment.loaded import preparation_of
from fewer.tasks.segment.overlay import overlay as draw
from fewer.tasks.segment.reading import Sample, read_image
from fewer.tasks.segment.settings import PredictSettings

__all__ = ["Predicted", "predict"]


@dataclass(frozen=True, repr=False)
class Predicted(Told):
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

    def lines(self) -> list[str]:
        """How many masks are where, and what was skipped."""
        where = self.masks[0].parent if self.masks else ""
        return [f"{len(self.masks)} masks in {where}", *skipped_lines(self.skipped)]

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        skipped = [{"file": str(path), "reason": reason} for path, reason in self.skipped]
        folder = str(self.masks[0].parent) if self.masks else None
        return {"folder": folder, "masks": [str(path) for path in self.masks], "skipped": skipped}


def predict(
    run: str | Path,
    pictures: str | Path,
    *,
    out: str | Path,
    settings: PredictSettings | None = None,
    overwrite: bool = False,
    resume: bool = False,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Predicted:
    """Write a mask for every image.

    A mask lies on the voxels of its image, has its geometry and its kind of file (PNG where that would lose detail),
    and holds the numbers that the classes have in the masks of the training. An image that cannot be read, or is of
    another kind than those of the training, is left out and named.

    Parameters
    ----------
    run
        Run folder of a training, or of a compression of one.
    pictures
        A folder of images (of nnU-Net's channel files too), a data set, or one image file.
    out
        Folder for the masks.
    settings
        See :class:`~fewer.tasks.segment.settings.PredictSettings`.
    overwrite, resume
        Replace masks that are there; or keep them and do the others.
    device
        Where the network runs.

    Raises
    ------
    FewerError
        When the run or the images cannot be used, or masks are there already.
    """
    settings = settings or PredictSettings()
    if not (as_path(run) / "recipe.json").is_file():
        raise FewerError(f"{run} is no run folder with a model; train one: fewer train DATA --out {run}")
    loaded = load_model(str(run))
    preparation, model = preparation_of(loaded), loaded.model.to(device_of(device))
    cases = cases_in(Path(pictures), preparation.channels)
    _check_names(cases)
    folder = Path(out)
    files = [folder / f"{case.name}{_kind(case)}" for case in cases]
    refuse_inputs(files, [path for case in cases for path in (*case.images, *([case.mask] if case.mask else []))])
    if folder.exists() and Path(pictures).is_dir() and real_path(folder) == real_path(pictures):
        raise FewerError(f"{folder} holds the images themselves; choose another --out for the masks")
    there = [path for path in files if path.exists()]
    if there and not (overwrite or resume):
        raise FewerError(f"{there[0]} exists already; give --resume to do the others, or --overwrite")
    fresh = not folder.exists()
    make_folder(folder)
    aside = results_aside(folder, ["overlays"], overwrite and bool(there), resume)
    place = folder if aside is None else aside.path
    values = torch.tensor(preparation.values).numpy()
    skipped, written = [], []
    with (progress or Silent()).stage("predict", len(cases)) as stage:
        for case, path in zip(cases, files, strict=True):
            if not (resume and (place / path.name).exists()):
                try:
                    image, picture = read_image(case)
                    mask = predict_mask(model, Sample(case.name, image, None, picture), preparation, settings.overlap)
                except FewerError as error:
                    skipped.append((case.images[0], str(error)))
                    stage.advance(1, case.name)
                    continue
                if settings.overlay:
                    pixels = draw(image, mask, side=640)
                    colours = Picture(pixels.transpose(2, 0, 1), (1.0, 1.0))
                    write_picture(make_folder(place / "overlays") / f"{case.name}.png", colours.array, colours)
                write_picture(place / path.name, values[mask], picture)  # last: where it is, everything is
            written.append(path)
            stage.advance(1, case.name)
    if aside is not None and written:
        aside.commit([])
    elif aside is not None:
        aside.discard()
    if not written:
        if fresh:
            folder.rmdir()  # nothing is in it
        raise FewerError(f"none of the {len(cases)} images could be read; the first: {skipped[0][1]}")
    return Predicted(tuple(written), (*skipped, *_passed_over(Path(pictures), folder)))


def _passed_over(place: Path, out: Path) -> list[tuple[Path, str]]:
    """Pictures of a folder whose kind is not read; those that we wrote are none."""
    return [(place / name, reason) for name, reason in left_out(place, out)[0]] if place.is_dir() else []


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
