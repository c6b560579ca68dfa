"""A folder of scans, whichever of the known layouts it has."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from fewer.core.errors import FewerError
from fewer.tasks.detect3d.boxes import Floats
from fewer.tasks.detect3d.frames import BYTE, Frame, Objects, has_bytes, have_place, in_bytes, read_scan
from fewer.tasks.detect3d.kitti import Calibration, parse_calibration, parse_label, read_text
from fewer.tasks.detect3d.layouts import parse_custom_label, parse_sweep_boxes, read_npy, read_sweep

__all__ = ["DetectionData", "Layout", "open_data", "sweeps_below"]

_LOOKED_AT = 9
"""Scans that tell of which kind the intensities are."""

Layout = Literal["kitti", "custom", "sweeps", "scans"]

_SUFFIXES: dict[str, tuple[str, ...]] = {
    "kitti": (".bin",), "custom": (".npy", ".bin"), "sweeps": (".pcd.bin",), "scans": (".bin", ".npy"),
}  # fmt: skip
"""Endings of the scans of each layout; the second where there is none with the first."""


@dataclass(frozen=True)
class DetectionData:
    """Scans of one folder by name; nothing is read before it is asked for.

    Attributes
    ----------
    root
        The folder that was opened.
    layout
        ``kitti``, ``custom`` (OpenPCDet), ``sweeps`` (nuScenes) or ``scans`` (``.bin`` or ``.npy`` files alone).
    scans, labels, calibrations
        Folders; None where there is none.
    names
        Scans in alphabetical order.
    files
        File of each scan.
    view
        ``full``, or ``camera``: only points that KITTI's camera sees, as the benchmark trains and tests.
    """

    root: Path
    layout: Layout
    scans: Path
    labels: Path | None
    calibrations: Path | None
    names: tuple[str, ...]
    files: tuple[Path, ...]
    view: Literal["full", "camera"] = "full"

    def __len__(self) -> int:
        return len(self.names)

    def file(self, name: str) -> Path:
        """The scan's file.

        Raises
        ------
        FewerError
            When there is no scan of that name.
        """
        if name not in self._places:
            raise FewerError(f"{self.root} has no scan called {name!r}")
        return self.files[self._places[name]]

    @cached_property
    def _places(self) -> dict[str, int]:
        """Where each name stands; folders may hold many thousand scans."""
        return {name: at for at, name in enumerate(self.names)}

    def calibration(self, name: str) -> Calibration:
        """Of a KITTI scan.

        Raises
        ------
        FewerError
            When its file is missing or not complete.
        """
        if self.calibrations is None:
            raise FewerError(f"{self.root} has no folder calib; labels of KITTI cannot be read without it")
        path = self.calibrations / f"{name}.txt"
        return parse_calibration(read_text(path), path)

    def raw(self, name: str) -> Floats:
        """All points of a scan as its file holds them, with beams that met nothing, whatever the view."""
        path = self.file(name)
        if path.suffix == ".npy":
            return read_npy(path)
        return read_sweep(path) if path.name.endswith(".pcd.bin") else read_scan(path)

    def points(self, name: str) -> Floats:
        """float32, shape (points, 4 or more); see :class:`~fewer.tasks.detect3d.frames.Frame`.

        Drivers of scanners write NaN or zeros as the place of a beam that met nothing. Such rows are left out.
        Intensities from 0 to 255 are brought to 0 to 1.

        Raises
        ------
        FewerError
            When the file cannot be read, or none of its points has a place.
        """
        points = self.raw(name)
        placed = have_place(points)
        if not placed.any():
            raise FewerError(f"{self.file(name)} holds no point with a place: every row is NaN, infinity or zero")
        if not placed.all():
            points = points[placed]
        if self.brightest != 1:
            points[:, 3] /= self.brightest
        if self.view == "camera":
            points = points[self.calibration(name).in_view(points)]
        return points

    @cached_property
    def brightest(self) -> float:
        """What stands for an intensity of 1 in the files: 255 where scans of the folder, here and there, tell it."""
        if self.layout == "sweeps":  # are brought to 0 to 1 as they are read
            return 1.0
        return BYTE if in_bytes([said for said, _ in self._intensities]) else 1.0

    @cached_property
    def bright(self) -> float | None:
        """How bright bright points are as they are read: what 19 of 20 intensities of a usual scan do not pass.

        None where no intensity is a number.
        """
        seen = [top for _, top in self._intensities]
        return float(np.median(seen)) / self.brightest if seen else None

    @cached_property
    def _intensities(self) -> list[tuple[bool, float]]:
        """Of scans here and there: whether they are in bytes, and how bright bright points are in the file."""
        found = []
        for name in self.names[:: max(1, len(self.names) // _LOOKED_AT)][:_LOOKED_AT]:
            with suppress(FewerError):
                scan = self.raw(name)
                said = has_bytes(scan)
                if said is not None:
                    there = scan[:, 3][np.isfinite(scan[:, 3])]
                    found.append((said, float(np.quantile(there, 0.95))))
        return found

    def label_file(self, name: str) -> Path | None:
        """The label of a scan, or None where it has none."""
        if self.labels is None:
            return None
        path = self.labels / f"{name}{'.json' if self.layout == 'sweeps' else '.txt'}"
        return path if path.exists() else None

    def objects(self, name: str) -> Objects:
        """Annotated objects; without KITTI's areas of no annotation, see :meth:`everything`."""
        found = self.everything(name)
        return found.take(~np.isnan(found.boxes).any(1)) if len(found) else found

    def everything(self, name: str) -> Objects:
        """Annotated objects, and KITTI's ``DontCare`` with a box of NaN."""
        path = self.label_file(name)
        if path is None:
            return Objects()
        text = read_text(path)
        if self.layout == "kitti":
            return parse_label(text, self.calibration(name), path)
        return parse_sweep_boxes(text, path) if self.layout == "sweeps" else parse_custom_label(text, path)

    def frame(self, name: str) -> Frame:
        """Scan and objects."""
        return Frame(name, self.points(name), self.objects(name), self.label_file(name) is not None)

    def labelled(self) -> tuple[str, ...]:
        """Names of the scans that have a label."""
        return tuple(name for name in self.names if self.label_file(name) is not None)

    def listed(self, part: str) -> tuple[str, ...]:
        """Names of a part in ``ImageSets``: ``train`` or ``val``; none where there is no such list.

        Raises
        ------
        FewerError
            When the list names scans that are not there.
        """
        path = next((p for p in self._lists(part) if p.exists()), None)
        if path is None:
            return ()
        names = tuple(self._plain(line.strip()) for line in read_text(path).splitlines() if line.strip())
        missing = [name for name in names if name not in self._places]
        if missing:
            told = f"; {len(missing)} of its {len(names)} scans are missing" if len(missing) > 1 else ""
            raise FewerError(f"{path} lists {missing[0]!r}, whose scan is not in {self.scans}{told}")
        return names

    def _plain(self, name: str) -> str:
        """A name on a list, without the ending of its file where that was written, too."""
        if name in self._places:
            return name
        return next((name.removesuffix(end) for end in _SUFFIXES[self.layout] if name.endswith(end)), name)

    def split(self, seed: int = 0, share: float = 0.2) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names that train and that judge: of ``ImageSets``, else a seeded share of the labelled scans.

        Where one list is there alone, the other part is what it leaves (``val.txt``), or a share of it (``train.txt``).
        A list may name scans without a label: they would be learnt as empty streets, and are left out.
        """
        train, val = self.listed("train"), self.listed("val")
        there = set(self.labelled())
        if val and not train:
            train = tuple(n for n in self.names if n not in set(val))
        if train and val:
            return tuple(n for n in train if n in there), tuple(n for n in val if n in there)
        names = tuple(n for n in train or self.names if n in there)
        order = np.random.default_rng([seed, 22]).permutation(len(names))
        held = set(order[: max(1, round(share * len(names)))].tolist()) if len(names) > 1 else set()
        return (
            tuple(n for i, n in enumerate(names) if i not in held),
            tuple(n for i, n in enumerate(names) if i in held),
        )

    def _lists(self, part: str) -> list[Path]:
        return [
            place / "ImageSets" / f"{part}.txt" for place in (self.root, self.scans.parent, self.scans.parent.parent)
        ]


def open_data(folder: str | Path, view: Literal["full", "camera"] = "full") -> DetectionData:
    """Look at a folder of scans.

    Parameters
    ----------
    folder
        KITTI (``velodyne``, ``label_2``, ``calib``, under ``training`` or right here), OpenPCDet's custom layout
        (``points`` as ``.npy`` or ``.bin``, ``labels``), sweeps (``.pcd.bin`` in ``samples`` or ``sweeps``, or in
        ``LIDAR_TOP`` below them as nuScenes has it, ``boxes`` with JSON), or a folder of ``.pcd.bin``, ``.bin`` or
        ``.npy`` files; or one such file.
    view
        ``camera`` drops points that the camera does not see.

    Raises
    ------
    FewerError
        When there is no scan.
    """
    root = Path(folder)
    if root.is_file():
        return _single(root, view)
    if not root.is_dir():
        raise FewerError(f"{folder} does not exist; give a folder of scans")
    places = [root, *(root / name for name in ("training", "testing") if (root / name).is_dir())]
    for place in places:
        if (place / "velodyne").is_dir():
            return _opened(root, "kitti", place / "velodyne", place / "label_2", place / "calib", view)
    if (root / "points").is_dir():
        return _opened(root, "custom", root / "points", root / "labels", None, view)
    if (sweeps := sweeps_below(root)) is not None:
        return _opened(root, "sweeps", sweeps, root / "boxes", None, view)
    return _opened(root, "scans", root, None, None, view)


def _single(file: Path, view: Literal["full", "camera"]) -> DetectionData:
    """One scan of a folder, with its label and calibration where it stands in a known layout."""
    suffix = next((end for end in (".pcd.bin", ".bin", ".npy") if file.name.endswith(end)), None)
    if suffix is None:
        raise FewerError(f"{file} is no scan; give a .bin, .pcd.bin or .npy file, or a folder of them")
    above = file.parent.parent if file.parent.name in ("velodyne", "points") else file.parent
    whole = open_data(above, view)
    if file in whole.files:
        return replace(whole, names=(whole.names[whole.files.index(file)],), files=(file,))
    layout: Layout = "sweeps" if suffix == ".pcd.bin" else "scans"
    return DetectionData(file.parent, layout, file.parent, None, None, (file.name[: -len(suffix)],), (file,))


def sweeps_below(root: Path) -> Path | None:
    """The folder of nuScenes' sweeps below one, or itself; None where there is none.

    Key frames (``samples``) come first: they are the ones that are annotated.
    """
    below = [root / name / sensor for name in ("samples", "sweeps") for sensor in ("", "LIDAR_TOP")]
    return next(
        (place for place in [*below, root, root / "LIDAR_TOP"] if place.is_dir() and any(place.glob("*.pcd.bin"))), None
    )


def _opened(
    root: Path,
    layout: Layout,
    scans: Path,
    labels: Path | None,
    calibrations: Path | None,
    view: Literal["full", "camera"],
) -> DetectionData:
    there = [p for p in scans.iterdir() if not p.name.startswith(".")]
    suffixes = _SUFFIXES[layout]
    suffix = next((end for end in suffixes if any(p.name.endswith(end) for p in there)), suffixes[0])
    files = sorted(p for p in there if p.name.endswith(suffix))
    if not files:
        raise FewerError(
            f"{scans} holds no scan ({' or '.join('*' + end for end in suffixes)}); known are KITTI (velodyne/*.bin), "
            "OpenPCDet (points/*.npy) and sweeps (sweeps/*.pcd.bin)"
        )
    annotated = labels if labels is not None and labels.is_dir() else None
    matrices = calibrations if calibrations is not None and calibrations.is_dir() else None
    names = tuple(p.name[: -len(suffix)] for p in files)
    if view == "camera" and matrices is None:
        raise FewerError(f"{root} has no folder calib, so the camera's view is not known; take the whole scans")
    return DetectionData(root, layout, scans, annotated, matrices, names, tuple(files), view)
