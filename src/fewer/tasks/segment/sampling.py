"""Which patches a step sees. Everything depends on the seed and the step alone, so that a resumed run is the same."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewer.adaptation.style import UNKNOWN
from fewer.tasks.segment.augment import augmentation
from fewer.tasks.segment.dataset import Case, SegmentData
from fewer.tasks.segment.preparation import Preparation
from fewer.tasks.segment.reading import read_case
from fewer.tasks.segment.settings import TrainSettings

__all__ = ["BalancedSampler", "CaseStore", "HeldStore", "PatchSampler", "crop"]

REMEMBERED = 20_000
"""Voxels of each class of a case that a patch may be centred on."""


class CaseStore:
    """Prepared cases; as many as fit stay in memory, others are read again when they are asked for.

    Parameters
    ----------
    data, cases
        What to read.
    preparation
        How.
    limit
        Bytes that may stay.
    masks
        Whether masks are wanted.
    """

    def __init__(
        self, data: SegmentData, cases: Sequence[Case], preparation: Preparation, limit: float, *, masks: bool = True
    ) -> None:
        self.data, self.cases, self.preparation, self.limit, self.masks = data, list(cases), preparation, limit, masks
        self.bytes = 0
        self._kept: dict[int, tuple[Tensor, Tensor | None]] = {}
        self._places: dict[int, list[np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | None]:
        """Image float32 ``(channels, *space)`` and mask uint8 ``(*space)`` of a case."""
        if index in self._kept:
            return self._kept[index]
        case = self.cases[index] if self.masks else Case(self.cases[index].name, self.cases[index].images)
        prepared = self.preparation.sample(read_case(self.data, case, self.preparation.channels))
        size = sum(t.numel() * t.element_size() for t in prepared if t is not None)
        if self.bytes + size <= self.limit:
            self._kept[index] = prepared
            self.bytes += size
        return prepared

    def places(self, index: int, mask: Tensor) -> list[np.ndarray]:
        """For each class that a case has, but the background, voxels of it: int arrays (voxels, axes)."""
        if index not in self._places:
            rng = np.random.default_rng([7, index])
            found = []
            for value in np.unique(mask.numpy()):
                if 0 < value < UNKNOWN:
                    voxels = np.argwhere(mask.numpy() == value).astype(np.int32)
                    found.append(voxels[rng.permutation(len(voxels))[:REMEMBERED]])
            self._places[index] = found
        return self._places[index]


class HeldStore(CaseStore):
    """Images that are prepared already, such as translated ones, in place of cases that are read.

    Parameters
    ----------
    pairs
        Image ``(channels, *space)`` and mask ``(*space)`` or None.
    preparation
        Gives the patch.
    """

    def __init__(self, pairs: Sequence[tuple[Tensor, Tensor | None]], preparation: Preparation) -> None:
        self.pairs, self.preparation = pairs, preparation
        self._places: dict[int, list[np.ndarray]] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | None]:
        """Image and mask as they were given."""
        return self.pairs[index]


def crop(array: Tensor, start: Sequence[int], patch: Sequence[int]) -> Tensor:
    """Cut a patch out of ``(channels, *space)``; what lies outside of the image is 0.

    Examples
    --------
    >>> crop(torch.ones(1, 2, 2), (-1, 0), (4, 2))[0].tolist()
    [[0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.0, 0.0]]
    """
    inside, padding = [slice(None)], []
    for first, size, length in zip(start, patch, array.shape[1:], strict=True):
        low, high = max(first, 0), min(first + size, length)
        inside.append(slice(low, max(high, low)))
        padding.append((low - first, first + size - max(high, low)))
    found = array[tuple(inside)]
    flat = [amount for pair in reversed(padding) for amount in pair]
    return F.pad(found, flat) if any(flat) else found


class PatchSampler:
    """Batches of patches.

    Parameters
    ----------
    store
        Prepared cases.
    settings
        Batch, share of foreground patches, augmentation, seed.
    rank, ranks
        This process and how many there are: each draws its own part of the batch.
    stream
        Keeps the draws of different purposes apart.
    """

    def __init__(
        self, store: CaseStore, settings: TrainSettings, rank: int = 0, ranks: int = 1, *, stream: int = 0
    ) -> None:
        self.store, self.settings, self.rank, self.ranks, self.stream = store, settings, rank, ranks, stream
        self.augment = augmentation(settings.augment, store.preparation.dims, store.preparation.mirror)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images float32 ``(batch, channels, *patch)`` and class indices uint8 ``(batch, 1, *patch)`` of a step."""
        numbers = range(self.rank, self.settings.batch * self.ranks, self.ranks)
        pairs = [self._draw([self.settings.seed, self.stream, step, number]) for number in numbers]
        return torch.stack([image for image, _ in pairs]), torch.stack([mask for _, mask in pairs])

    def _draw(self, key: list[int]) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(key)
        return self.draw(int(rng.integers(len(self.store))), rng)

    def draw(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """A patch of one case: image ``(channels, *patch)`` and class indices ``(1, *patch)``."""
        image, mask = self.store[index]
        if mask is None:
            mask = torch.zeros(image.shape[1:], dtype=torch.uint8)
        patch, space = self.store.preparation.patch, image.shape[1:]
        centre = None
        if rng.random() < self.settings.foreground and (places := self.store.places(index, mask)):
            chosen = places[int(rng.integers(len(places)))]
            centre = chosen[int(rng.integers(len(chosen)))]
        start = []
        for axis, (size, length) in enumerate(zip(patch, space, strict=True)):
            if length <= size:  # the whole image, in the middle
                start.append(-((size - length) // 2))
            elif centre is None:
                start.append(int(rng.integers(length - size + 1)))
            else:  # the voxel lies anywhere in the middle half of the patch
                shift = int(rng.integers(size // 4, size - size // 4))
                start.append(int(np.clip(centre[axis] - shift, 0, length - size)))
        pair = crop(image, start, patch), crop(mask[None], start, patch)
        return self.augment(*pair, rng)


class BalancedSampler(PatchSampler):
    """Batches in which rare structures are no rarer than others: half of the cases are drawn by a structure they have.

    A small training sees a structure that few scans have too seldom to learn it.
    """

    SHARE = 0.5

    def _draw(self, key: list[int]) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng(key)
        having = self._having
        if having and rng.random() < self.SHARE:
            cases = having[int(rng.integers(len(having)))]
            return self.draw(cases[int(rng.integers(len(cases)))], rng)
        return self.draw(int(rng.integers(len(self.store))), rng)

    @cached_property
    def _having(self) -> list[list[int]]:
        """For each structure that appears, the cases that have it."""
        found: dict[int, list[int]] = {}
        for index in range(len(self.store)):
            mask = self.store[index][1]
            for value in [] if mask is None else np.unique(mask.numpy()).tolist():
                if 0 < value < UNKNOWN:
                    found.setdefault(value, []).append(index)
        return list(found.values())
