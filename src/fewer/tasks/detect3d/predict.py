"""Write the boxes of every scan of a folder."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fewer.core.display import Told, skipped_lines
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes, atomic_write_text, refuse_inputs
from fewer.core.progress import Progress, Silent
from fewer.models.spec import load_model
from fewer.tasks.detect3d.bird import FOUND, bird_view
from fewer.tasks.detect3d.dataset import DetectionData
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.kitti import label_text
from fewer.tasks.detect3d.layouts import sweep_boxes_text
from fewer.tasks.detect3d.loaded import data_for, detector_of
from fewer.tasks.detect3d.scoring import detect_all
from fewer.tasks.detect3d.settings import PredictSettings
from fewer.tasks.folders import device_of, make_folder, results_aside

__all__ = ["PredictedBoxes", "predict"]


@dataclass(frozen=True, repr=False)
class PredictedBoxes(Told):
    """What :func:`predict` wrote.

    Attributes
    ----------
    files
        One per scan.
    boxes
        Number of boxes in them.
    skipped
        Scans that could not be used, and why.
    """

    files: tuple[Path, ...]
    boxes: int
    skipped: tuple[tuple[str, str], ...] = ()

    def lines(self) -> list[str]:
        """How many boxes are where, and what was skipped."""
        where = self.files[0].parent if self.files else ""
        told = [f"{self.boxes} boxes in {len(self.files)} scans, in {where}"]
        return told + skipped_lines(self.skipped)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        skipped = [{"scan": name, "reason": reason} for name, reason in self.skipped]
        return {"files": [str(path) for path in self.files], "boxes": self.boxes, "skipped": skipped}


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
) -> PredictedBoxes:
    """Write a file of boxes for every scan: KITTI's format where there is a calibration, else JSON.

    Parameters
    ----------
    run
        Run folder.
    inputs
        Folder of scans, in any known layout.
    out
        Folder for the files.
    settings
        See :class:`~fewer.tasks.detect3d.settings.PredictSettings`.
    overwrite, resume
        Replace files that are there; or keep them and do the others.

    Raises
    ------
    FewerError
        When the run or all scans cannot be used, or files are there already.
    """
    settings = settings or PredictSettings()
    if not (Path(run) / "recipe.json").is_file():
        raise FewerError(
            f"{run} is no run folder with a model; train one: fewer train DATA --task detect3d --out {run}"
        )
    loaded = load_model(str(run))
    model, data = detector_of(loaded).to(device_of(device)), data_for(loaded, inputs)
    kitti = data.layout == "kitti" and data.calibrations is not None
    folder, suffix = Path(out), ".txt" if kitti else ".json"
    wanted = {name: folder / f"{name}{suffix}" for name in data.names}
    refuse_inputs(wanted.values(), [path for name in data.names if (path := data.label_file(name)) is not None])
    there = [path for path in wanted.values() if path.exists()]
    if there and not (overwrite or resume):
        raise FewerError(f"{there[0]} exists already; give --resume to do the others, or --overwrite")
    fresh = not folder.exists()
    aside = results_aside(make_folder(folder), ["pictures"], overwrite and bool(there), resume)
    place = folder if aside is None else aside.path
    done = {name for name, path in wanted.items() if (place / path.name).exists()} if resume else set()
    names = [name for name in data.names if name not in done]
    files, skipped, boxes = [wanted[name] for name in data.names if name in done], [], 0
    with (progress or Silent()).stage("predict", len(names)) as stage:
        for name in names:
            found, failed = detect_all(model, data, [name], score=settings.confidence)
            skipped += failed
            if name in found:
                if settings.pictures:
                    _picture(place, data, name, found[name], model.config.reach)
                _write(place / wanted[name].name, data, name, found[name])  # last: where it is, everything is
                files.append(wanted[name])
                boxes += len(found[name])
            stage.advance(1, name)
    if aside is not None and files:
        aside.commit([])
    elif aside is not None:
        aside.discard()
    if names and not files:
        if fresh:
            folder.rmdir()  # nothing is in it
        raise FewerError(f"none of the {len(names)} scans can be used; the first: {skipped[0][1]}")
    return PredictedBoxes(tuple(files), boxes, tuple(skipped))


def _write(path: Path, data: DetectionData, name: str, objects: Objects) -> None:
    kitti = path.suffix == ".txt"
    atomic_write_text(path, label_text(objects, data.calibration(name)) if kitti else sweep_boxes_text(objects))


def _picture(folder: Path, data: DetectionData, name: str, objects: Objects, reach: Any) -> None:
    from PIL import Image

    picture = io.BytesIO()
    Image.fromarray(bird_view(data.points(name), [(objects, FOUND)], reach, side=700)).save(picture, "PNG")
    atomic_write_bytes(make_folder(folder / "pictures") / f"{name}.png", picture.getvalue())
