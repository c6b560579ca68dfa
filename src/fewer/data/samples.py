"""Samples: the inputs that a model is measured on, whatever one input is made of.

The engine asks five things of its inputs: how many there are, some of them, batches that a model can be called with,
a hash, and the files that they come from. :class:`Samples` is that protocol. One tensor, dictionaries or tuples of
tensors, lists of arrays of different length, and files that are read when they are needed all answer it.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewer.core.errors import FewerError

__all__ = [
    "ListSamples",
    "Samples",
    "TensorSamples",
    "TreeSamples",
    "as_samples",
    "join_samples",
    "leaves",
    "map_tensors",
    "stack",
    "tensor_bytes",
]

Collate = Callable[[list[Any]], Any]


class Samples(ABC):
    """Inputs of a model, in a fixed order.

    Attributes
    ----------
    files
        The file of each sample; empty where they do not come from files.
    skipped
        Files that could not be read, and why. Lazily read ones may add to it later.
    """

    files: tuple[Path, ...] = ()
    skipped: list[tuple[Path, str]]

    def __init__(self) -> None:
        self.skipped = []

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def take(self, positions: Sequence[int]) -> Samples:
        """The samples at some positions, in that order."""

    @abstractmethod
    def batch(self) -> Any:
        """All of these samples as one input of the model.

        Raises
        ------
        FewerError
            When they do not fit into one; :meth:`split` says which do.
        """

    @abstractmethod
    def map(self, change: Callable[[Tensor], Tensor]) -> Samples:
        """The samples with every tensor changed, such as moved to another type."""

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Samples:
        """Some of the samples, by a slice, positions, or a mask of all of them."""
        if isinstance(index, slice):
            return self.take(range(*index.indices(len(self))))
        if isinstance(index, Tensor):
            index = index.nonzero().flatten().tolist() if index.dtype == torch.bool else index.tolist()
        return self.take(list(index))

    def split(self, size: int) -> list[Samples]:
        """The samples in batches of at most ``size``, each of which :meth:`batch` can make one input of."""
        return [self[start : start + size] for start in range(0, len(self), size)]

    def batches_of_all(self, size: int) -> list[Samples]:
        """As few batches as can be: one where all samples fit into one input, else of at most ``size``."""
        return [self]

    def to(self, dtype: torch.dtype) -> Samples:
        """The samples with their floating-point values in another type."""
        return self.map(lambda t: t.to(dtype) if t.is_floating_point() else t)

    def digest(self) -> str:
        """SHA-256 of all values."""
        found = hashlib.sha256()
        for one in self.split(1):
            for tensor in leaves(one.batch()):
                found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
                found.update(tensor_bytes(tensor))
        return found.hexdigest()

    @property
    def tensor(self) -> Tensor | None:
        """The samples as one tensor [samples, ...] where that is what they are; None otherwise."""
        return None


class TensorSamples(Samples):
    """One tensor, samples first.

    Examples
    --------
    >>> samples = TensorSamples(torch.arange(6.0).view(3, 2))
    >>> [part.batch().tolist() for part in samples[1:].split(1)]
    [[[2.0, 3.0]], [[4.0, 5.0]]]
    """

    def __init__(self, tensor: Tensor, files: Sequence[Path] = (), skipped: Sequence[tuple[Path, str]] = ()) -> None:
        super().__init__()
        self._tensor, self.files, self.skipped = tensor, tuple(files), list(skipped)

    def __len__(self) -> int:
        return len(self._tensor)

    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> TensorSamples:
        if isinstance(index, slice):  # a view, and not a copy
            return TensorSamples(self._tensor[index], self.files[index])
        return super().__getitem__(index)  # pyright: ignore[reportReturnType]

    def take(self, positions: Sequence[int]) -> TensorSamples:
        files = tuple(self.files[i] for i in positions) if self.files else ()
        return TensorSamples(self._tensor[list(positions)], files)

    def batch(self) -> Tensor:
        return self._tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> TensorSamples:
        return TensorSamples(change(self._tensor), self.files, self.skipped)

    @property
    def tensor(self) -> Tensor:
        return self._tensor


class TreeSamples(Samples):
    """A dictionary or tuple of tensors, samples first in each; other values are the same for every sample.

    A model is called with ``model(**batch)`` or ``model(*batch)``.

    Examples
    --------
    >>> samples = TreeSamples({"x": torch.zeros(4, 2), "ids": torch.arange(4), "scale": 2.0})
    >>> samples[1:3].batch()["ids"].tolist(), len(samples)
    ([1, 2], 4)
    """

    def __init__(self, tree: Any) -> None:
        super().__init__()
        counts = {t.shape[0] if t.ndim else -1 for t in leaves(tree)}
        if len(counts) != 1 or -1 in counts:
            found = ", ".join(map(str, sorted(counts - {-1}))) or "no"
            raise FewerError(
                f"the tensors of these inputs hold {found} samples; every tensor of a batch needs the same first "
                "dimension, the samples"
            )
        self._tree, self._count = tree, counts.pop()

    def __len__(self) -> int:
        return self._count

    def take(self, positions: Sequence[int]) -> TreeSamples:
        if isinstance(positions, range) and positions.step > 0:
            where: Any = slice(positions.start, positions.stop, positions.step)
        else:
            where = list(positions)
        return TreeSamples(map_tensors(self._tree, lambda t: t[where]))

    def batch(self) -> Any:
        return self._tree

    def map(self, change: Callable[[Tensor], Tensor]) -> TreeSamples:
        return TreeSamples(map_tensors(self._tree, change))


class ListSamples(Samples):
    """Samples of different length or shape: tensors, or dictionaries or tuples of them, one by one.

    Parameters
    ----------
    items
        The samples, each without a batch dimension.
    collate
        Makes one input of a list of samples, for example by padding. By default samples of the same shape are
        stacked, and others go through the model in batches of their own. ``list`` hands the list over as it is,
        to a model's own ``forward``.
    most
        Samples in one batch at most, whatever is asked for.

    Notes
    -----
    What padding adds counts like any other value: rows of zeros are inputs that layers are fitted to. Samples that
    go through the model one by one, or in batches of like length, give the better repair.

    Examples
    --------
    >>> clouds = ListSamples([torch.zeros(5, 3), torch.zeros(5, 3), torch.zeros(9, 3)])
    >>> [tuple(part.batch().shape) for part in clouds.split(8)]
    [(2, 5, 3), (1, 9, 3)]
    """

    def __init__(self, items: Sequence[Any], collate: Collate | None = None, most: int | None = None) -> None:
        super().__init__()
        self.items, self.collate, self.most = [map_tensors(item, lambda t: t) for item in items], collate, most

    def __len__(self) -> int:
        return len(self.items)

    def take(self, positions: Sequence[int]) -> ListSamples:
        return ListSamples([self.items[i] for i in positions], self.collate, self.most)

    def batch(self) -> Any:
        return stack(self.items) if self.collate is None else self.collate(list(self.items))

    def split(self, size: int) -> list[Samples]:
        size = size if self.most is None else min(size, self.most)
        if self.collate is not None:
            return super().split(size)
        parts: list[list[int]] = []
        for i, item in enumerate(self.items):
            alike = bool(parts) and len(parts[-1]) < size and _form(self.items[parts[-1][0]]) == _form(item)
            if alike:
                parts[-1].append(i)
            else:
                parts.append([i])
        return [self.take(part) for part in parts]

    def batches_of_all(self, size: int) -> list[Samples]:
        return self.split(size)

    def map(self, change: Callable[[Tensor], Tensor]) -> ListSamples:
        return ListSamples([map_tensors(item, change) for item in self.items], self.collate, self.most)


def as_samples(value: Any) -> Samples:
    """Samples as they are; a tensor, or a dictionary or tuple of tensors, with the samples first, as samples.

    Examples
    --------
    >>> len(as_samples((torch.zeros(3, 2), torch.ones(3))))
    3
    """
    if isinstance(value, Samples):
        return value
    return TensorSamples(value) if isinstance(value, Tensor) else TreeSamples(value)


def join_samples(parts: Sequence[Samples]) -> Samples:
    """Samples of several sets of one kind, one after the other.

    Examples
    --------
    >>> len(join_samples([TensorSamples(torch.zeros(2, 1)), TensorSamples(torch.zeros(3, 1))]))
    5
    """
    tensors = [part.tensor for part in parts]
    if all(tensor is not None for tensor in tensors):
        files = [file for part in parts for file in part.files]
        return TensorSamples(torch.cat(tensors), files)  # pyright: ignore[reportArgumentType, reportCallIssue]
    items = [one for part in parts for one in _items(part)]
    return ListSamples(items, getattr(parts[0], "collate", None), getattr(parts[0], "most", None))


def _items(samples: Samples) -> list[Any]:
    if isinstance(samples, ListSamples):
        return samples.items
    return [map_tensors(one.batch(), lambda t: t[0]) for one in samples.split(1)]


def tensor_bytes(tensor: Tensor) -> bytes:
    """The values of a tensor as bytes, in order, for a hash.

    Examples
    --------
    >>> tensor_bytes(torch.tensor(1.0).expand(1)).hex()
    '0000803f'
    """
    # a tensor of one value may have a stride of 0 and still be called contiguous; a copy has not
    return (
        tensor.detach()
        .cpu()
        .reshape(-1)
        .clone(memory_format=torch.contiguous_format)
        .view(torch.uint8)
        .numpy()
        .tobytes()
    )


def leaves(tree: Any) -> list[Tensor]:
    """All tensors in nested dictionaries, tuples and lists.

    Examples
    --------
    >>> len(leaves({"a": torch.zeros(1), "b": (torch.zeros(1), 3)}))
    2
    """
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, Mapping):
        return [t for value in tree.values() for t in leaves(value)]
    if isinstance(tree, (tuple, list)):
        return [t for value in tree for t in leaves(value)]
    return []


def tensor_of(array: np.ndarray, what: str) -> Tensor:
    """An array as a tensor, also one whose bytes or rows are in another order, which torch does not take.

    Raises
    ------
    FewerError
        When it holds no numbers.

    Examples
    --------
    >>> tensor_of(np.arange(3.0, dtype=">f4")[::-1], "x")
    tensor([2., 1., 0.])
    """
    if array.dtype.kind not in "fiubc":
        raise FewerError(f"{what} are an array of {array.dtype}, not of numbers")
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C", copy=None))


def map_tensors(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of dictionaries, tuples and lists with every tensor changed; arrays become tensors.

    Examples
    --------
    >>> map_tensors({"a": np.zeros(2)}, lambda t: t + 1)
    {'a': tensor([1., 1.], dtype=torch.float64)}
    """
    if isinstance(tree, np.ndarray) and tree.dtype.kind in "fiubc":
        tree = tensor_of(tree, "the images")
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: map_tensors(value, change) for key, value in tree.items()}
    if isinstance(tree, (tuple, list)):
        parts = [map_tensors(value, change) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return tree


def stack(items: Sequence[Any]) -> Any:
    """One batch of samples of the same shape: every tensor gets a first dimension; other values are the first one's.

    Raises
    ------
    FewerError
        When shapes differ.

    Examples
    --------
    >>> stack([{"x": torch.zeros(2)}, {"x": torch.ones(2)}])["x"].shape
    torch.Size([2, 2])
    """
    if len({_form(item) for item in items}) != 1:
        raise FewerError(
            "these samples have different shapes, so they do not fit into one batch: give a collate function, "
            "fewer.data.samples.ListSamples(items, collate=...), or let them go through the model one by one"
        )
    columns = zip(*map(leaves, items), strict=True)
    stacked = iter([torch.stack(column) for column in columns])
    return map_tensors(items[0], lambda _: next(stacked))


def _form(item: Any) -> tuple[Any, ...]:
    return tuple((tuple(t.shape), t.dtype) for t in leaves(item))
