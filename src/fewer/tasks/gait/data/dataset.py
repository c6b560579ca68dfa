"""Folders of walks: ``ROOT/person/kind/view/``, as OpenGait lays them out, with arrays, mask images or a video.

Which folders are sequences is said by :mod:`fewer.tasks.gait.data.layout`.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes, atomic_write_text
from fewer.core.reading import TEXT_LIMIT, data_limit, read_arrays, read_bytes, read_json
from fewer.tasks.gait.data.layout import elsewhere, places_in
from fewer.tasks.gait.data.pictures import as_mask, pictures_in, read_mask, read_masks
from fewer.tasks.gait.data.silhouettes import SIZE, fills_height, treat_frames
from fewer.tasks.gait.data.video import VIDEOS, video_silhouettes
from fewer.tasks.gait.protocols.records import Walk
from fewer.tasks.pickles import unpickle_arrays

__all__ = [
    "GaitData",
    "as_input",
    "as_silhouettes",
    "cut_sides",
    "open_data",
    "read_partition",
    "read_sequence",
    "refuse_names",
    "write_partition",
    "write_sequence",
]

PARTITION = "partition.json"
WIDTH = 44
_CUT = ((SIZE, SIZE), (SIZE, WIDTH))


@dataclass(frozen=True, eq=False)
class GaitData:
    """Sequences of a folder.

    Attributes
    ----------
    root
        The folder.
    places
        Where each sequence is: a file of arrays, a video, or a folder of mask images.
    partition
        ``train``, ``test`` and ``probes``; identities, and names of probes.
    """

    root: Path
    places: dict[Walk, Path]
    partition: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def walks(self) -> list[Walk]:
        """All sequences, in order."""
        return sorted(self.places)

    @property
    def people(self) -> list[str]:
        """All identities, in order."""
        return sorted({walk.person for walk in self.places})

    def part(self, name: str) -> list[Walk]:
        """Sequences of the identities that ``train``, or of those that judge (``test``).

        By the partition file; without one, the first three fifths of the identities train, as 74 of 124 do in CASIA-B.
        """
        people = self.people
        if self.partition:
            chosen = set(self.partition[name])
        else:
            cut = max(1, round(0.6 * len(people)))
            chosen = set(people[:cut] if name == "train" else people[cut:])
        return [walk for walk in self.walks if walk.person in chosen]

    def frames(self, walk: Walk) -> np.ndarray:
        """Silhouettes uint8 (frames, 64, 64) of a sequence.

        Raises
        ------
        FewerError
            When the file cannot be read, or holds something else.
        """
        return read_sequence(self.places[walk])


def open_data(folder: GaitData | str | Path) -> GaitData:
    """List a folder of walks.

    Raises
    ------
    FewerError
        When there is no sequence in it.

    Examples
    --------
    >>> open_data("no-such-folder")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: no-such-folder does not exist; give a folder PERSON/KIND/VIEW of silhouettes
    """
    if isinstance(folder, GaitData):
        return folder
    root = Path(folder)
    if not root.is_dir():
        told = "is no folder" if root.exists() else "does not exist"
        raise FewerError(f"{folder} {told}; give a folder PERSON/KIND/VIEW of silhouettes")
    places = places_in(root)
    if not places:
        raise FewerError(f"{folder} holds no walks; {elsewhere(root)}")
    return GaitData(root, places, read_partition(root))


def refuse_names(data: GaitData) -> None:
    """Stop at names that no text file can hold, before anything is computed.

    Raises
    ------
    FewerError
        With the first such name.
    """
    for walk in data.walks:
        try:
            str(walk).encode()
        except UnicodeEncodeError:
            told = os.fsencode(str(walk)).decode("utf-8", "backslashreplace")
            raise FewerError(f"{told} has a name that is no valid UTF-8; rename its folder") from None


def read_partition(root: Path, limit: int = TEXT_LIMIT) -> dict[str, tuple[str, ...]]:
    """Who trains, who judges, and names of probes, of the first file of a folder that says so; else nothing.

    Raises
    ------
    FewerError
        When a JSON file of the folder is none, or is larger than the limit.
    """
    for path in sorted(p for p in root.glob("*.json") if not p.name.startswith(".")):
        values = read_json(path, limit)
        if isinstance(values, dict) and {"TRAIN_SET", "TEST_SET"} <= values.keys():
            lists = {"train": "TRAIN_SET", "test": "TEST_SET", "probes": "PROBE_SET"}
            for key in lists.values():
                if not isinstance(values.get(key, []), list):
                    raise FewerError(f"{path}: {key} is no list of names")
            found = {name: tuple(map(str, values.get(key, ()))) for name, key in lists.items()}
            both = set(found["train"]) & set(found["test"])
            if both:
                raise FewerError(f"{path}: the person {min(both)!r} trains and judges; each may be in one set only")
            return found
    return {}


def read_sequence(place: str | Path) -> np.ndarray:
    """Silhouettes uint8 (frames, 64, 64) of a pkl, npz or video file, or a folder of mask images.

    Pickles are read without running anything that stands in them: arrays only.

    Raises
    ------
    FewerError
        When it cannot be read, or is no sequence of silhouettes.
    """
    path = Path(place)
    if path.is_dir():
        return _from_pictures(path)
    if not path.is_file():
        raise FewerError(f"{path} does not exist; give a sequence")
    if path.suffix.lower() in VIDEOS:
        return video_silhouettes(path)
    if path.suffix.lower() == ".npz":
        values = _from_npz(path)
    elif path.suffix.lower() == ".pkl":
        try:
            values = unpickle_arrays(read_bytes(path, data_limit()))
        except FewerError as error:
            raise FewerError(f"{path}: {error}") from None
    else:
        raise FewerError(f"{path} is no sequence; give a pkl, npz or video file, or a folder of mask images")
    return as_silhouettes(values, str(path))


def _from_npz(path: Path) -> Any:
    try:
        found = read_arrays(path, limit=None)
    except FewerError as error:
        raise FewerError(f"{error}; write it again") from None
    if not found:
        raise FewerError(f"{path} holds no array; write it again")
    frames = next((array for array in found.values() if array.ndim == 3), next(iter(found.values())))
    return found.get("silhouettes", frames)


def _from_pictures(folder: Path) -> np.ndarray:
    paths = pictures_in(folder)
    if not paths:
        raise FewerError(f"{folder} holds no mask images; give a pkl, npz or video file, or a folder of mask images")
    if read_mask(paths[0]).shape in _CUT:  # as small as silhouettes, and few bytes: all of them are looked at
        masks = list(read_masks(paths))
        if len({mask.shape for mask in masks}) == 1:
            return as_silhouettes(np.stack(masks), str(folder))
    found, empty = treat_frames(read_masks(paths))
    if not len(found):
        raise FewerError(f"{folder} holds no person: all {empty} masks are empty, or hold several dark numbers")
    return found


def as_silhouettes(values: Any, told: str) -> np.ndarray:
    """Silhouettes uint8 (frames, 64, 64) of an array of masks of any size, values and numbers, or of a list of frames.

    Frames of 64 x 64 and 64 x 44 pixels whose height the person fills are silhouettes already; what else comes is a
    mask of a whole picture.

    Parameters
    ----------
    told
        What they are called where they are none.

    Raises
    ------
    FewerError
        When they are none.

    Examples
    --------
    >>> as_silhouettes(np.ones((2, 64, 44), bool), "it").shape
    (2, 64, 64)
    """
    if isinstance(values, (list, tuple)) and not values:
        raise FewerError(f"{told} holds no frame")
    if isinstance(values, (list, tuple)) and all(isinstance(v, np.ndarray) for v in values):
        sizes = {v.shape for v in values}
        if len(sizes) > 1:
            raise FewerError(
                f"{told} holds frames of several sizes ({len(sizes)}); give frames of one size, or a folder of pictures"
            )
        values = np.stack(values)
    if not isinstance(values, np.ndarray) or values.dtype == object or values.ndim != 3:
        found = getattr(values, "shape", type(values).__name__)
        raise FewerError(f"{told} holds {found}, not silhouettes of shape (frames, height, width)")
    if not values.size:
        raise FewerError(f"{told} holds no frame, or frames without a pixel: its shape is {values.shape}")
    try:
        values = as_mask(values)
    except FewerError as error:
        raise FewerError(f"{told} {error}, not silhouettes") from None
    if values.shape[1:] not in _CUT or not fills_height(values):
        values = treat_frames(values)[0]
        if not len(values):
            raise FewerError(f"{told} holds no person: all frames are empty")
    if not values.any():
        raise FewerError(f"{told} holds no person: all frames are empty")
    if values.shape[2] == WIDTH:  # cut already
        side = (SIZE - WIDTH) // 2
        values = np.pad(values, ((0, 0), (0, 0), (side, side)))
    return values


def as_input(frames: np.ndarray) -> np.ndarray:
    """Silhouettes as networks take them: float32 (frames, 64, 44), 0 to 1; ten columns are cut off at each side.

    Examples
    --------
    >>> float(as_input(np.full((2, 64, 64), 255, np.uint8)).max())
    1.0
    """
    return cut_sides(frames).astype(np.float32) / 255.0


def cut_sides(frames: np.ndarray) -> np.ndarray:
    """The 44 columns in the middle of silhouettes (frames, 64, 64), which are all that networks see.

    Examples
    --------
    >>> cut_sides(np.zeros((2, 64, 64), np.uint8)).shape
    (2, 64, 44)
    """
    side = (SIZE - WIDTH) // 2
    return frames[:, :, side : SIZE - side]


def write_sequence(
    root: str | Path, walk: Walk, frames: np.ndarray, *, form: str = "npz", facts: dict[str, Any] | None = None
) -> Path:
    """Write a sequence into a folder, as ``npz`` (ours) or ``pkl`` (for OpenGait).

    Parameters
    ----------
    root, walk
        Where to.
    frames
        uint8 (frames, 64, 64).
    form
        Of the file.
    facts
        Further arrays of an npz file, such as the known period of a simulated walk.
    """
    place = Path(root) / walk.person / walk.kind / walk.view
    place.mkdir(parents=True, exist_ok=True)
    if form == "pkl":
        return atomic_write_bytes(place / f"{walk.view}.pkl", pickle.dumps(np.ascontiguousarray(frames), protocol=4))
    import io

    buffer = io.BytesIO()
    arrays: dict[str, Any] = {"silhouettes": frames, **(facts or {})}
    np.savez_compressed(buffer, **arrays)
    return atomic_write_bytes(place / f"{walk.view}.npz", buffer.getvalue())


def write_partition(root: str | Path, train: Sequence[str], test: Sequence[str], probes: Sequence[str] = ()) -> Path:
    """Write a partition file as OpenGait reads it."""
    values: dict[str, Any] = {"TRAIN_SET": list(train), "TEST_SET": list(test)}
    if probes:
        values["PROBE_SET"] = list(probes)
    return atomic_write_text(Path(root) / PARTITION, json.dumps(values, indent=1) + "\n")
