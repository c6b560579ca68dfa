"""One image or mask file: PNG, TIFF, JPEG and BMP through Pillow, NIfTI through nibabel; with its place in space."""

from __future__ import annotations

import gzip
import json
import logging
import math
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error, flush_file
from fewer.core.memory import free_memory
from fewer.core.reading import check_ordinary, read_json
from fewer.data.decode import open_image, upright, without_alpha
from fewer.tasks.segment.geometry import place_of
from fewer.tasks.segment.picture import Picture

__all__ = ["LOSSLESS", "SUFFIXES", "Picture", "picture_stem", "read_picture", "suffix_of", "write_picture"]

NIFTI = (".nii.gz", ".nii")
TIFF = (".tif", ".tiff")
LOSSLESS = (".png", ".bmp", *TIFF, *NIFTI)
"""Endings that a mask may have: what compresses with loss invents labels."""
SUFFIXES = (*LOSSLESS, ".jpg", ".jpeg", ".webp")
"""Endings that an image may have."""


def suffix_of(path: Path) -> str:
    """The ending of a file in lower case; ``.nii.gz`` is one ending.

    Examples
    --------
    >>> suffix_of(Path("case_0000.NII.GZ"))
    '.nii.gz'
    """
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def picture_stem(path: Path) -> str:
    """The name of a file without its ending.

    Examples
    --------
    >>> picture_stem(Path("masks/case_7.nii.gz"))
    'case_7'
    """
    return path.name[: len(path.name) - len(suffix_of(path))]


def read_picture(path: str | Path, *, mask: bool = False) -> Picture:
    """Read one file.

    Values are kept as they are in the file (bytes, integers or floats). A picture is upright, as it is shown: the
    orientation of EXIF is applied, as :func:`fewer.data.decode.read_image` does. Transparency is laid on white, and a
    palette becomes colours. Of several pictures in one file the first is read, except that a TIFF of several pages is
    a volume. A NIfTI volume of one slice is a 2-D image; a fourth NIfTI axis holds channels, and colours are three. The
    spacing of a TIFF or PNG is that of a ``.json`` file of the same name (``{"spacing": [2.0, 0.5, 0.5]}``, as nnU-Net
    has it), if there is one.

    Parameters
    ----------
    mask
        The file holds class numbers: those of a palette are kept, and so is every channel.

    Raises
    ------
    FewerError
        When the file is missing, damaged, or of a kind that is not read.

    Examples
    --------
    >>> import tempfile
    >>> from PIL import Image
    >>> path = Path(tempfile.mkdtemp()) / "a.png"
    >>> Image.new("RGB", (5, 3)).save(path)
    >>> read_picture(path).array.shape
    (3, 3, 5)
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in SUFFIXES:
        raise FewerError(f"{path} cannot be read as an image; known endings are {', '.join(SUFFIXES)}")
    check_ordinary(path)
    try:
        found = _read_nifti(path) if suffix in NIFTI else _read_pillow(path, mask)
        return _whole(found) if mask else found
    except FewerError:
        raise
    except FileNotFoundError as error:
        raise explain_os_error(error, path, "read") from None
    except Exception as error:  # a broken file can make a decoder raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FewerError(f"{path} cannot be read ({reason}); replace or remove the file") from error


ROUNDING = 1e-3
"""What class numbers that were saved as floats, or with a slope, may be off by."""


def _whole(picture: Picture) -> Picture:
    """Class numbers without the rounding of a file that holds them as floats; fractions stay, and are told later."""
    if picture.array.dtype.kind != "f":
        return picture
    near = np.round(picture.array)
    off = np.abs(picture.array - near)
    return replace(picture, array=near) if bool((off <= ROUNDING).all()) else picture


def _read_pillow(path: Path, mask: bool) -> Picture:
    from PIL import ImageSequence

    several = suffix_of(path) in TIFF  # elsewhere, further pictures are previews or an animation
    with open_image(path, pages=several) as file:
        pages = [_page(page, mask) for page in (ImageSequence.Iterator(file) if several else [file])]
    if len({page.shape for page in pages}) > 1:
        raise FewerError(f"{path} holds pages of different sizes; save each as a file of its own")
    array = pages[0] if len(pages) == 1 else np.stack(pages, axis=1)
    spacing = _sidecar(path, array.ndim - 1)
    return Picture(array, spacing or (1.0,) * (array.ndim - 1), spaced=spacing is not None)


def _page(image: Any, mask: bool) -> np.ndarray:
    image = upright(image)
    if mask and image.mode in ("P", "PA"):
        # a palette of few colours is a drawing of classes, whose numbers count; one of many is a photo
        numbers = np.asarray(image.getchannel(0) if image.mode == "PA" else image)
        return numbers[None] if len(np.unique(numbers)) <= 32 else np.moveaxis(np.asarray(image.convert("RGB")), -1, 0)
    if not mask:
        image = without_alpha(image)
    if image.mode not in ("1", "L", "LA", "RGB", "RGBA", "F") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    array = np.asarray(image)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)


def _sidecar(path: Path, axes: int) -> tuple[float, ...] | None:
    stem = picture_stem(path)
    for name in (stem, stem[:-5] if stem[-5:-4] == "_" and stem[-4:].isdecimal() else stem):
        file = path.with_name(f"{name}.json")
        if len(os.fsencode(file.name)) <= 255 and file.is_file():  # of a longer name there is no file
            try:
                values = read_json(file)["spacing"]
                spacing = tuple(float(value) for value in values)
            except (ValueError, KeyError, TypeError):
                raise FewerError(f'{file} must hold a spacing in mm, for example {{"spacing": [1.0, 0.5]}}') from None
            if len(spacing) != axes or not all(math.isfinite(value) and value > 0 for value in spacing):
                raise FewerError(f"{file} gives the spacing {values}; {path.name} needs {axes} positive numbers")
            return spacing
    return None


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise FewerError("NIfTI files need nibabel: pip install 'fewer[medical]'") from error
    # it tells what it mends in a header in lines without the name of the file; what matters is told by us
    logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)
    return nibabel


def _check_volume(path: Path, file: Any) -> None:
    """Hold the size that a header claims against the file and the memory, before that much is taken."""
    claimed = math.prod(int(size) for size in file.shape) * file.dataobj.dtype.itemsize
    held = path.stat().st_size
    most = held if suffix_of(path) == ".nii" else 1032 * held  # the most that deflate makes of a byte
    if claimed > most:
        raise FewerError(f"{path} says that it holds {claimed / 1e6:.0f} MB of voxels, but is too short for that")
    room = free_memory()
    if room is not None and claimed > room // 3:
        raise FewerError(f"{path} unpacks to {claimed / 1e6:.0f} MB, and {room / 1e6:.0f} MB of memory are free")


def _read_nifti(path: Path) -> Picture:
    if not path.is_file():
        raise FileNotFoundError(2, "missing", str(path))
    file: Any = _nibabel().load(path)
    scaled = file.dataobj.slope not in (1, None) or file.dataobj.inter not in (0, None)
    _check_volume(path, file)
    array = _channels_last(np.asarray(file.dataobj), path)
    if suffix_of(path) == ".nii.gz":
        _check_archive(path)
    if scaled:
        array = array.astype(np.float32)
    space = (*array.shape[:-1], 1, 1, 1)[:3]
    _as_written(file, path)
    spacing, affine, doubt = place_of(file.header, space, str(path))
    axes = array.ndim - 1
    if axes == 3 and space[2] == 1:
        array, axes = array[:, :, 0], 2
    return Picture(np.moveaxis(array, -1, 0), spacing[:axes], affine, True, doubt)


def _as_written(file: Any, path: Path) -> None:
    """Put back a spacing of 0, which nibabel turns into one of 1 mm, where the spacing is all that is told of space."""
    header = file.header
    if not (int(header["sform_code"]) or int(header["qform_code"])):
        with _nibabel().openers.ImageOpener(path) as raw:
            header["pixdim"][1:4] = type(header).from_fileobj(raw, check=False)["pixdim"][1:4]


def _check_archive(path: Path) -> None:
    """Read an archive to its end, where its checksum is: nibabel stops at the last voxel, and never sees that."""
    with gzip.open(path) as archive:
        try:
            while archive.read(2**22):
                pass
        except gzip.BadGzipFile as error:
            if "Not a gzipped file" not in str(error) or not archive.tell():  # padding behind the archive is harmless
                raise


def _channels_last(array: np.ndarray, path: Path) -> np.ndarray:
    """The voxels of a NIfTI file with one axis for channels behind those of space."""
    if array.dtype.names is not None:  # colours (RGB24, RGBA32) are a record for each voxel
        if tuple(array.dtype.names[:3]) != ("R", "G", "B"):
            raise FewerError(f"{path} holds records of {', '.join(array.dtype.names)}; only numbers and RGB are read")
        colours = np.stack([array[name] for name in ("R", "G", "B")], axis=-1)
        if array.ndim > 3 and any(n > 1 for n in array.shape[3:]):
            raise FewerError(f"{path} holds several volumes in colour; save each as a file of its own")
        return colours.reshape(*array.shape[:3], 3)
    if array.dtype.kind not in "iufb":
        raise FewerError(f"{path} holds values of the kind {array.dtype}; only real numbers and RGB are read")
    while array.ndim > 4 and array.shape[3] == 1:  # the fifth axis holds a vector for each voxel
        array = array[:, :, :, 0]
    while array.ndim > 4 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3, 4):
        raise FewerError(f"{path} has {array.ndim} axes; a volume has 3, and a fourth for channels")
    return array if array.ndim == 4 else array[..., None]


def write_picture(path: str | Path, array: np.ndarray, like: Picture | None = None) -> Path:
    """Write an array so that it lies where another picture lies.

    Parameters
    ----------
    path
        Its ending decides the kind: ``.png`` (2-D), ``.tif`` (2-D and 3-D) or ``.nii.gz``.
    array
        Shape ``(*space)`` for a mask or a grey image, or ``(channels, *space)``; integers are kept, floats become
        float32.
    like
        Gives affine and spacing.

    Raises
    ------
    FewerError
        When the kind cannot hold the array, or the disk cannot be written. Nothing half-written stays.

    Examples
    --------
    >>> import tempfile
    >>> path = write_picture(Path(tempfile.mkdtemp()) / "m.tif", np.ones((4, 5, 6), np.uint8))
    >>> read_picture(path).array.shape
    (1, 4, 5, 6)
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in LOSSLESS:
        raise FewerError(f"{path} cannot be written: lossless endings are {', '.join(LOSSLESS)}")
    # the ending comes last, since writers go by it
    temporary = path.with_name(f".{os.getpid()}.{secrets.token_hex(4)}.tmp{suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if suffix in NIFTI:
            _write_nifti(temporary, array, like)
        else:
            _write_pillow(temporary, array, path, array.ndim if like is None else len(like.space))
        flush_file(temporary)
        temporary.replace(path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        temporary.unlink(missing_ok=True)
    if suffix not in NIFTI and like is not None and like.spaced:
        from fewer.core.files import atomic_write_text

        atomic_write_text(path.with_name(f"{picture_stem(path)}.json"), json.dumps({"spacing": list(like.spacing)}))
    return path


def _write_nifti(path: Path, array: np.ndarray, like: Picture | None) -> None:
    nibabel = _nibabel()
    array = _narrow(array)
    space = len(like.space) if like is not None else array.ndim
    if like is not None and array.ndim == space + 1:  # channels go last
        array = np.moveaxis(array, 0, -1) if array.shape[0] > 1 else array[0]
    if space == 2:
        array = array[:, :, None]
    if like is not None and like.affine is not None:
        affine = like.affine
    else:
        steps = like.spacing if like is not None else ()
        affine = np.diag([*steps, *(1.0,) * (3 - len(steps)), 1.0])
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def _narrow(array: np.ndarray) -> np.ndarray:
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.itemsize == 8:
        return array.astype(np.int32)
    return array


def _write_pillow(temporary: Path, array: np.ndarray, path: Path, axes: int) -> None:
    from PIL import Image

    array = _narrow(array)
    if array.dtype.kind in "iu" and array.size and array.min() >= 0:
        array = array.astype(np.uint8 if array.max() < 256 else np.uint16 if array.max() < 65536 else np.int32)
    if array.ndim == axes + 1 and len(array) == 1:
        array = array[0]
    if array.ndim == 3 and axes == 2 and len(array) in (3, 4) and array.dtype == np.uint8:
        Image.fromarray(np.ascontiguousarray(np.moveaxis(array, 0, -1))).save(temporary)
        return
    if array.ndim > axes:
        raise FewerError(f"{path} cannot be written: {len(array)} channels fit into one file only as 8-bit colours")
    if suffix_of(path) not in TIFF and (array.dtype.kind == "f" or array.ndim > 2):
        what = "numbers with a fraction" if array.dtype.kind == "f" else "volumes"
        raise FewerError(f"{path} cannot be written: {suffix_of(path)} files do not hold {what}; use .nii.gz or .tif")
    pages = [array] if array.ndim == 2 else [np.ascontiguousarray(page) for page in array]
    images = [Image.fromarray(page) for page in pages]
    more: dict[str, Any] = {"save_all": True, "append_images": images[1:]} if len(images) > 1 else {}
    images[0].save(temporary, **more)
