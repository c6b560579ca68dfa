"""Sequences that are in no data set: files, videos and folders of masks, one by one."""

from __future__ import annotations

from pathlib import Path

from fewer.core.errors import FewerError
from fewer.tasks.gait.data.dataset import GaitData, open_data
from fewer.tasks.gait.data.layout import FILES, is_part_of_a_set, places_in, sequence_in
from fewer.tasks.gait.data.pictures import pictures_in
from fewer.tasks.gait.protocols.records import Walk

__all__ = ["open_sequences"]


def open_sequences(place: str | Path) -> GaitData:
    """A data set, and whatever sequences else a file or folder holds; the person is then the file's name.

    The folder of one person of a set, or of one kind or view below it, is a part of the set.

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
    if path.is_file():
        if path.suffix.lower() not in FILES:
            raise FewerError(f"{place} is no sequence; give a pkl, npz or video file, or a folder of mask images")
        return GaitData(path.parent, {_named(path): path})
    seen = [p for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".")]
    found = {_named(p): p for p in seen if p.suffix.lower() in FILES}
    folders = [p for p in sorted(path.iterdir()) if p.is_dir() and pictures_in(p)]
    if not found and folders and is_part_of_a_set(path, map(_named, folders)):
        return GaitData(path, _part_of_a_set(path))
    found |= {_named(p): p for p in folders}
    if not found and pictures_in(path):
        found = {_named(path): path}
    if found:
        return GaitData(path, {**places_in(path), **found})
    part = {} if places_in(path) else _part_of_a_set(path)
    return GaitData(path, part) if part else open_data(path)


def _part_of_a_set(path: Path) -> dict[Walk, Path]:
    """Sequences of one person, of one kind, or of one view, whose folder was given in place of the whole set."""
    names = path.absolute().parts
    for deeper in (2, 1, 0):
        above = names[len(names) - (3 - deeper) :]
        places = sorted(path.glob("/".join("*" * deeper))) if deeper else [path]
        found = {}
        for place in places:
            sequence = sequence_in(place) if place.is_dir() else None
            if sequence is not None:
                person, kind, view = (*above, *place.relative_to(path).parts)
                found[Walk(person, kind, view)] = sequence
        if found:
            return found
    return {}


def _named(path: Path) -> Walk:
    return Walk(path.stem if path.is_file() else path.name, "", "")
