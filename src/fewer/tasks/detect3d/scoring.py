"""Run a detector over the labelled scans of a folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.core.progress import Progress, Silent
from fewer.models.running import evaluating
from fewer.tasks.detect3d.dataset import DetectionData
from fewer.tasks.detect3d.evaluation import DetectionScores, score_detections
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.kitti import image_boxes
from fewer.tasks.detect3d.loaded import scan_tensor
from fewer.tasks.detect3d.networks import Detector

__all__ = ["detect_all", "score_detector"]

LEAST = 0.05
"""Confidence of the boxes that an average precision looks at."""


def detect_all(
    model: nn.Module,
    data: DetectionData,
    names: Sequence[str],
    *,
    progress: Progress | None = None,
    score: float = LEAST,
) -> tuple[dict[str, Objects], list[tuple[str, str]]]:
    """Objects in each scan by name, with KITTI's image boxes where there is a calibration; and scans that failed."""
    assert isinstance(model, Detector)
    found: dict[str, Objects] = {}
    skipped = []
    device = next(model.parameters()).device
    with (progress or Silent()).stage("detect", len(names)) as stage, evaluating(model):
        for name in names:
            try:
                scan = scan_tensor(data.points(name), model.config, data.file(name)).to(device)
                camera = data.calibration(name) if data.layout == "kitti" and data.calibrations is not None else None
            except FewerError as error:
                skipped.append((name, str(error)))
                stage.advance(1, name)
                continue
            with torch.no_grad():
                objects = model.detect(scan, score=score)[0]
            if camera is not None:
                image, outside = image_boxes(objects.boxes, camera)
                objects = replace(objects, image=image, truncation=outside)
            found[name] = objects
            stage.advance(1, name)
    return found, skipped


def score_detector(
    model: nn.Module,
    data: DetectionData,
    names: Sequence[str],
    *,
    score: float = 0.3,
    whole: bool = False,
    progress: Progress | None = None,
) -> tuple[DetectionScores, dict[str, Objects]]:
    """Scores of a detector on labelled scans, and what it found.

    Parameters
    ----------
    names
        Scans that judge.
    score
        Confidence at which missed and spurious are counted.
    whole
        Count objects outside the network's grid too.

    Raises
    ------
    FewerError
        When no scan can be read, or the labels hold none of the network's classes.
    """
    assert isinstance(model, Detector)
    found, skipped = detect_all(model, data, names, progress=progress)
    if not found:
        raise FewerError(f"none of the {len(names)} scans of {data.root} can be used; the first: {skipped[0][1]}")
    truths = [data.everything(name) for name in found]
    there = {name for truth in truths for name in truth.classes} - {"DontCare"}
    if there and not there & set(model.config.classes):
        raise FewerError(
            f"the labels of {data.root} hold {', '.join(sorted(there))}, and this network knows "
            f"{', '.join(model.config.classes)} alone: there is nothing to score; rename the classes in the labels, or "
            "train on this data"
        )
    reach = None if whole else model.config.reach
    scores = score_detections(
        truths, list(found.values()), model.config.classes, score=score, reach=reach, skipped=skipped
    )
    strange = {name for truth in truths for name in truth.classes} - {*model.config.classes, "DontCare"}
    if strange:
        told = f"Not known to the network, and not counted: {', '.join(sorted(strange))}."
        scores = replace(scores, note=f"{scores.note} {told}".strip())
    return scores, found
