"""Evaluate a trained run, or a folder of detections in KITTI's format; and the quality that a compression shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from fewer.core.errors import FewerError
from fewer.core.progress import Progress
from fewer.core.staging import write_together
from fewer.models.spec import LoadedModel, is_model, load_model
from fewer.reports.page import Page
from fewer.tasks.detect3d.dataset import DetectionData, open_data
from fewer.tasks.detect3d.evaluation import DetectionScores, score_detections
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.kitti import parse_label, read_text
from fewer.tasks.detect3d.layouts import parse_sweep_boxes
from fewer.tasks.detect3d.loaded import data_for, detector_of, unseen
from fewer.tasks.detect3d.pages import bird_section, compare_page, evaluation_page
from fewer.tasks.detect3d.scoring import score_detector
from fewer.tasks.detect3d.settings import EvaluateSettings
from fewer.tasks.folders import check_out, device_of, make_folder

__all__ = ["DetectorQuality", "evaluate", "quality"]


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
) -> DetectionScores:
    """Score a run, or a folder of detections (``NAME.txt`` of KITTI with 16 columns, or JSON boxes), on labelled scans.

    Parameters
    ----------
    target
        Run folder, or folder of detections.
    data
        Labelled scans. If the run was trained on them, only those that did not train are scored.
    out
        Folder for ``evaluation.json``, ``evaluation.csv`` and ``evaluation.html``.
    settings
        See :class:`~fewer.tasks.detect3d.settings.EvaluateSettings`.

    Raises
    ------
    FewerError
        When target and data do not fit each other.
    """
    settings = settings or EvaluateSettings()
    check_out(out, ("evaluation.json",), overwrite)
    place = Path(target)
    if is_model(target):
        result, page = _score_run(place, data, settings, device, progress, command, out is not None)
    elif not place.is_dir():
        raise FewerError(f"{target} does not exist; give a run folder, or a folder of detections")
    elif settings.dense is not None:
        raise FewerError(f"{target} holds detections; --dense stands beside a run folder alone")
    else:
        result, page = _score_files(place, open_data(data), settings, command)
    if out is not None:
        assert page is not None
        texts = {".csv": result.to_csv(), ".html": page.to_html(), ".json": result.to_json()}
        write_together(make_folder(out), {f"evaluation{suffix}": text for suffix, text in texts.items()})
    return result


def _score_run(
    place: Path,
    data: str | Path,
    settings: EvaluateSettings,
    device: str,
    progress: Progress | None,
    command: str,
    paged: bool,
) -> tuple[DetectionScores, Page | None]:
    """Scores of a run, and its page, if wanted; of two runs side by side where another one is named."""
    loaded = load_model(str(place))
    model, opened = detector_of(loaded).to(device_of(device)), data_for(loaded, data)
    names = opened.labelled() if settings.all_data else unseen(loaded, opened)
    if not opened.labelled():
        raise FewerError(f"{data} has no labelled scan; fewer predict writes the boxes of scans without labels")
    if not names:
        raise FewerError(f"{data} has no labelled scan that {place} was not trained on; give --all-data")
    how: dict[str, Any] = {"score": settings.confidence, "whole": settings.whole, "progress": progress}
    classes, reach = model.config.classes, model.config.reach
    title = f"{place.name} on {opened.root.name}"
    if settings.dense is None:
        result, found = score_detector(model, opened, names, **how)
        birds = bird_section(opened, found, classes, reach, score=settings.confidence) if paged else None
        return result, evaluation_page(title, result, birds, command) if paged else None
    dense = detector_of(load_model(settings.dense)).to(device_of(device))
    if dense.config.classes != classes:
        raise FewerError(
            f"{settings.dense} finds {', '.join(dense.config.classes)}, and {place} {', '.join(classes)}: "
            "the two cannot stand side by side"
        )
    before, first = score_detector(dense, opened, names, **how)
    result, found = score_detector(model, opened, names, **how)
    both = {name: first[name] for name in first if name in found}
    birds = bird_section(opened, both, classes, reach, other=found, score=settings.confidence)
    page = compare_page(title, before, result, f"{place.name} beside {Path(settings.dense).name}", birds, command)
    return result, page


def _score_files(
    place: Path, opened: DetectionData, settings: EvaluateSettings, command: str
) -> tuple[DetectionScores, Page]:
    """Scores of a folder of detections, and its page."""
    found = _detections(place, opened)
    classes = sorted({name for objects in found.values() for name in objects.classes})
    truths = [opened.everything(name) for name in found]
    there = {name for truth in truths for name in truth.classes} - {"DontCare"}
    if classes and there and not there & set(classes):
        raise FewerError(
            f"the labels of {opened.root} hold {', '.join(sorted(there))}, and the detections in {place} "
            f"{', '.join(classes)} alone: there is nothing to score; rename the classes of one of them"
        )
    classes = classes or sorted(there)  # no box at all: everything is missed
    result = score_detections(truths, list(found.values()), classes, score=settings.confidence)
    lacking = {name for truth in truths for name in truth.classes} - {*classes, "DontCare"}
    if lacking:
        told = f"Never detected, and not scored: {', '.join(sorted(lacking))}."
        result = replace(result, note=f"{result.note} {told}".strip())
    return result, evaluation_page(f"{place.name} on {opened.root.name}", result, None, command)


def _detections(place: Path, data: DetectionData) -> dict[str, Objects]:
    found: dict[str, Objects] = {}
    if (place / "data").is_dir() and not any(place.glob("*.txt")):  # where KITTI's own tools put them
        place = place / "data"
    for name in data.labelled():
        text, boxes = place / f"{name}.txt", place / f"{name}.json"
        if text.exists():
            found[name] = parse_label(read_text(text), data.calibration(name), text)
        elif boxes.exists():
            found[name] = parse_sweep_boxes(read_text(boxes), boxes)
    missing = [name for name in data.labelled() if name not in found]
    if missing:
        raise FewerError(f"{place} has no detections of the scan {missing[0]!r} ({len(missing)} are missing)")
    return found


@dataclass(frozen=True)
class DetectorQuality:
    """The quality of a detector; see :class:`fewer.tasks.Quality`."""

    data: DetectionData
    names: tuple[str, ...]
    note: str
    lower_is_better: frozenset[str]

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        """Average precision (moderate, 40 recalls, percent), missed and spurious."""
        return score_detector(model, self.data, self.names)[0].measures()


def quality(loaded: LoadedModel, folder: str | Path) -> DetectorQuality:
    """How good detectors of this kind are on the labelled scans of a folder, without those that trained.

    Raises
    ------
    FewerError
        When there is none.
    """
    data = data_for(loaded, folder)
    names = unseen(loaded, data)
    if not data.labelled():
        raise FewerError(f"{folder} has no labelled scan, by which a detector could be judged")
    if not names:
        raise FewerError(f"{folder} has no labelled scan that {loaded.name} was not trained on; give other data")
    classes = detector_of(loaded).config.classes
    if not any(set(data.objects(name).classes) & set(classes) for name in names):
        raise FewerError(f"the labels of {folder} hold no {' and no '.join(classes)}: there is nothing to judge by")
    lower = {f"{kind} {name}" for name in classes for kind in ("missed", "spurious")}
    return DetectorQuality(data, names, f"on {len(names)} labelled scans", frozenset(lower))
