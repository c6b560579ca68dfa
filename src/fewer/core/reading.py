"""Reading files that anyone may have made: checked for kind and size first, and every mistake told in one sentence."""

from __future__ import annotations

import io
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error
from fewer.core.memory import free_memory

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "DEPTH",
    "TEXT_LIMIT",
    "check_ordinary",
    "check_size",
    "data_limit",
    "map_array",
    "nested",
    "parse_json",
    "read_array",
    "read_arrays",
    "read_bytes",
    "read_json",
    "read_member",
    "read_text",
    "refusing",
]

TEXT_LIMIT = 64 * 2**20
"""Bytes of the longest text that is read: the recipe of a network of ten thousand layers has a few megabytes."""

DEPTH = 100
"""How deeply lists and objects of a JSON file may lie in each other."""

_HALF = re.compile(r"\\u[dD][89abcdefABCDEF]")  # half of a character: it cannot be printed or written again


@contextmanager
def refusing(what: str, advice: str = "") -> Iterator[None]:
    """Turn whatever a damaged file makes of the code that reads it into one sentence.

    Examples
    --------
    >>> with refusing("plan.json", "plan again"):
    ...     [1, 2]["a"]
    Traceback (most recent call last):
    fewer.core.errors.FewerError: plan.json is damaged (list indices must be integers or slices, not str); plan again
    """
    try:
        yield
    except FewerError:
        raise
    except OSError as error:
        raise explain_os_error(error, Path(what), "read") from error
    except MemoryError as error:
        raise FewerError(
            f"{what} does not fit into the memory of this machine" + (f"; {advice}" if advice else "")
        ) from error
    except Exception as error:  # whatever a decoder or a parser raises
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FewerError(f"{what} is damaged ({reason})" + (f"; {advice}" if advice else "")) from error


def check_ordinary(path: str | Path) -> None:
    """Raise a :class:`FewerError` for a pipe or a device, which a decoder would read without end or wait for.

    A file that is not there is told by whoever opens it.

    Examples
    --------
    >>> check_ordinary("/dev/zero")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: /dev/zero is no ordinary file, so it is not read
    """
    with suppress(OSError, ValueError):
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (a path that is text)
            raise FewerError(f"{path} is no ordinary file, so it is not read")


def check_size(size: int, limit: int, what: str) -> None:
    """Raise a :class:`FewerError` when something would be larger than such things are.

    Examples
    --------
    >>> check_size(5 * 2**20, 2**20, "plan.json")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: plan.json has 5.2 MB; more than 1.0 MB are not read of such a file
    """
    if size > limit:
        raise FewerError(f"{what} has {size / 1e6:.1f} MB; more than {limit / 1e6:.1f} MB are not read of such a file")


def read_bytes(path: str | Path, limit: int = TEXT_LIMIT) -> bytes:
    """Read a whole file, if it is an ordinary one and not larger than it may be.

    A device or a pipe would give bytes without end, or never answer; neither is read.

    Raises
    ------
    FewerError
        When the file is missing, may not be read, is no ordinary file or is too large.

    Examples
    --------
    >>> read_bytes("/dev/zero")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: /dev/zero is no ordinary file, so it is not read
    """
    path = Path(path)
    try:
        with _ordinary(path, limit) as file:
            # Python takes memory for all that is asked for; a file that grows meanwhile is no way around the limit
            most = max(os.fstat(file.fileno()).st_size, 2**20)
            data = file.read(min(limit, most) + 1)
    except OSError as error:
        raise explain_os_error(error, path, "read") from error
    check_size(len(data), limit, str(path))
    return data


@contextmanager
def _ordinary(path: Path, limit: int) -> Iterator[BinaryIO]:
    """An open file that is no device or pipe, and not larger than it may be."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except ValueError as error:  # a null character in the name
        raise FewerError(f"{str(path)!r} is no name of a file: {error}") from None
    with os.fdopen(handle, "rb") as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise FewerError(f"{path} is no ordinary file, so it is not read")
        check_size(facts.st_size, limit, str(path))
        yield file


def data_limit() -> int:
    """Bytes that one file of a data set may have, unpacked: half of the free memory.

    Examples
    --------
    >>> data_limit() > 2**20
    True
    """
    return max(2**26, (free_memory() or 2**33) // 2)


def read_text(path: str | Path, limit: int = TEXT_LIMIT, what: str = "file of fewer") -> str:
    """Read UTF-8 text; see :func:`read_bytes`.

    Raises
    ------
    FewerError
        Also when the file is no text; the sentence then says that it is no ``what``.
    """
    try:
        return read_bytes(path, limit).decode("utf-8")
    except UnicodeDecodeError:
        raise FewerError(f"{path} is not a text file, so it is no {what}") from None


def parse_json(
    text: str | bytes,
    where: str,
    *,
    finite: bool = False,
    pairs: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Read JSON text that anyone may have made.

    Parameters
    ----------
    text
        UTF-8.
    where
        What the text is, for the message.
    finite
        Whether NaN and numbers too large for 64-bit floats are refused.
    pairs
        As ``object_pairs_hook`` of :func:`json.loads`.

    Raises
    ------
    FewerError
        When it is not JSON, is nested more than :data:`DEPTH` deep, or holds text or numbers that no file of fewer
        could hold.

    Examples
    --------
    >>> parse_json('{"seed": 3}', "the plan")
    {'seed': 3}
    >>> parse_json("[" * 200_000, "the plan")
    Traceback (most recent call last):
    fewer.core.errors.FewerError: the plan is nested more than 100 deep, as no file of fewer is
    """

    def constant(name: str) -> float:
        if finite:
            raise ValueError(f"it holds {name}, and every number must be finite")
        return float(name.replace("Infinity", "inf"))

    def number(digits: str) -> float:
        value = float(digits)
        if finite and math.isinf(value):
            raise ValueError(f"the number {digits[:20]} is too large")
        return value

    def whole(digits: str) -> int:
        if len(digits) > 40:
            raise ValueError(f"the number {digits[:20]}... is too large")
        return int(digits)

    try:
        value = json.loads(text, parse_constant=constant, parse_float=number, parse_int=whole, object_pairs_hook=pairs)
    except RecursionError:
        raise FewerError(f"{where} is nested more than {DEPTH} deep, as no file of fewer is") from None
    except ValueError as error:  # also where bytes are no UTF-8
        raise FewerError(f"{where} is not valid JSON: {error}") from None
    if _depth(value) > DEPTH:
        raise FewerError(f"{where} is nested more than {DEPTH} deep, as no file of fewer is")
    if _HALF.search(text if isinstance(text, str) else text.decode("utf-8", "replace")):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise FewerError(f"{where} is not valid JSON: it holds half of a character") from None
    return value


def _depth(value: Any) -> int:
    """Levels of lists and dictionaries, counted without recursion and no further than it matters."""
    level, depth = [value], 0
    while depth <= DEPTH:
        level = [one for one in level if isinstance(one, (dict, list))]
        if not level:
            return depth
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def read_json(path: str | Path, limit: int = TEXT_LIMIT, *, finite: bool = False) -> Any:
    """Read a JSON file; see :func:`read_bytes` and :func:`parse_json`."""
    return parse_json(read_bytes(path, limit), str(path), finite=finite)


def read_member(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Read one file of an archive, whose unpacked size is looked at first.

    Raises
    ------
    FewerError
        When it is missing, encrypted, damaged, or unpacks to more than ``limit`` bytes.
    """
    where = f"{archive.filename or 'the archive'}: {name}"
    with refusing(where):
        try:
            facts = archive.getinfo(name)
        except KeyError:
            raise FewerError(f"{archive.filename or 'the archive'} holds no {name}") from None
        if facts.flag_bits & 1:
            raise FewerError(f"{where} is encrypted; unpack it first")
        check_size(facts.file_size, limit, where)
        with archive.open(facts) as file:
            data = file.read(limit + 1)
        check_size(len(data), limit, where)
        return data


def read_arrays(
    path: str | Path, names: Collection[str] | None = None, limit: int | None = 2**28
) -> dict[str, np.ndarray]:
    """Read arrays from an ``.npz`` file, never a pickle.

    Parameters
    ----------
    path
        The file.
    names
        Those to read, where they are there; all by default.
    limit
        Bytes of all arrays together, unpacked; None for those of a data set (:func:`data_limit`).

    Raises
    ------
    FewerError
        When the file is missing, damaged, holds objects, or its arrays are larger than the limit.
    """
    limit = data_limit() if limit is None else limit
    found, room = {}, limit
    with refusing(str(path)), _ordinary(Path(path), limit) as file, zipfile.ZipFile(file) as archive:
        archive.filename = str(path)
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            if member == name or (names is not None and name not in names):
                continue
            raw = read_member(archive, member, room)
            room -= len(raw)
            found[name] = read_array(raw, f"{path}: {name}")
    return found


def map_array(path: str | Path) -> np.ndarray:
    """An ``.npy`` file as a memory map, which takes no memory until it is used, and never a pickle.

    Raises
    ------
    FewerError
        When the file is missing, damaged, no ordinary file, or holds no numbers.
    """
    import numpy as np

    with refusing(str(path)):
        with _ordinary(Path(path), 2**62):
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(found, np.ndarray):
            raise FewerError(f"{path} holds several arrays, not one; save it with numpy.save")
        if found.dtype.kind not in "fiub":
            raise FewerError(f"{path} holds {found.dtype}, not numbers")
        return found


def read_array(raw: bytes, where: str) -> np.ndarray:
    """One array from the bytes of an ``.npy`` file, whose header is held against its length before memory is taken.

    Raises
    ------
    FewerError
        When it is damaged, or holds Python objects.

    Examples
    --------
    >>> buffer = io.BytesIO()
    >>> import numpy as np
    >>> np.save(buffer, np.arange(3))
    >>> read_array(buffer.getvalue(), "x").tolist()
    [0, 1, 2]
    """
    import numpy as np  # here, so that reading a text file or showing help does not import it

    with refusing(where):
        file = io.BytesIO(raw)
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise FewerError(f"{where} is an array of the unknown version {version[0]}.{version[1]}")
        shape, by_column, dtype = read(file)
        if dtype.hasobject:
            raise FewerError(f"{where} holds Python objects, which are never read")
        held = len(raw) - file.tell()
        if any(size < 0 for size in shape) or math.prod(shape) * dtype.itemsize != held or dtype.itemsize == 0:
            raise FewerError(f"{where} is damaged: it says that it has the shape {shape}, but has {held} bytes")
        array = np.frombuffer(raw, dtype, offset=file.tell())
        return array.reshape(shape[::-1]).transpose() if by_column else array.reshape(shape)


def nested(value: Any, *keys: str) -> Any:
    """What lies under keys, one inside of the other; None where there is no such place, whatever the file holds.

    Examples
    --------
    >>> nested({"meta": {"task": "quality"}}, "meta", "task"), nested({"meta": "quality"}, "meta", "task")
    ('quality', None)
    """
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value
