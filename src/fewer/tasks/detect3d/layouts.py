"""Layouts of data sets beside KITTI's: OpenPCDet's custom folders, and sweeps of nuScenes with boxes as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.reading import data_limit, parse_json, read_array, read_bytes
from fewer.tasks.detect3d.boxes import Floats
from fewer.tasks.detect3d.frames import BYTE, Objects, has_bytes, read_scan
from fewer.tasks.detect3d.kitti import finite

__all__ = ["custom_label_text", "parse_custom_label", "parse_sweep_boxes", "read_npy", "read_sweep", "sweep_boxes_text"]


def read_npy(path: Path) -> Floats:
    """Points of OpenPCDet's custom layout: an array of floats with four columns or more.

    Raises
    ------
    FewerError
        When the file is no such array or holds no point.
    """
    points = read_array(read_bytes(path, data_limit()), str(path))
    if points.ndim != 2 or points.shape[1] < 4 or points.dtype.kind not in "fiu":
        raise FewerError(f"{path} has the shape {points.shape}; points are rows of x, y, z, intensity")
    if not len(points):
        raise FewerError(f"{path} holds no point; remove the scan, or copy it again")
    return points.astype(np.float32)


def parse_custom_label(text: str, where: object = "the label") -> Objects:
    """Lines of ``x y z length width height yaw class``.

    Raises
    ------
    FewerError
        When a line has another number of columns.

    Examples
    --------
    >>> parse_custom_label("1.5 1.46 0.1 5.12 1.85 4.13 1.56 Vehicle").classes
    ('Vehicle',)
    """
    boxes, names = [], []
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 8:
            raise FewerError(f"{where}, line {number}: {len(parts)} columns; x y z length width height yaw class are 8")
        try:
            boxes.append([finite(v) for v in parts[:7]])
        except ValueError:
            raise FewerError(f"{where}, line {number}: {line.strip()!r} holds something that is no number") from None
        names.append(parts[7])
    return Objects(np.array(boxes).reshape(-1, 7), tuple(names))


def custom_label_text(objects: Objects) -> str:
    """The other way round.

    Examples
    --------
    >>> custom_label_text(Objects(np.ones((1, 7)), ("Car",)))
    '1.0000 1.0000 1.0000 1.0000 1.0000 1.0000 1.0000 Car\\n'
    """
    rows = zip(objects.boxes, objects.classes, strict=True)
    return "".join(" ".join(f"{v:.4f}" for v in box) + f" {name}\n" for box, name in rows)


def read_sweep(path: Path) -> Floats:
    """A ``.pcd.bin`` of nuScenes: x, y, z, intensity 0 to 255, ring; the intensity is brought to 0 to 1.

    Sweeps that other tools wrote may have it there already.
    """
    points = read_scan(path, 5)
    if has_bytes(points):
        points[:, 3] /= BYTE
    return points


def parse_sweep_boxes(text: str, where: object = "the boxes") -> Objects:
    """Boxes of a sweep in the frame of its sensor, with the names of nuScenes.

    A list, or ``{"boxes": [...]}``, of objects with ``translation`` (centre, metres), ``size`` (width, length,
    height), ``rotation`` (quaternion w, x, y, z) and ``detection_name``; ``velocity`` and ``detection_score`` may be
    there too.

    Raises
    ------
    FewerError
        When the text is no JSON of this kind.

    Examples
    --------
    >>> entry = {"translation": [1, 2, 3], "size": [2, 4, 1], "rotation": [1, 0, 0, 0], "detection_name": "car"}
    >>> parse_sweep_boxes(json.dumps([entry])).boxes.tolist()
    [[1.0, 2.0, 3.0, 4.0, 2.0, 1.0, 0.0]]
    """
    try:
        found = parse_json(text, str(where))
        entries: list[dict[str, Any]] = found["boxes"] if isinstance(found, dict) else found
        boxes, names, speeds, scores = [], [], [], []
        for entry in entries:
            (x, y, z), (width, length, height) = entry["translation"], entry["size"]
            qw, qx, qy, qz = entry["rotation"]
            yaw = np.arctan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz))
            boxes.append([finite(v) for v in (x, y, z, length, width, height, yaw)])
            names.append(str(entry["detection_name"]))
            speeds.append(
                [float("nan") if v is None else float(v) for v in (entry.get("velocity") or (None, None))[:2]]
            )
            scores.append(float(entry.get("detection_score", -1)))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        told = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise FewerError(f"{where} holds no boxes of nuScenes' kind: {told}") from None
    given = any(score >= 0 for score in scores)
    return Objects(
        np.array(boxes, dtype=float).reshape(-1, 7),
        tuple(names),
        np.array(scores) if given else None,
        np.array(speeds, dtype=float).reshape(-1, 2),
    )


def sweep_boxes_text(objects: Objects) -> str:
    """The other way round."""
    entries = []
    for i, (box, name) in enumerate(zip(objects.boxes.tolist(), objects.classes, strict=True)):
        entry: dict[str, Any] = {"detection_name": name, "translation": box[:3], "size": [box[4], box[3], box[5]]}
        entry["rotation"] = [float(np.cos(box[6] / 2)), 0.0, 0.0, float(np.sin(box[6] / 2))]
        if objects.velocity is not None and np.isfinite(objects.velocity[i]).all():
            entry["velocity"] = objects.velocity[i].tolist()
        if objects.scores is not None:
            entry["detection_score"] = float(objects.scores[i])
        entries.append(entry)
    return json.dumps({"boxes": entries}, indent=1) + "\n"
