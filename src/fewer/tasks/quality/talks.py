"""Batches of conversations about images, each of which follows from the number of its step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.core.files import real_path
from fewer.data.decode import check_header, open_image, read_image
from fewer.tasks.quality.model import IGNORED, lay_out
from fewer.tasks.quality.records import PLACEHOLDER, Record
from fewer.tasks.quality.views import views
from fewer.tasks.quality.words import Words

__all__ = ["Batch", "Pictures", "Talks", "plain_turns"]

_BLOCK = 8
"""Steps whose records are sorted by length."""

_ROOM = 2**30  # bytes of views that are kept
_LOOKED_AT = 64  # images whose size is looked at


class Batch(NamedTuple):
    """Views uint8 [B, images x V, 3, H, W] or None, and ids, labels, mask [B, T]."""

    views: Tensor | None
    ids: Tensor
    labels: Tensor
    mask: Tensor


def plain_turns(record: Record) -> list[tuple[str, str]]:
    """Turns without the placeholder: image tokens always come first."""
    return [(question.replace(PLACEHOLDER, "").strip() + "\n", answer) for question, answer in record.turns]


class Pictures:
    """Views of image files below a folder, kept in memory while there is room.

    Parameters
    ----------
    folder
        Names of images are relative to it, and may not lead out of it.
    side, crops
        See :func:`fewer.tasks.quality.views.views`.
    """

    def __init__(self, folder: str | Path, side: int, crops: int | None) -> None:
        self.folder, self.side, self.crops = real_path(folder), side, crops or 0
        self._kept: dict[str, np.ndarray] = {}
        self._bytes = 0

    def __call__(self, name: str) -> np.ndarray:
        """Views of an image.

        Raises
        ------
        FewerError
            When it cannot be read.
        """
        if name in self._kept:
            return self._kept[name]
        made = views(self.pixels(name), self.side, self.crops)
        if self._bytes + made.nbytes <= _ROOM:
            self._kept[name] = made
            self._bytes += made.nbytes
        return made

    def several(self, names: Sequence[str]) -> np.ndarray:
        """Views of some images, one image after the other."""
        return np.concatenate([self(name) for name in names])

    def pixels(self, name: str) -> np.ndarray:
        """Pixels uint8 [H, W, 3] of an image as it is.

        Raises
        ------
        FewerError
            When it cannot be read.
        """
        path = self._path(name)
        try:
            return np.asarray(read_image(path).convert("RGB"))
        except Exception as error:  # a broken file can make a decoder raise anything
            raise FewerError(f"{path} cannot be read ({str(error) or type(error).__name__}); leave it out") from error

    def larger(self, names: Sequence[str]) -> bool:
        """Whether most of some images are larger than a view; those that cannot be read do not count."""
        sizes = []
        for name in names[:: max(1, len(names) // _LOOKED_AT)]:
            try:
                with open_image(self._path(name)) as image:
                    sizes.append(max(image.size))
            except Exception:  # a broken file can make a decoder raise anything
                continue
        return bool(sizes) and float(np.median(sizes)) > self.side

    def missing(self, names: Iterable[str]) -> list[str]:
        """Those of some names that are no file.

        Raises
        ------
        FewerError
            When a name leads out of the folder.
        """
        # pathlib's way raises for a name that is too long for any file
        return [name for name in names if not os.path.isfile(self._path(name))]  # noqa: PTH113

    def need(self, names: Iterable[str], data: str | Path, advice: str = "give their folder with --images") -> None:
        """Raise a :class:`FewerError` where an image that a file names is not there, before any work is done."""
        wanted = list(dict.fromkeys(names))
        if missing := self.missing(wanted):
            raise FewerError(
                f"{len(missing)} of {len(wanted)} images that {data} names are not in {self.folder}, such as "
                f"{missing[0][:80]!r}; {advice}"
            )

    def broken(self, names: Iterable[str]) -> list[str]:
        """Those of some names, which are files, whose head is that of no image."""
        found = []
        for name in names:
            try:
                check_header(self._path(name))
            except Exception:  # a broken file can make a decoder raise anything
                found.append(name)
        return found

    def _path(self, name: str) -> Path:
        if "\x00" in name:
            raise FewerError(f"the image {name[:80]!r} is no name of a file; it holds a null character")
        path = real_path(self.folder / name)
        if self.folder not in path.parents:
            raise FewerError(f"the image {name!r} lies outside of {self.folder}; give names relative to the folder")
        return path


def _size(record: Record) -> int:
    """Length of a conversation, in hundreds of characters."""
    return sum(len(question) + len(answer) for question, answer in record.turns) // 100


class Talks:
    """Batches of records; those with other numbers of images never share a batch.

    Parameters
    ----------
    records
        To draw from; every one comes once before any comes again.
    """

    def __init__(self, records: Sequence[Record], pictures: Pictures, words: Words, longest: int, seed: int) -> None:
        if not records:
            raise FewerError("there are no conversations to train on")
        self.pictures, self.words, self.longest, self.seed = pictures, words, longest, seed
        counts = sorted({len(record.images) for record in records})
        self.groups = [[record for record in records if len(record.images) == count] for count in counts]

    def draw(self, step: int, count: int) -> Batch:
        """The batch of a step."""
        return self.batch(self.records(step, count))

    def records(self, step: int, count: int) -> list[Record]:
        """The conversations of a step."""
        drawn = np.random.default_rng([self.seed, 41, step]).random() * sum(map(len, self.groups))
        before = np.cumsum([len(group) for group in self.groups])
        return self._pick(self.groups[int(np.searchsorted(before[:-1], drawn, "right"))], step, count)

    def _pick(self, group: list[Record], step: int, count: int) -> list[Record]:
        """Records of a step: of those of some steps, long ones together, so that short ones are not padded to them."""
        block, turn = divmod(step, _BLOCK)
        taken: list[Record] = []
        index, last = block * _BLOCK * count, (block + 1) * _BLOCK * count
        while index < last:
            epoch, place = divmod(index, len(group))
            order = np.random.default_rng([self.seed, 42, epoch]).permutation(len(group))
            taken += [group[int(i)] for i in order[place : place + last - index]]
            index = block * _BLOCK * count + len(taken)
        taken.sort(key=_size)  # stable: records of about one length stay in their random order
        first = int(np.random.default_rng([self.seed, 43, block]).permutation(_BLOCK)[turn]) * count
        return taken[first : first + count]

    def batch(self, records: Sequence[Record]) -> Batch:
        """A batch of these records."""
        laid = [lay_out(self.words, plain_turns(record), self.longest) for record in records]
        width = max(len(ids) for ids, _ in laid)
        ids = torch.full((len(laid), width), self.words.end)
        labels = torch.full((len(laid), width), IGNORED)
        mask = torch.zeros((len(laid), width), dtype=torch.long)
        for row, (numbers, told) in enumerate(laid):
            ids[row, : len(numbers)] = torch.tensor(numbers)
            labels[row, : len(told)] = torch.tensor(told)
            mask[row, : len(numbers)] = 1
        pictures = None
        if records[0].image:
            pictures = torch.from_numpy(np.stack([self.pictures.several(record.images) for record in records]))
        return Batch(pictures, ids, labels, mask)
