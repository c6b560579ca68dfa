"""Labels that come back: from Label Studio, COCO, CVAT, a folder of masks, or a list of names."""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error
from fewer.core.reading import parse_json, read_bytes, read_member, refusing
from fewer.data.images import SUFFIXES
from fewer.selection.cvat import read_cvat

__all__ = ["Names", "Returned", "read_labels"]

_LIMIT = 2**29  # bytes of the largest file of labels
_MASKS = (*SUFFIXES, ".npy")
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file


@dataclass(frozen=True)
class Returned:
    """Labels that were given back.

    Attributes
    ----------
    labels
        For each labelled image of the pool its class, or None where the label is a mask, a box or a polygon.
    unknown
        Names in the file that are none of the pool's.
    kind
        ``labelstudio``, ``coco``, ``cvat``, ``masks`` or ``list``.
    """

    labels: dict[str, str | None]
    unknown: list[str]
    kind: str


class Names:
    """Finds the image of a pool that a path in someone else's file means.

    The longest common end of the paths decides, if it fits one image only.

    Examples
    --------
    >>> names = Names(["a/1.png", "b/1.png", "b/2.png"])
    >>> names.find("/mnt/pool/b/1.png"), names.find("2.png"), names.find("1.png")
    ('b/1.png', 'b/2.png', None)
    """

    def __init__(self, names: Sequence[str], *, by_stem: bool = False) -> None:
        self.by_stem = by_stem
        self.known = {self._form(name): name for name in names} if not by_stem else {}
        self.ends: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self.ends[self._form(name).rsplit("/", 1)[-1]].append(name)

    def _form(self, name: str) -> str:
        return str(Path(name).with_suffix("").as_posix()) if self.by_stem else Path(name).as_posix()

    def find(self, path: str) -> str | None:
        """The image's name in the pool, or None where none or several fit."""
        form = self._form(path)
        if form in self.known:
            return self.known[form]
        last = form.rsplit("/", 1)[-1]
        found = self.ends.get(last) or self.ends.get(_UPLOAD.sub("", last), [])
        if len(found) > 1:
            parts = form.split("/")
            common = {name: _common_end(self._form(name).split("/"), parts) for name in found}
            best = max(common.values())
            found = [name for name in found if common[name] == best]
        return found[0] if len(found) == 1 else None


def _common_end(a: list[str], b: list[str]) -> int:
    count = 0
    while count < min(len(a), len(b)) and a[-1 - count] == b[-1 - count]:
        count += 1
    return count


def read_labels(source: str | Path, root: Path, names: Sequence[str]) -> Returned:
    """Read labels that were given back; what they are is seen from the file.

    Parameters
    ----------
    source
        A Label Studio export (``.json``, a list of tasks), a COCO file (``.json`` with ``images`` and ``annotations``),
        an export of CVAT (``.xml``, or the ``.zip`` that it comes in), a folder of masks whose names are those of the
        images, a table (``.csv`` with the columns ``name`` and, if there are classes, ``label``) or a list of names
        (``.txt``).
    root
        Folder of the pool, for the sizes of the images.
    names
        All images of the pool.

    Raises
    ------
    FewerError
        When the source cannot be read or is none of these, when none of its images is in the pool, or when a mask has
        another size than its image.

    Examples
    --------
    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "labels.csv"
    >>> _ = file.write_text("name,label\\na.png,crack\\n")
    >>> read_labels(file, file.parent, ["a.png", "b.png"]).labels
    {'a.png': 'crack'}
    """
    source = Path(source)
    with refusing(str(source), "export the labels again"):
        return _read(source, root, names)


def _read(source: Path, root: Path, names: Sequence[str]) -> Returned:
    if source.is_dir():
        return _told(source, "masks", _masks(source, root, names))
    text, suffix = _text(source)
    find = Names(names).find
    if suffix == ".xml":
        return _told(source, "cvat", _cvat(text, find, root, source))
    if suffix == ".json":
        data = parse_json(text, str(source))
        if isinstance(data, list):
            return _told(source, "labelstudio", _label_studio(data, find, source))
        if isinstance(data, dict) and isinstance(data.get("images"), list):
            return _told(source, "coco", _coco(data, find, root, source))
        raise FewerError(f"{source} is neither a Label Studio export (a list of tasks) nor COCO (images, annotations)")
    return _told(source, "list", _table(text, find, source))


def _told(source: Path, kind: str, pairs: Iterable[tuple[str, str | None, str | None]]) -> Returned:
    """Sort (name in the file, name in the pool, class) into labels and unknown names."""
    labels: dict[str, str | None] = {}
    unknown: list[str] = []
    for given, name, label in pairs:
        if name is None:
            unknown.append(given)
        else:
            labels[name] = label
    if unknown and not labels:
        raise FewerError(
            f"none of the {len(unknown)} images in {source} is in the pool; the first is {unknown[0]!r}, and names are "
            "compared from their end"
        )
    return Returned(labels, unknown, kind)


def _label_studio(tasks: list[Any], find: Any, source: Path) -> Iterable[tuple[str, str | None, str | None]]:
    for task in tasks:
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            raise FewerError(f"{source} is a list, but not one of Label Studio tasks: a task has the key 'data'")
        done = [a for a in task.get("annotations") or () if isinstance(a, dict) and not a.get("was_cancelled")]
        if not done:
            continue
        data = task["data"]
        given = str(data.get("fewer_name") or data.get("image") or next(iter(data.values()), ""))
        parsed = urlparse(given)
        path = unquote(parse_qs(parsed.query).get("d", [parsed.path or given])[0])
        choices = [
            result["value"]["choices"][0]
            for result in done[-1].get("result") or ()
            if result.get("type") == "choices" and result.get("value", {}).get("choices")
        ]
        yield given, find(path), str(choices[0]) if choices else None


def _coco(data: dict[str, Any], find: Any, root: Path, source: Path) -> Iterable[tuple[str, str | None, str | None]]:
    drawn = {annotation.get("image_id") for annotation in data.get("annotations") or ()}
    for image in data["images"]:
        if image.get("id") not in drawn:
            continue  # CVAT lists every image of a job, also those that nobody has looked at
        given = str(image.get("file_name", ""))
        name = find(given)
        if name is not None and image.get("width") and image.get("height"):
            _same_size(root / name, (int(image["width"]), int(image["height"])), f"{source} says that {given}")
        yield given, name, None


def _text(source: Path) -> tuple[str, str]:
    """What a file holds, or the one file of annotations in an archive, and its suffix in small letters."""
    try:
        data, suffix = read_bytes(source, _LIMIT), source.suffix.lower()
        if suffix == ".zip":
            room = max(2**26, 20 * len(data))  # a small archive that unpacks to gigabytes is no export of labels
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                archive.filename = str(source)
                inside = [name for name in archive.namelist() if name.lower().endswith((".xml", ".json"))]
                if len(inside) != 1:
                    raise FewerError(
                        f"{source} holds {len(inside)} files of annotations (.xml, .json), not one; unpack it, and "
                        "give the file or the folder of masks"
                    )
                data, suffix = read_member(archive, inside[0], room), Path(inside[0]).suffix.lower()
        return data.decode("utf-8-sig"), suffix
    except OSError as error:
        raise explain_os_error(error, source, "read") from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise FewerError(f"{source} is a damaged archive ({error}); export it again") from None
    except UnicodeDecodeError:
        raise FewerError(
            f"{source} is not a text file; labels come as .json, .xml, .zip, .csv, .txt or a folder of masks"
        ) from None


def _cvat(text: str, find: Any, root: Path, source: Path) -> Iterable[tuple[str, str | None, str | None]]:
    for image in read_cvat(text, source):
        name = find(image.name)
        if name is not None and image.size is not None:
            _same_size(root / name, image.size, f"{source} says that {image.name}")
        yield image.name, name, image.label


def _masks(folder: Path, root: Path, names: Sequence[str]) -> Iterable[tuple[str, str | None, str | None]]:
    find = Names(names, by_stem=True).find
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in _MASKS and not p.name.startswith("."))
    if not files:
        raise FewerError(f"the folder {folder} holds no mask; masks have the names of their images")
    for path in files:
        given = path.relative_to(folder).as_posix()
        name = find(given)
        if name is not None:
            _same_size(root / name, _mask_size(path), f"the mask {path}")
        yield given, name, None


def _mask_size(path: Path) -> tuple[int, int]:
    from PIL import Image

    try:
        if path.suffix.lower() == ".npy":
            import numpy as np

            # a map needs no memory, and a header that claims too much is an error of its own
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            return int(shape[-1]), int(shape[-2])
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, IndexError) as error:
        raise FewerError(f"the mask {path} cannot be read: {error}") from None


def _same_size(image: Path, size: tuple[int, int], who: str) -> None:
    from PIL import Image

    try:
        with Image.open(image) as opened:
            wanted = opened.size
            turned = opened.getexif().get(0x0112, 1) >= 5  # shown on its side
    except OSError:
        return  # gone or broken: it was told elsewhere
    if size not in (wanted, wanted[::-1] if turned else wanted):
        raise FewerError(
            f"{who} has {size[0]} x {size[1]} pixels, but its image {image.name} has {wanted[0]} x {wanted[1]}; "
            "export the masks at the images' own size"
        )


def _table(text: str, find: Any, source: Path) -> Iterable[tuple[str, str | None, str | None]]:
    rows = [row for row in csv.reader(text.splitlines()) if row and row[0].strip()]
    if not rows:
        raise FewerError(f"{source} is empty; write one image name per line")
    head = [cell.strip().lower() for cell in rows[0]]
    if "name" in head:
        at, label = head.index("name"), head.index("label") if "label" in head else None
        if label is None and "status" in head:  # our own queue.csv
            raise FewerError(f"{source} has no column 'label'; add one, and leave it empty where there is no label yet")
        for row in rows[1:]:
            value = row[label].strip() if label is not None and label < len(row) else None
            if label is None or value:
                yield row[at], find(row[at].strip()), value
    else:
        for row in rows:
            yield row[0], find(row[0].strip()), row[1].strip() or None if len(row) > 1 else None
