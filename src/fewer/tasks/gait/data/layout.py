"""Where sequences lie in a folder, and whose they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from fewer.core.errors import FewerError
from fewer.core.files import files_below, unreadable
from fewer.core.reading import TEXT_LIMIT, read_json
from fewer.tasks.gait.data.pictures import PICTURES, pictures_in
from fewer.tasks.gait.data.video import VIDEOS
from fewer.tasks.gait.protocols.records import Walk

__all__ = ["ARRAYS", "FILES", "elsewhere", "idle", "is_part_of_a_set", "places_in", "sequence_in", "unread"]

ARRAYS = (".npz", ".pkl")
FILES = frozenset({*ARRAYS, *VIDEOS})
"""Endings of files that are a sequence each."""

RESULTS = "matches.json"
"""Of fewer predict, beside embeddings that are no walk: people write results into the folder of the data."""

LONE = "000"
"""The view of a sequence whose folder names none."""

_KIND = r"(nm|bg|cl)-?\d+|0[01]"
_VIEW = r"\d{3}"
_OUMVLP = re.compile(r"Silhouette_(\d{3})-(\d\d)", re.IGNORECASE)


def places_in(root: Path) -> dict[Walk, Path]:
    """Sequences of a folder: ``PERSON/KIND/VIEW``; of a person who has none so deep, ``PERSON/KIND``.

    A kind is then a folder with one sequence, a folder with a file for each view, or a file that is a sequence. The
    folders ``Silhouette_VIEW-KIND/PERSON``, in which OU-MVLP is distributed, are read as what they are.
    """
    found: dict[Walk, Path] = {}
    for place in sorted(root.glob("*/*/*")):
        names = place.relative_to(root).parts
        if place.is_dir() and not _hidden(names) and (sequence := sequence_in(place)) is not None:
            found[Walk(*names)] = sequence
    deep = {walk.person for walk in found}
    shallow = dict(_two_deep(root, deep))
    if not found and shallow and is_part_of_a_set(root, shallow):  # one person of a set, not a set of kinds
        return {}
    return found | shallow


def _two_deep(root: Path, known: set[str]) -> Iterator[tuple[Walk, Path]]:
    for person in _entries(root):
        if person.name in known or not person.is_dir() or (person / RESULTS).is_file():
            continue
        camera = _OUMVLP.fullmatch(person.name)
        for place in _entries(person):
            if place.is_file():
                if place.suffix.lower() in FILES:
                    yield Walk(person.name, place.stem, LONE), place
                continue
            for view, sequence in _in_kind(place):
                own = Walk(person.name, place.name, view)
                yield (Walk(place.name, camera[2], camera[1]) if camera else own), sequence


def _in_kind(place: Path) -> list[tuple[str, Path]]:
    """Sequences of a folder two deep by view: its only one, or files that are a view each."""
    files = [p for p in _entries(place) if p.suffix.lower() in FILES and p.is_file()]
    if len(files) > 1 and not _of_silhouettes(files, place):
        return [(file.stem, file) for file in files]
    sequence = sequence_in(place)
    return [] if sequence is None else [(LONE, sequence)]


def is_part_of_a_set(root: Path, shallow: Iterable[Walk]) -> bool:
    """Whether a folder is a person or a kind of a set, so that what lies in it are kinds and views and no persons.

    Names tell: those of CASIA-B and OU-MVLP are kinds and views, and so is all below a person whom the partition of the
    set names.
    """
    names = [(walk.person, walk.kind) for walk in shallow]
    if names and all(re.fullmatch(_KIND, first) and re.fullmatch(_VIEW, second) for first, second in names):
        return True
    views = {first for first, _ in names}
    of_a_kind = len(views) == len(names) > 0 and re.fullmatch(_KIND, root.absolute().name) is not None
    if of_a_kind and all(re.fullmatch(_VIEW, view) for view in views):
        return True
    return any(_named_in(place.parent, place.name) for place in (root.absolute(), root.absolute().parent))


def _named_in(folder: Path, person: str) -> bool:
    """Whether a partition of a folder names a person."""
    for path in folder.glob("*.json"):
        try:
            values = read_json(path, TEXT_LIMIT)
        except FewerError:
            continue
        lists = [values.get(key) for key in ("TRAIN_SET", "TEST_SET")] if isinstance(values, dict) else []
        if any(isinstance(names, list) and person in names for names in lists):
            return True
    return False


def _entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name; hidden files and folders are no part of a set."""
    try:
        return sorted(p for p in folder.iterdir() if not _hidden((p.name,)))
    except OSError as error:
        unreadable(error)


def _hidden(names: tuple[str, ...]) -> bool:
    return any(name.startswith(".") for name in names)


def sequence_in(place: Path) -> Path | None:
    """The array file of a folder (of several, that of silhouettes), the folder if it holds pictures, or its video."""
    files = [p for p in _entries(place) if p.is_file()]
    arrays = [p for p in files if p.suffix.lower() in ARRAYS]
    if arrays:
        return (_of_silhouettes(arrays, place) or arrays)[0]
    if pictures_in(place):
        return place
    return next((p for p in files if p.suffix.lower() in VIDEOS), None)


def _of_silhouettes(files: list[Path], place: Path) -> list[Path]:
    """Arrays whose name says that they are silhouettes, beside those of other things."""
    return [p for p in files if p.suffix.lower() in ARRAYS and ("sil" in p.stem.lower() or p.stem == place.name)]


def _of_sequences(root: Path) -> list[Path]:
    """Files below a folder that sequences could be made of, relative to it; hidden ones are none."""
    names = (p.relative_to(root) for p in files_below(root) if p.suffix.lower() in {*FILES, *PICTURES})
    return [name for name in names if not _hidden(name.parts)]


def elsewhere(root: Path) -> str:
    """What to do about a folder whose sequences, if there are any, lie at another depth."""
    wanted = "PERSON/KIND/VIEW with a pkl or npz file, mask images or a video"
    seen = next(iter(_of_sequences(root)), None)
    depth = 3 if seen is None else len(seen.parts) - 1
    if seen is None or depth == 3:
        return f"give a folder {wanted}"
    if depth > 3:
        return f"its files lie too deep, such as {seen}: give {root.joinpath(*seen.parts[: depth - 3])}"
    if depth == 2:
        return f"{root.name} is one person of a set, such as {seen}: give {root.absolute().parent}"
    below = "" if seen.suffix.lower() in FILES else "nm-01/000/"
    return f"its files lie too high, such as {seen}: give each person a folder in it, such as PERSON/{below}{seen.name}"


def unread(root: Path, places: dict[Walk, Path]) -> tuple[list[Path], list[Path]]:
    """Files that lie where no sequence is looked for, and those beside a file that is read; relative to the folder."""
    known = set(places.values())
    folders = {place for place in known if place.is_dir()}
    chosen = {place.parent for place in known if place.is_file() and len(place.relative_to(root).parts) > 2}
    lost, beside = [], []
    for name in _of_sequences(root):
        place = root / name
        if place in known or place.parent in folders:
            continue
        (beside if place.parent in chosen else lost).append(name)
    return lost, beside


def idle(root: Path, places: dict[Walk, Path]) -> list[str]:
    """Folders beside those of persons that hold no file that a sequence could be made of; results are none of them."""
    used = {place.relative_to(root).parts[0] for place in places.values() if place.is_relative_to(root)}
    others = [p for p in _entries(root) if p.is_dir() and p.name not in used and not (p / RESULTS).is_file()]
    return [p.name for p in others if not _of_sequences(p)]
