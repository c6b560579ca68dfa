"""Labels that come back: from Label Studio, COCO, CVAT, a folder of masks, or a list of names."""

from __future__ import annotations

import contextlib
import csv
import io
import re
import unicodedata
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error, files_below, real_path
from fewer.core.reading import check_ordinary, map_array, parse_json, read_bytes, read_member, refusing
from fewer.data.decode import open_image
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

    The very name is looked for first. Then one path must be the end of the other (a folder in front may be missing or
    more), also with backslashes, percent-encoding, or composed against decomposed letters. What fits several images
    alike fits none, so that nothing is labelled by accident.

    Parameters
    ----------
    names
        All images of the pool, by their paths in its folder.
    by_stem
        Whether the ending counts: that of a mask may be another one than that of its image.
    root
        Folder of the pool, for absolute paths.

    Examples
    --------
    >>> names = Names(["a/1.png", "b/1.png", "b/2 x.png"])
    >>> names.find("/mnt/pool/b/1.png"), names.find("2%20x.png"), names.find("1.png"), names.find("c/1.png")
    ('b/1.png', 'b/2 x.png', None, None)
    """

    def __init__(self, names: Sequence[str], *, by_stem: bool = False, root: Path | None = None) -> None:
        self.by_stem = by_stem
        self.roots = [] if root is None else [f"{place.as_posix()}/" for place in (root, real_path(root))]
        self.exact = set(names)
        self.ends: dict[str, list[str]] = defaultdict(list)
        for name in names:
            self.ends[self._form(name).rsplit("/", 1)[-1]].append(name)

    def _form(self, name: str) -> str:
        if self.by_stem:
            head, _, last = name.rpartition("/")
            stem = Path(last).stem if last else last
            name = f"{head}/{stem}" if head else stem
        return unicodedata.normalize("NFC", name.removeprefix("./"))

    def find(self, path: str) -> str | None:
        """The image's name in the pool, or None where none or several fit."""
        spellings = [path]
        spellings += [path[len(root) :] for root in self.roots if path.startswith(root)]
        if self.by_stem:  # a.jpg.png is the mask of a.jpg, also where there is an a.png
            whole = path[: len(path) - len(Path(path).suffix)]
            if whole in self.exact:
                return whole
        elif (found := next((one for one in spellings if one in self.exact), None)) is not None:
            return found
        spellings += [one.replace("\\", "/") for one in spellings]
        spellings += [unquote(one) for one in spellings]
        for find in (self._whole, self._end):
            found = {name for one in dict.fromkeys(spellings) for name in find(one)}
            if found:
                return found.pop() if len(found) == 1 else None
        return None

    def _whole(self, path: str) -> list[str]:
        form = self._form(path)
        return [name for name in self.ends.get(form.rsplit("/", 1)[-1], ()) if self._form(name) == form]

    def _end(self, path: str) -> list[str]:
        """Images whose path is the end of this one, or the other way round; the longest common end counts."""
        form = self._form(path)
        head, _, last = form.rpartition("/")
        known = self.ends.get(last, [])
        if not known and _UPLOAD.match(last):  # Label Studio keeps no folder of an upload
            return self.ends.get(_UPLOAD.sub("", last), [])
        if not head:
            return known
        fitting = [n for n in known if f"/{form}".endswith(f"/{self._form(n)}") or self._form(n).endswith(f"/{form}")]
        longest = max((self._form(name).count("/") for name in fitting), default=0)
        best = [name for name in fitting if self._form(name).count("/") == longest]
        # a bare name beside others of the same name in folders says nothing about a path in a foreign folder
        return best if longest or len(known) == len(best) else known


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
    find = Names(names, root=root).find
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
        elif name in labels and labels[name] != label:
            raise FewerError(
                f"{source} gives {name} two labels, {labels[name]!r} and {label!r}; leave the right one in it"
            )
        else:
            labels[name] = label
    if not labels and not unknown:
        raise FewerError(f"{source} holds no label of any image; label some, export again, and give that file")
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
        annotations = _rows(task.get("annotations") or [], "annotations", source)
        done = [a for a in annotations if not a.get("was_cancelled")]
        if not done:
            continue
        data = task["data"]
        if data.get("fewer_name"):  # a name of ours, not a URL
            given = _name(data["fewer_name"], "fewer_name", source)
            name = find(given)
        else:
            given = _name(data.get("image") or next(iter(data.values()), ""), "image", source)
            name = _by_url(given, find)
        results = _rows(done[-1].get("result") or [], "result", source)
        choices = {word for one in results if one.get("type") == "choices" for word in _chosen(one, given, source)}
        yield given, name, choices.pop() if len(choices) == 1 else None  # several are no one class


def _chosen(result: dict[str, Any], given: str, source: Path) -> list[str]:
    """The classes that a choice of Label Studio names; a choice without one is a label that got lost."""
    value = result.get("value")
    chosen = value.get("choices") if isinstance(value, dict) else None
    words = chosen if isinstance(chosen, list) and chosen else [chosen]
    if any(isinstance(one, bool) or not isinstance(one, (str, int, float)) or not str(one).strip() for one in words):
        raise FewerError(
            f"{source}: the choice for {given!r} names no class; choose one in Label Studio, or delete the annotation, "
            "and export again"
        )
    return [str(one) for one in words]


def _name(value: Any, key: str, source: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise FewerError(f"{source}: {key!r} must be the name of an image, and {str(value)[:40]!r} is none")
    return value


def _by_url(given: str, find: Any) -> str | None:
    """The image that a URL or a path of Label Studio means."""
    parsed = urlparse(given)
    query = next((part[2:] for part in parsed.query.split("&") if part.startswith("d=")), "")
    if query and given.startswith("/data/local-files"):
        return find(unquote(query))
    found = find(given)
    if found is None and parsed.scheme in ("http", "https", "s3", "gs", "azure-blob", "file"):
        found = find(unquote(parsed.path).lstrip("/"))
    return found


def _rows(value: Any, key: str, source: Path) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise FewerError(f"{source}: {key!r} must be a list of objects; export it again")
    return value


def _identity(row: dict[str, Any], key: str, source: Path) -> str:
    """An id as text: 1, 1.0 and "1" are one."""
    value = row.get(key)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value).strip() if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    if not text:
        raise FewerError(f"{source}: {key!r} must be a whole number or a text, and {str(value)[:40]!r} is neither")
    return text


def _coco(data: dict[str, Any], find: Any, root: Path, source: Path) -> Iterable[tuple[str, str | None, str | None]]:
    drawn = {_identity(row, "image_id", source) for row in _rows(data.get("annotations") or [], "annotations", source)}
    seen: dict[str, str] = {}
    for image in _rows(data["images"], "images", source):
        given, number = _name(image.get("file_name"), "file_name", source), _identity(image, "id", source)
        if seen.setdefault(number, given) != given:
            raise FewerError(f"{source} gives the id {number} to {seen[number]!r} and {given!r}; ids must differ")
        if number not in drawn:
            continue  # CVAT lists every image of a job, also those that nobody has looked at
        name = find(given)
        size = [_pixels(image.get(side), side, given, source) for side in ("width", "height")]
        if name is not None and size[0] and size[1]:
            _same_size(root / name, (size[0], size[1]), f"{source} says that {given}")
        yield given, name, None
    for number in sorted(drawn - seen.keys()):
        yield f"the image of id {number}", None, None


def _pixels(value: Any, side: str, given: str, source: Path) -> int:
    try:
        number = float(value or 0)
        if number != int(number):
            raise ValueError(number)
        return int(number)
    except (TypeError, ValueError, OverflowError):
        raise FewerError(f"{source} gives {given!r} the {side} {value!r}, which is no number of pixels") from None


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
    find = Names(names, by_stem=True, root=root).find
    files = [p for p in files_below(folder) if p.suffix.lower() in _MASKS and not p.name.startswith(".")]
    if not files:
        raise FewerError(f"the folder {folder} holds no mask; masks have the names of their images")
    for path in files:
        given = path.relative_to(folder).as_posix()
        name = find(given)
        if name is not None:
            if _alike(path, root / name):  # the folder of the pool, or that of the copies for annotators
                raise FewerError(f"{path} is the image itself and no mask of it; give the folder that holds the masks")
            _same_size(root / name, _mask_size(path), f"the mask {path}")
        yield given, name, None


def _alike(one: Path, other: Path) -> bool:
    """Whether two files hold the same."""
    with contextlib.suppress(OSError, FewerError):
        if one.stat().st_size == other.stat().st_size:
            return one.samefile(other) or read_bytes(one, _LIMIT) == read_bytes(other, _LIMIT)
    return False


def _mask_size(path: Path) -> tuple[int, int]:
    check_ordinary(path)
    try:
        if path.suffix.lower() == ".npy":
            shape = map_array(path).shape
            return int(shape[-1]), int(shape[-2])
        with open_image(path) as image:
            return image.size
    except (OSError, ValueError, IndexError) as error:
        raise FewerError(f"the mask {path} cannot be read: {error}") from None


def _same_size(image: Path, size: tuple[int, int], who: str) -> None:
    try:
        with open_image(image) as opened:
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
    # a name may hold what str.splitlines takes for the end of a line
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(cell.strip() for cell in row)]
    if not rows:
        raise FewerError(f"{source} is empty; write one image name per line")
    head = [cell.strip().lower() for cell in rows[0]]
    headed = "name" in head
    if headed:
        at, label = head.index("name"), head.index("label") if "label" in head else None
        if label is None and "status" in head:  # our own queue.csv
            raise FewerError(f"{source} has no column 'label'; add one, and leave it empty where there is no label yet")
    elif len(head) > 2:  # which of them is the class would be a guess
        raise FewerError(f"{source} has {len(head)} columns without a heading; name two of them 'name' and 'label'")
    else:
        at, label = 0, 1
    for row in rows[headed:]:
        value = row[label].strip() if label is not None and label < len(row) else ""
        if headed and label is not None and not value:
            continue  # no label yet
        if at >= len(row) or not row[at].strip():
            raise FewerError(f"{source}: the line {','.join(row)[:60]!r} names no image")
        yield row[at], _listed(row[at], find), value or None


def _listed(cell: str, find: Any) -> str | None:
    """The image of a cell: with the blanks around it where its name has such, else without."""
    found = find(cell)
    return found if found is not None or cell == cell.strip() else find(cell.strip())
