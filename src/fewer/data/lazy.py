"""Samples that stay on disk: files are read when they are needed, and a stated number of bytes of them is kept."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from torch import Tensor

from fewer.core.errors import FewerError
from fewer.data.samples import Samples, leaves, map_tensors, stack

__all__ = ["STREAM_BYTES", "LazySamples"]

STREAM_BYTES = 1 << 30
"""Inputs that take more than this are read from disk again and again, and so much of them is kept."""


@dataclass(eq=False)
class _Shelf:
    """What was read, least recently used first, up to a number of bytes; shared by all slices of a set."""

    read: Callable[[Path], Any]
    limit: int
    kept: OrderedDict[Path, tuple[Any, int]] = field(default_factory=OrderedDict)
    used: int = 0
    reads: int = 0
    broken: dict[Path, str] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def get(self, path: Path) -> Any:
        with self.lock:  # one file at a time is decoded, whatever the number of threads
            if path in self.kept:
                self.kept.move_to_end(path)
                return self.kept[path][0]
            value = map_tensors(self.read(path), lambda t: t)
            self.reads += 1
            size = sum(t.numel() * t.element_size() for t in leaves(value))
            while self.kept and self.used + size > self.limit:
                self.used -= self.kept.popitem(last=False)[1][1]
            if size <= self.limit:
                self.kept[path] = (value, size)
                self.used += size
            return value


class LazySamples(Samples):
    """Samples that are read from files when a batch is made of them.

    Parameters
    ----------
    files
        The file of each sample.
    read
        ``read(path)`` gives the sample of a file: a tensor or array, or a nest of them; or, with ``rows``, all samples
        of that file, in a list. It should give the same whenever it is asked.
    rows
        Which of a file's samples each one is; None where a file holds one.
    memory
        Bytes of samples that are kept. A file that is decoded comes on top, one at a time.

    Notes
    -----
    A file that cannot be read when its turn comes gives its place to the first one that could be read, so that a run
    does not end after hours; ``skipped`` then names it.

    Examples
    --------
    >>> import numpy as np
    >>> names = [Path(f"{i}.npy") for i in range(4)]
    >>> samples = LazySamples(names, lambda path: np.full(3, float(path.stem)), memory=100)
    >>> samples[2:].batch().tolist()
    [[2.0, 2.0, 2.0], [3.0, 3.0, 3.0]]
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        read: Callable[[Path], Any],
        rows: Sequence[int] | None = None,
        *,
        memory: int = STREAM_BYTES,
    ) -> None:
        super().__init__()
        if not files:
            raise FewerError("there is no file to read samples from; give at least one")
        self.files = tuple(Path(file) for file in files)
        self.rows = tuple(rows) if rows is not None else None
        self._shelf = _Shelf(read, memory)
        self._changes: tuple[Callable[[Tensor], Tensor], ...] = ()

    @property
    def bytes_kept(self) -> int:
        """Bytes of samples that are in memory now."""
        return self._shelf.used

    @property
    def reads(self) -> int:
        """How often a file was read so far."""
        return self._shelf.reads

    def __len__(self) -> int:
        return len(self.files)

    def take(self, positions: Sequence[int]) -> LazySamples:
        rows = None if self.rows is None else tuple(self.rows[i] for i in positions)
        return self._twin(tuple(self.files[i] for i in positions), rows, self._changes)

    def _twin(self, files: tuple[Path, ...], rows: tuple[int, ...] | None, changes: Any) -> LazySamples:
        twin = object.__new__(LazySamples)
        twin.files, twin.rows, twin.skipped = files, rows, self.skipped
        twin._shelf, twin._changes = self._shelf, changes
        return twin

    def map(self, change: Callable[[Tensor], Tensor]) -> LazySamples:
        return self._twin(self.files, self.rows, (*self._changes, change))

    def batch(self) -> Any:
        return stack([self._sample(i) for i in range(len(self))])

    def digest(self) -> str:
        """SHA-256 of the files' names, sizes and times: reading them all would take as long as using them."""
        found = hashlib.sha256()
        for position, path in enumerate(self.files):
            facts = path.stat() if path.exists() else None
            stamp = (facts.st_size, facts.st_mtime_ns) if facts else ()
            found.update(repr((str(path), stamp, self.rows[position] if self.rows else 0)).encode())
        return found.hexdigest()

    def _sample(self, position: int) -> Any:
        sample = self._read(self.files[position], None if self.rows is None else self.rows[position])
        for change in self._changes:
            sample = map_tensors(sample, change)
        return sample

    def _read(self, path: Path, row: int | None) -> Any:
        candidates = [path, *(file for file in dict.fromkeys(self.files) if file != path)]
        for file in candidates:
            if file in self._shelf.broken:
                continue
            try:
                found = self._shelf.get(file)
            except Exception as error:  # a broken file can make a decoder raise anything
                reason = str(error) or type(error).__name__
                self._shelf.broken[file] = reason
                self.skipped.append((file, reason))
                continue
            return found if row is None else found[min(row, len(found) - 1)]
        file, reason = next(iter(self._shelf.broken.items()))
        raise FewerError(f"none of these {len(candidates)} files can be read any more; the first: {file}: {reason}")
