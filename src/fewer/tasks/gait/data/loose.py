"""Sequences that are in no data set: files, videos and folders of masks, one by one."""

from __future__ import annotations

from pathlib import Path

from fewer.core.errors import FewerError
from fewer.tasks.gait.data.dataset import ARRAYS, GaitData, open_data, places_in
from fewer.tasks.gait.data.pictures import pictures_in
from fewer.tasks.gait.data.video import VIDEOS
from fewer.tasks.gait.protocols.records import Walk

__all__ = ["open_sequences"]


def open_sequences(place: str | Path) -> GaitData:
    """A data set, and whatever sequences else a file or folder holds; the person is then the file's name.

    Raises
    ------
    FewerError
        When there is none.

    Examples
    --------
    >>> open_sequences("no-such-place")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: no-such-place does not exist; give sequences of silhouettes, or a video
    """
    path = Path(place)
    if not path.exists():
        raise FewerError(f"{place} does not exist; give sequences of silhouettes, or a video")
    endings = {*ARRAYS, *VIDEOS}
    if path.is_file():
        if path.suffix.lower() not in endings:
            raise FewerError(f"{place} is no sequence; give a pkl, npz or video file, or a folder of mask images")
        return GaitData(path.parent, {_named(path): path})
    seen = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".")]
    found = {_named(p): p for p in seen if p.suffix.lower() in endings}
    folders = [p for p in sorted(path.iterdir()) if p.is_dir() and pictures_in(p)]
    found |= {_named(p): p for p in folders}
    if not found and pictures_in(path):
        found = {_named(path): path}
    return GaitData(path, {**places_in(path), **found}) if found else open_data(path)


def _named(path: Path) -> Walk:
    return Walk(path.stem if path.is_file() else path.name, "", "")
