"""A folder of images becomes one fixed tensor, with a reason for every file that could not be read."""

from __future__ import annotations

import hashlib
import math
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.core.files import unreadable
from fewer.core.subjects import draw_groups
from fewer.data.decode import check_header, random_box, read_image, to_array
from fewer.data.lazy import STREAM_BYTES, LazySamples
from fewer.data.preprocess import Preprocess
from fewer.data.samples import Samples, TensorSamples

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
_OTHERS = (
    ".gif .avif .heic .heif .jxl .jp2 .jpx .j2k .jfif .jpe .ppm .pgm .pbm .pnm .tga .psd .svg .ico .exr .hdr",
    ".dng .cr2 .cr3 .nef .arw .raf .orf .rw2 .raw",
)
_OTHER_PICTURES = frozenset(" ".join(_OTHERS).split())
_VIDEOS = frozenset([".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".3gp"])
_NOT_READ = {
    **dict.fromkeys(_OTHER_PICTURES, "pictures of the kind {} are not read; save it as PNG or JPEG"),
    **dict.fromkeys(_VIDEOS, "videos ({}) are not read; save frames of it as PNG or JPEG"),
}
"""Why a file that shows something is not among the images, by its ending."""
PARTS = ("calibration", "heldout")
_LARGEST = 8 << 30  # bytes; a larger tensor is surely a missing count

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class ImageSet:
    """Images as one tensor.

    Parameters
    ----------
    tensor : Tensor [N, C, H, W], float32
        Normalised images.
    files : list of Path
        The file of every row; empty when the images did not come from files.
    skipped : list of (Path, str)
        Files that could not be read, each with the reason.
    """

    tensor: Tensor
    files: list[Path] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.tensor)


def list_images(folder: PathLike) -> list[Path]:
    """All image files under a folder, in the order of their relative paths, whatever the file system says.

    Hidden files and folders are left out; linked folders are followed once.

    Raises
    ------
    FewerError
        When the folder is missing, is a file, holds no image, or may not be read (one in it neither).
    """
    return _listed(folder)[0]


def _listed(folder: PathLike) -> tuple[list[Path], list[Path]]:
    """What :func:`list_images` gives, and all other files."""
    root = Path(folder)
    if not str(folder).strip():  # as a path it is this folder
        raise FewerError("the name of the image folder is empty; give a folder of images")
    if len(os.fsencode(root.name)) > 255:
        raise FewerError(f"the name of the image folder has {len(root.name)} characters, which no folder has")
    if not root.exists():
        near = [p.name for p in root.parent.iterdir() if p.is_dir()] if root.parent.is_dir() else []
        raise FewerError(
            f"the image folder {root} does not exist{_nearest(root.name, near)}; give a folder of images "
            "(fewer demo photos writes one to try with)"
        )
    if not root.is_dir():
        raise FewerError(f"{root} is a file, not a folder of images; give {root.parent or '.'}")
    found: list[Path] = []
    others: list[Path] = []
    for path in _walk(root):
        (found if path.suffix.lower() in SUFFIXES else others).append(path)
    if not found:
        counts = Counter(path.suffix.lower() or "no suffix" for path in others)
        seen = ", ".join(f"{count} of {suffix}" for suffix, count in counts.most_common(3))
        what = f"only other files ({seen})" if others else "nothing"
        raise FewerError(f"the folder {root} holds {what}; give a folder of JPEG, PNG, BMP, TIFF or WebP images")
    return sorted(found, key=lambda path: path.relative_to(root).as_posix()), others


def _walk(root: Path, without: str = "") -> Iterator[Path]:
    """All files of a tree that are not hidden; linked folders once, and nothing of one folder by its real path."""
    visited = {without}
    for place, folders, names in os.walk(root, onerror=unreadable, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # a link back into the tree
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place) / name for name in names if not name.startswith("."))


def left_out(folder: PathLike, without: PathLike = "") -> tuple[list[tuple[str, str]], dict[str, int]]:
    """What :func:`list_images` does not list for its ending; of the folder ``without``, nothing is told.

    Returns
    -------
    pictures, others
        Pictures of other kinds, such as those of phones, and videos, by their names in the folder with the reason;
        and how many files of any other ending there are. Every verb that reads a folder of images names the first with
        what it skipped.
    """
    files = list(_walk(Path(folder), os.path.realpath(without) if without else ""))
    others = Counter(path.suffix.lower() or "no suffix" for path in files)
    for suffix in (*SUFFIXES, *_NOT_READ):
        others.pop(suffix, None)
    pictures = [(printable(path.relative_to(folder)).as_posix(), reason) for path, reason in _pictures(files)]
    return pictures, dict(sorted(others.items()))


def _pictures(files: Iterable[Path]) -> list[tuple[Path, str]]:
    """Those that are pictures or videos of a kind that is not read, with the reason."""
    kinds = ((path, path.suffix.lower()) for path in files)
    return sorted((path, _NOT_READ[kind].format(kind)) for path, kind in kinds if kind in _NOT_READ)


def why_no_name(name: str) -> str:
    """Why a file's name can stand in no report, table or export, in words; empty for a usual name.

    Examples
    --------
    >>> why_no_name("caf\\udce9.png"), why_no_name("caf\u00e9.png")
    ('its name is no valid UTF-8; rename the file', '')
    """
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        return "its name is no valid UTF-8; rename the file"
    if any(letter < " " or letter in "\x7f\ufffe\uffff" for letter in name):
        return "its name holds a control character; rename the file"
    return ""


def printable(path: PathLike) -> Path:
    """A path with what cannot be printed written as an escape."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return Path("".join(letter if letter >= " " else f"\\x{ord(letter):02x}" for letter in text))


def split_files(files: Sequence[Path], keys: Sequence[str], part: str, heldout: float = 0.25) -> list[Path]:
    """The calibration or the held-out part of a list of files.

    The split goes by file and by a hash of the names alone: no seed, no count and no order can move a file from one
    part into the other, and crops of one photo never stand on both sides.

    Parameters
    ----------
    files : sequence of Path
        All files.
    keys : sequence of str
        Names that are the same on every machine, one per file; files of one name are on one side, where there are two
        names or more.
    part : str
        ``calibration`` or ``heldout``.
    heldout : float
        Share of the files that is held out, 0 < heldout < 1.

    Raises
    ------
    FewerError
        For another part, a share outside (0, 1), or fewer than two files.
    """
    if part not in PARTS:
        raise FewerError(f"unknown part {part!r} of the images; it is {PARTS[0]!r} or {PARTS[1]!r}")
    if not 0 < heldout < 1:
        raise FewerError(f"the held-out share must lie between 0 and 1; got {heldout}")
    if len(files) < 2:
        raise FewerError(f"{len(files)} image cannot be split into calibration and held-out images; give at least 2")
    own = keys if len(set(keys)) > 1 else [f"{key} {i}" for i, key in enumerate(keys)]
    counts = Counter(own)
    order = sorted(counts, key=lambda key: hashlib.sha256(key.encode()).digest())
    sizes = [counts[key] for key in order]
    held = {order[i] for i in draw_groups(sizes, range(len(order)), max(1, round(heldout * len(files))))}
    return [path for path, key in zip(files, own, strict=True) if (key in held) == (part == "heldout")]


def load_images(
    folder: PathLike | Sequence[PathLike],
    count: int | None = None,
    seed: int = 0,
    preprocess: Preprocess | None = None,
    *,
    crops: int | None = 0,
    part: str | None = None,
    heldout: float = 0.25,
) -> ImageSet:
    """Read images into one tensor.

    Files are chosen before any is decoded, so a folder of millions costs only its listing. The same seed chooses the
    same files whatever order the file system lists them in. A file that cannot be read is skipped, and the next
    one takes its place.

    Parameters
    ----------
    folder : path, or sequence of paths
        A folder tree of JPEG, PNG, BMP, TIFF and WebP files, or the files themselves.
    count : int, optional
        Rows wanted at most; None takes all.
    seed : int
        Chooses files and crops.
    preprocess : Preprocess, optional
        ImageNet's with 224 x 224 pixels by default.
    crops : int
        0 resizes the shorter side and crops the centre. k takes k random crops of every file (20 to 100 % of the
        largest box of the input's aspect), so that few photos make many distinct images. None is 0 where there are
        enough files for ``count``, else as many crops of each file as reach it, from all files alike.
    part : str, optional
        ``calibration`` or ``heldout``: see :func:`split_files`.
    heldout : float
        Share of files in the held-out part.

    Returns
    -------
    ImageSet

    Raises
    ------
    FewerError
        When the folder is missing or holds no readable image, or the numbers make no sense.

    Examples
    --------
    >>> images = load_images("photos", count=64)  # doctest: +SKIP
    >>> images.tensor.shape, images.skipped  # doctest: +SKIP
    (torch.Size([64, 3, 224, 224]), [(PosixPath('photos/broken.jpg'), 'image file is truncated')])
    """
    draw = _Draw.of(folder, count, seed, preprocess, crops, part, heldout)
    if draw.bytes > _LARGEST:
        raise FewerError(
            f"{draw.rows} images of {draw.preprocess.input_size} do not fit in {_LARGEST >> 30} GiB; give a smaller "
            "count, or read them lazily with fewer.data.images.open_images"
        )
    tensor = torch.empty((draw.rows, *draw.preprocess.input_size))
    used: list[Path] = []

    def keep(path: Path, wanted: int) -> None:
        for array in _read(path, draw.preprocess, seed, draw.key_of[path], wanted):
            tensor[len(used)] = torch.from_numpy(array)
            used.append(path)

    skipped = draw.each(keep, lambda: len(used))
    return ImageSet(tensor[: len(used)], used, sorted(skipped))


def open_images(
    folder: PathLike | Sequence[PathLike],
    count: int | None = None,
    seed: int = 0,
    preprocess: Preprocess | None = None,
    *,
    crops: int | None = 0,
    part: str | None = None,
    heldout: float = 0.25,
    memory: int = STREAM_BYTES,
) -> Samples:
    """The images of :func:`load_images` as samples, read from disk where they would take too much memory.

    Parameters
    ----------
    folder, count, seed, preprocess, crops, part, heldout
        As for :func:`load_images`, with the same choice of files and crops.
    memory
        Bytes. Images that take more are read when they are needed, and so many bytes of them are kept. Then only the
        head of every chosen file is read at first; a file that turns out to be broken later is replaced by another one.

    Returns
    -------
    Samples

    Raises
    ------
    FewerError
        As :func:`load_images`.

    Examples
    --------
    >>> len(open_images("photos", count=5000))  # doctest: +SKIP
    5000
    """
    draw = _Draw.of(folder, count, seed, preprocess, crops, part, heldout)
    if draw.bytes <= memory:
        found = load_images(folder, count, seed, preprocess, crops=crops, part=part, heldout=heldout)
        return TensorSamples(found.tensor, found.files, found.skipped)
    wanted_of: dict[Path, int] = {}
    files: list[Path] = []
    rows: list[int] = []

    def keep(path: Path, wanted: int) -> None:
        check_header(path)
        wanted_of[path] = wanted
        files.extend([path] * max(1, wanted))
        rows.extend(range(max(1, wanted)))

    skipped = draw.each(keep, lambda: len(files))

    def read(path: Path) -> list[np.ndarray]:
        return _read(path, draw.preprocess, seed, draw.key_of[path], wanted_of[path])

    samples = LazySamples(files, read, rows, memory=memory)
    samples.skipped.extend(sorted(skipped))
    return samples


@dataclass(frozen=True)
class _Draw:
    """Which files are read, in which order, and how many images are wanted of them."""

    files: list[Path]
    key_of: dict[Path, str]
    where: str
    preprocess: Preprocess
    seed: int
    crops: int | None
    rows: int
    unfit: list[tuple[Path, str]]

    @classmethod
    def of(
        cls,
        folder: PathLike | Sequence[PathLike],
        count: int | None,
        seed: int,
        preprocess: Preprocess | None,
        crops: int | None,
        part: str | None,
        heldout: float,
    ) -> _Draw:
        if count is not None and count < 1:
            raise FewerError(f"the number of images must be at least 1; got {count}")
        if crops is not None and crops < 0:
            raise FewerError(f"the number of crops per image cannot be negative; got {crops}")
        if isinstance(folder, (str, os.PathLike)):
            files, others = _listed(folder)
            key_of = {path: path.relative_to(folder).as_posix() for path in files}
            where = f"the folder {folder}"
        else:
            files = [Path(path) for path in folder]
            key_of = {path: f"{path.parent.name}/{path.name}" for path in files}
            where, others = "the list of images", []
            if not files:
                raise FewerError("the list of images is empty; give at least one file")
        unfit = [(printable(path), reason) for path in files if (reason := why_no_name(key_of[path]))]
        files = [path for path in files if not why_no_name(key_of[path])]
        if not files:
            raise FewerError(f"none of the {len(unfit)} images of {where} can be used; of the first, {unfit[0][1]}")
        if part is not None:
            files = split_files(files, [key_of[path] for path in files], part, heldout)
        if crops is None and count is not None and count > len(files):
            rows = count
        else:
            crops = crops or 0
            rows = len(files) * max(1, crops)
            rows = rows if count is None else min(rows, count)
        unfit += [(printable(path), reason) for path, reason in _pictures(others)]
        return cls(files, key_of, where, preprocess or Preprocess(), seed, crops, rows, unfit)

    @property
    def bytes(self) -> int:
        """Of all images as float32."""
        return self.rows * 4 * int(np.prod(self.preprocess.input_size))

    def each(self, keep: Callable[[Path, int], None], kept: Callable[[], int]) -> list[tuple[Path, str]]:
        """Go through the files until there are images enough; those that ``keep`` cannot read, and why.

        ``keep(path, crops)`` takes the images of a file, and ``kept()`` says how many there are. The next file takes
        the place of one that cannot be read.
        """
        skipped: list[tuple[Path, str]] = []
        for seen, index in enumerate(np.random.default_rng(self.seed).permutation(len(self.files))):
            lacking = self.rows - kept()
            if lacking == 0:
                break
            path = self.files[index]
            # every file has its share of what is lacking, also of the share of one that could not be read
            share = math.ceil(lacking / (len(self.files) - seen))
            try:
                keep(path, share if self.crops is None else min(self.crops, lacking))
            except FewerError:
                raise
            except Exception as error:  # a broken file can make a decoder raise anything
                skipped.append((path, str(error) or type(error).__name__))
        if not kept():
            path, reason = skipped[0]
            raise FewerError(
                f"none of the {len(skipped)} images of {self.where} can be read; the first: {path.name}: {reason}"
            )
        return [*self.unfit, *skipped]


def _read(path: Path, preprocess: Preprocess, seed: int, key: str, crops: int) -> list[np.ndarray]:
    image = read_image(path)
    if crops == 0:
        return [to_array(image, preprocess)]
    # the generator depends on the file's own name, so that other files do not change its crops
    rng = np.random.default_rng([seed, zlib.crc32(key.encode())])
    shape = preprocess.input_size[1:]
    return [to_array(image, preprocess, random_box(image.size, shape, rng)) for _ in range(crops)]


def _nearest(name: str, known: list[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""
