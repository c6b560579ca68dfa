"""Vectors of a pool in one flat file that grows, is never loaded whole, and survives an interruption."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fewer.core.errors import FewerError
from fewer.core.files import explain_os_error, own_file

__all__ = ["VectorFile"]


class VectorFile:
    """N vectors of d floats, row after row, in little-endian order and without a header.

    Rows are written with plain writes and read through a memory map: a full disk is then an error that can be told,
    and not a crash of whoever touches the map.

    Parameters
    ----------
    path
        The file.
    dim
        Floats per vector.
    dtype
        ``float32`` or ``float16``.

    Examples
    --------
    >>> import tempfile
    >>> file = VectorFile(Path(tempfile.mkdtemp()) / "vectors.f32", 3)
    >>> file.reserve(2)
    >>> file.write(1, np.ones((1, 3)))
    >>> np.asarray(file.read(2)).tolist()
    [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    """

    def __init__(self, path: str | Path, dim: int, dtype: str = "float32") -> None:
        self.path, self.dim = Path(path), dim
        self.dtype = np.dtype(dtype).newbyteorder("<")
        if dtype not in ("float32", "float16") or dim < 1:
            raise FewerError(f"vectors are float32 or float16 with at least one number each; got {dtype} and {dim}")

    @property
    def row_bytes(self) -> int:
        """Bytes of one vector."""
        return self.dim * self.dtype.itemsize

    def reserve(self, rows: int) -> None:
        """Make room for that many rows now, so that a full disk is told before the work and not in the midst of it.

        Rows that are there already stay; new ones are zero until they are written.

        Raises
        ------
        FewerError
            When the disk has not enough space or the file cannot be made.
        """
        wanted = rows * self.row_bytes
        try:
            own_file(self.path)
            handle = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise explain_os_error(error, self.path) from error
        before = os.fstat(handle).st_size
        try:
            if wanted > before:
                os.posix_fallocate(handle, before, wanted - before)
        except OSError as error:
            os.ftruncate(handle, before)
            raise explain_os_error(error, self.path) from error
        finally:
            os.close(handle)

    def write(self, start: int, vectors: np.ndarray) -> None:
        """Write rows from ``start`` on and wait until they are on the disk.

        Raises
        ------
        FewerError
            When the vectors have another width, or the disk is full.
        """
        values = np.asarray(vectors)
        if values.ndim != 2 or values.shape[1] != self.dim:
            raise FewerError(f"vectors of shape {values.shape} do not fit into {self.path} with {self.dim} columns")
        data = np.ascontiguousarray(values, dtype=self.dtype).data.cast("B")
        try:
            handle = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW)
            try:
                place = start * self.row_bytes
                while data:
                    written = os.pwrite(handle, data, place)
                    place, data = place + written, data[written:]
                os.fdatasync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise explain_os_error(error, self.path) from error

    def read(self, rows: int) -> np.ndarray:
        """Map the first rows for reading: [rows, d].

        Raises
        ------
        FewerError
            When the file is missing or holds fewer rows.
        """
        try:
            held = self.path.stat().st_size // self.row_bytes
            if held < rows:
                raise FewerError(f"{self.path} holds {held} vectors, {rows} are needed; embed the pool again")
            return np.memmap(self.path, self.dtype, "r", shape=(rows, self.dim))
        except OSError as error:
            raise explain_os_error(error, self.path, "read") from error
