"""KITTI's object files: calibration, labels and scans, read and written.

Format of the object benchmark (Geiger, Lenz and Urtasun, CVPR 2012). Labels stand in the frame of the left colour
camera (x right, y down, z ahead) with the bottom of the box as its place; here they are brought to the scanner's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.reading import read_text as read_plain_text
from fewer.tasks.detect3d.boxes import Floats, box_corners, limit_angle
from fewer.tasks.detect3d.frames import Objects

__all__ = ["IMAGE", "Calibration", "image_boxes", "label_text", "parse_calibration", "parse_label", "read_text"]

IMAGE = (1242, 375)
"""Width and height of a KITTI image in pixels."""
_LIKE_KITTI = 0.15
"""Relative difference up to which an image is taken for one of KITTI's, whose axis is not quite amid the image."""

_COLUMNS = 15


@dataclass(frozen=True, eq=False)
class Calibration:
    """From the scanner to the camera and on to the image.

    Attributes
    ----------
    projection
        ``P2``, shape (3, 4).
    rectification
        ``R0_rect``, shape (3, 3).
    to_reference
        ``Tr_velo_to_cam``, shape (3, 4).

    Examples
    --------
    >>> Calibration.usual().to_camera(np.array([[10.0, 0, 0]])).round(2).tolist()
    [[0.0, -0.08, 9.73]]
    """

    projection: Floats
    rectification: Floats
    to_reference: Floats

    @classmethod
    def usual(cls) -> Calibration:
        """A camera that looks exactly ahead, with KITTI's typical focal length and offsets."""
        projection = np.array([[721.5377, 0, 609.5593, 44.85728], [0, 721.5377, 172.854, 0.2163791], [0, 0, 1, 0.0027]])
        axes = np.array([[0, -1, 0, 0], [0, 0, -1, -0.08], [1, 0, 0, -0.27]], dtype=float)
        return cls(projection, np.eye(3), axes)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the image in pixels: KITTI's, or twice the place of another camera's axis.

        Examples
        --------
        >>> Calibration.usual().size
        (1242, 375)
        """
        axis = self.projection[:2, 2]
        if (axis <= 0).any() or (np.abs(2 * axis / IMAGE - 1) < _LIKE_KITTI).all():
            return IMAGE
        width, height = (round(2 * float(v)) for v in axis)
        return width, height

    def to_camera(self, points: Floats) -> Floats:
        """Scanner to rectified camera, metres, shape (n, 3)."""
        moved = points[:, :3].astype(np.float64) @ self.to_reference[:, :3].T + self.to_reference[:, 3]
        return moved @ self.rectification.T

    def to_scanner(self, points: Floats) -> Floats:
        """Rectified camera to scanner, metres, shape (n, 3)."""
        reference = np.linalg.solve(self.rectification, np.asarray(points, np.float64).T)
        return np.linalg.solve(self.to_reference[:, :3], reference - self.to_reference[:, 3:]).T

    def to_image(self, points: Floats) -> tuple[Floats, Floats]:
        """Scanner to pixels, shape (n, 2), and the depth in metres, shape (n,)."""
        camera = self.to_camera(points)
        flat = camera @ self.projection[:, :3].T + self.projection[:, 3]
        depth = flat[:, 2]
        return flat[:, :2] / np.where(np.abs(depth) < 1e-9, 1e-9, depth)[:, None], depth

    def in_view(self, points: Floats) -> np.ndarray:
        """Which points the camera sees, bool, shape (n,)."""
        (pixels, depth), size = self.to_image(points), self.size
        return (depth > 0) & (pixels >= 0).all(1) & (pixels[:, 0] < size[0]) & (pixels[:, 1] < size[1])

    def text(self) -> str:
        """A calibration file."""
        rows = {"P0": self.projection, "P1": self.projection, "P2": self.projection, "P3": self.projection}
        rows |= {"R0_rect": self.rectification, "Tr_velo_to_cam": self.to_reference}
        rows |= {"Tr_imu_to_velo": np.eye(3, 4)}
        return "".join(f"{k}: {' '.join(f'{v:.12e}' for v in np.ravel(m))}\n" for k, m in rows.items())


def read_text(path: Path) -> str:
    """A text file.

    Raises
    ------
    FewerError
        When it is missing or no text.
    """
    return read_plain_text(path, what="calibration or label")


def finite(text: str) -> float:
    """A number as people measure it: NaN, infinity and what is beyond any distance are none.

    Examples
    --------
    >>> finite("1.5")
    1.5
    """
    value = float(text)
    if not abs(value) < 1e9:
        raise ValueError(text)
    return value


def parse_calibration(text: str, where: object = "the calibration") -> Calibration:
    """Read a calibration file.

    Raises
    ------
    FewerError
        When a matrix is missing or has another number of values.

    Examples
    --------
    >>> parse_calibration(Calibration.usual().text()).projection.shape
    (3, 4)
    """
    rows: dict[str, list[float]] = {}
    for line in text.splitlines():
        name, _, values = line.partition(":")
        if not values:
            name, _, values = line.strip().partition(" ")
        try:
            rows[name.strip()] = [finite(v) for v in values.split()]
        except ValueError:
            raise FewerError(f"{where}: the line of {name.strip()!r} holds something that is no number") from None
    found = []
    for names, shape, use in (
        (("P2", "P0", "P1", "P3"), (3, 4), "the boxes in the image cannot be found"),
        (("R0_rect", "R_rect"), (3, 3), "boxes cannot be brought to the scanner's frame"),
        (("Tr_velo_to_cam", "Tr_velo_cam"), (3, 4), "boxes cannot be brought to the scanner's frame"),
    ):
        values = next((rows[n] for n in names if n in rows), None)
        if values is None:
            raise FewerError(f"{where} has no {names[0]}; {use} without it")
        found.append(_matrix(values, shape, f"{where}: {names[0]}", names[0] != "P2"))
    return Calibration(*found)


def _matrix(values: list[float], shape: tuple[int, int], where: str, turns: bool) -> Floats:
    """Values as a matrix, also where it was written with the rows that make it 4 x 4."""
    whole = np.array(values)
    if len(values) == 16 and values[12:] == [0, 0, 0, 1]:
        whole = whole.reshape(4, 4)[: shape[0], : shape[1]]
    elif len(values) != shape[0] * shape[1]:
        raise FewerError(f"{where} has {len(values)} values; {shape[0] * shape[1]} are needed")
    whole = whole.reshape(shape)
    if turns and abs(np.linalg.det(whole[:, :3])) < 1e-9:
        raise FewerError(f"{where} maps space onto a plane, so that nothing can be brought back; copy the file again")
    return whole


def parse_label(text: str, calibration: Calibration, where: object = "the label") -> Objects:
    """Read a label file (15 columns) or a file of detections (16, the last one a score).

    ``DontCare`` lines have no box in space; they are kept with a box of NaN, for the rules of the evaluation. Data that
    has no camera fills the columns of the image with zeros or with -1: then no object has a box in the image.

    Raises
    ------
    FewerError
        When a line has another number of columns or something that is no number.
    """
    rows, names = [], []
    for number, line in enumerate(text.splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) not in (_COLUMNS, _COLUMNS + 1):
            raise FewerError(f"{where}, line {number}: {len(parts)} columns; a label has 15, a detection 16")
        try:
            rows.append([finite(v) for v in parts[1:]])
        except ValueError:
            raise FewerError(f"{where}, line {number}: {line.strip()!r} holds something that is no number") from None
        names.append(parts[0])
    if len({len(row) for row in rows}) > 1:
        raise FewerError(f"{where}: some lines have a score and others have none")
    if not rows:
        return Objects()
    values = np.array(rows)
    height, width, length = values[:, 7], values[:, 8], values[:, 9]
    bottom = calibration.to_scanner(values[:, 10:13])
    yaw = limit_angle(-values[:, 13] - np.pi / 2)
    boxes = np.column_stack([bottom[:, :2], bottom[:, 2] + height / 2, length, width, height, yaw])
    boxes[np.array(names) == "DontCare"] = np.nan
    scores = values[:, 14] if values.shape[1] > _COLUMNS - 1 else None
    if not ((values[:, 5] > values[:, 3]) & (values[:, 6] > values[:, 4])).any():
        return Objects(boxes, tuple(names), scores)
    return Objects(boxes, tuple(names), scores, None, values[:, 3:7], values[:, 0], values[:, 1])


def image_boxes(boxes: Floats, calibration: Calibration) -> tuple[Floats, Floats]:
    """Boxes in the image, ``left top right bottom`` in pixels, and the share of each that lies outside.

    Examples
    --------
    >>> box, outside = image_boxes(np.array([[20.0, 0, -1, 4, 2, 1.5, 0]]), Calibration.usual())
    >>> box[0].round().tolist(), float(outside[0])
    ([571.0, 178.0, 653.0, 241.0], 0.0)
    """
    if not len(boxes):
        return np.zeros((0, 4)), np.zeros(0)
    (pixels, depth), size = calibration.to_image(box_corners(boxes).reshape(-1, 3)), calibration.size
    pixels = pixels.reshape(-1, 8, 2)
    pixels = np.where((depth < 0.1).reshape(-1, 8, 1), np.array([size[0] / 2, size[1]]), pixels)
    whole = np.concatenate([pixels.min(1), pixels.max(1)], 1)
    cut = whole.clip(0, [size[0] - 1, size[1] - 1] * 2)
    area = np.maximum((whole[:, 2] - whole[:, 0]) * (whole[:, 3] - whole[:, 1]), 1e-9)
    outside = 1 - (cut[:, 2] - cut[:, 0]) * (cut[:, 3] - cut[:, 1]) / area
    return cut, outside.clip(0, 1)


def label_text(objects: Objects, calibration: Calibration) -> str:
    """A label file; with a score as the last column where the objects have scores.

    Examples
    --------
    >>> car = Objects(np.array([[20.0, 0, -1, 4, 2, 1.5, 0]]), ("Car",))
    >>> label_text(car, Calibration.usual()).split()[8:11]
    ['1.50', '2.00', '4.00']
    """
    if not len(objects):
        return ""
    boxes = np.asarray(objects.boxes)
    image, outside = (objects.image, objects.truncation)
    if image is None:
        image, outside = image_boxes(boxes, calibration)
    bottom = boxes[:, :3] - [0, 0, 0.5] * boxes[:, 5:6]
    camera = calibration.to_camera(bottom)
    turn = limit_angle(-boxes[:, 6] - np.pi / 2)
    alpha = limit_angle(turn - np.arctan2(camera[:, 0], camera[:, 2]))
    occlusion = np.zeros(len(boxes)) if objects.occlusion is None else objects.occlusion
    lines = []
    for i, name in enumerate(objects.classes):
        share = 0.0 if outside is None else float(outside[i])
        words = [name, f"{share:.2f}", f"{int(occlusion[i])}", f"{alpha[i]:.4f}"]
        words += [f"{v:.2f}" for v in image[i]]
        words += [f"{boxes[i, j]:.2f}" for j in (5, 4, 3)]
        words += [f"{v:.4f}" for v in camera[i]] + [f"{turn[i]:.4f}"]
        words += [] if objects.scores is None else [f"{objects.scores[i]:.4f}"]
        lines.append(" ".join(words))
    return "\n".join(lines) + "\n"
