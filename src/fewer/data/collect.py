"""Inputs that are given in Python become samples: what one item of a list or loader means is found out by trying it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewer.core.errors import FewerError
from fewer.data.calibration import IMAGE_KEYS, as_calibration, image_of, items_of
from fewer.data.images import ImageSet
from fewer.data.samples import ListSamples, Samples, TensorSamples, TreeSamples, leaves, map_tensors, stack

__all__ = ["Trial", "collect_samples"]


@dataclass(frozen=True)
class Trial:
    """What is known of a model before its inputs are read.

    Parameters
    ----------
    run
        ``run(batch)``: the number of samples in what the model gives for a batch, or None when it does not run on it.
    names
        Arguments of the model's forward; None where it takes any, or is called by the user's own function.
    own_forward
        Whether the user's own ``forward(model, batch)`` calls the model.
    told
        ``told(batch)``: how the model is called, where its arguments are not those of the batch.
    """

    run: Callable[[Any], int | None]
    names: Sequence[str] | None = None
    own_forward: bool = False
    told: Callable[[Any], str] = lambda _batch: ""


def collect_samples(given: Any, count: int | None, trial: Trial, *, sample_ndim: int = 3) -> Samples:
    """Make samples of what a user gives in Python.

    An item of a list, a data set or a loader can be a tensor, an array, a dictionary or a tuple of these; it can be a
    sample or a batch, and it can hold labels, which are of no use here. Readings are tried in turn, and the first that
    the model runs on counts: the image alone (as ``(image, label)`` pairs and ``{"pixel_values": ...}`` mean it), the
    whole item as a batch (every tensor has the samples first, and so has the output), and the whole item as a
    sample. A dictionary whose entries are all arguments of the model is always taken as a whole.

    Parameters
    ----------
    given
        Samples, a tensor or array [samples, ...], a dictionary or tuple of tensors with the samples first, or an
        iterable of items. An endless one needs a count.
    count
        Samples at most.
    trial
        How the model takes inputs.
    sample_ndim
        Dimensions of one image, as for :func:`~fewer.data.calibration.as_calibration`.

    Returns
    -------
    Samples

    Raises
    ------
    FewerError
        When there are none, the model runs on no reading of them, or a value is NaN or infinite.

    Examples
    --------
    >>> trial = Trial(lambda batch: len(batch["x"]), ("x", "mask"))
    >>> given = [{"x": torch.zeros(4, 2), "mask": torch.ones(4, 2)} for _ in range(3)]
    >>> samples = collect_samples(given, 10, trial)
    >>> len(samples), samples[:3].batch()["mask"].shape
    (10, torch.Size([3, 2]))
    """
    if isinstance(given, Samples):
        return given if count is None else given[:count]
    if isinstance(given, ImageSet):
        cut = slice(count)
        return TensorSamples(given.tensor[cut], given.files[cut], given.skipped)
    if isinstance(given, (Tensor, np.ndarray)):
        return TensorSamples(as_calibration(given, count).tensor)
    if isinstance(given, Mapping) or (isinstance(given, tuple) and _is_one_batch(given, trial)):
        return _collect([given], count, trial, sample_ndim, loader=True)
    if not isinstance(given, Iterable) and hasattr(given, "__getitem__") and hasattr(given, "__len__"):
        given = map(given.__getitem__, range(len(given)))  # a data set of torch says no more of itself
    if not isinstance(given, Iterable):
        raise FewerError(f"images are a folder, a tensor or an iterable of tensors; got {type(given).__name__}")
    return _collect(given, count, trial, sample_ndim, loader=getattr(given, "batch_size", None) is not None)


def _is_one_batch(given: tuple[Any, ...], trial: Trial) -> bool:
    """Whether a tuple is one batch of several inputs, and not a sequence of samples."""
    tensors = [torch.as_tensor(g) if isinstance(g, np.ndarray) else g for g in given]
    if len(tensors) < 2 or not all(isinstance(t, Tensor) and t.ndim for t in tensors):
        return False
    if len({len(t) for t in tensors}) > 1 or trial.run(_first(tensors[0])) is not None:
        return False
    return trial.run(tuple(map(_first, tensors))) == 1


def _first(tensor: Tensor) -> Tensor:
    return tensor[:1]


Reading = Callable[[Any], Any]


def _collect(given: Iterable[Any], count: int | None, trial: Trial, sample_ndim: int, *, loader: bool) -> Samples:
    iterator = items_of(given)
    head = next(iterator, None)
    if head is None:
        raise FewerError("the images are empty; give at least one")
    items = chain([head], iterator)
    if isinstance(head, (Tensor, np.ndarray)) and not trial.own_forward and head.ndim in (sample_ndim, sample_ndim + 1):
        items, shapes = _peeked(items, count, sample_ndim)
        if len(shapes) == 1:
            return TensorSamples(as_calibration(items, count, sample_ndim=sample_ndim).tensor)
        items = iter(items)
    whole = _whole(head, trial)
    if _image_alone(head, whole, trial, sample_ndim):
        return TensorSamples(as_calibration(items, count, sample_ndim=sample_ndim).tensor)
    # an array by itself is a sample, unless a loader or its dimensions say that it is a batch
    batches = not isinstance(whole, Tensor) or loader or whole.ndim == sample_ndim + 1
    if batches and _as_batch(whole, trial):
        return _of_batches((_whole(item, trial) for item in items), count)
    return _one_by_one([_whole(item, trial) for item in islice(items, count)], trial)


def _one_by_one(items: list[Any], trial: Trial) -> Samples:
    """Items that are a sample each."""
    for index, item in enumerate(items):
        _check(item, index)
    collate, most = _as_list(items, trial)
    if collate is not None:
        return ListSamples(items, collate, most)
    forms = {tuple((t.shape, t.dtype) for t in leaves(item)): item for item in items}
    for item in islice(forms.values(), 4):
        if trial.run(stack([item])) is None:
            shapes = ", ".join(str(tuple(t.shape)) for t in leaves(item)) or type(item).__name__
            several = "the inputs have different shapes, and " if len(forms) > 1 else ""
            way = trial.told(stack([item])) or (
                "bring them to one shape, or give forward=, a function forward(model, batch) that calls the model"
            )
            raise FewerError(
                f"{several}the model does not run on inputs of shape {shapes}, neither as a batch nor as one sample; "
                f"{way}"
            )
    if len(forms) > 1:
        return ListSamples(items)
    stacked = stack(items)
    return TensorSamples(stacked) if isinstance(stacked, Tensor) else TreeSamples(stacked)


def _peeked(items: Iterable[Any], count: int | None, sample_ndim: int) -> tuple[list[Any], set[tuple[int, ...]]]:
    """As many items as are needed, and the shapes of one sample that they have."""
    kept: list[Any] = []
    shapes: set[tuple[int, ...]] = set()
    total = 0
    for item in items:
        kept.append(item)
        if isinstance(item, (Tensor, np.ndarray)):
            shapes.add(tuple(item.shape)[-sample_ndim:])
            total += item.shape[0] if item.ndim > sample_ndim else 1
        if count is not None and total >= count:
            break
    return kept, shapes


def _whole(item: Any, trial: Trial) -> Any:
    """An item with its arrays as tensors, and without what the model does not take, such as labels."""
    item = map_tensors(item, _plain)
    if isinstance(item, Mapping) and trial.names is not None:
        return {key: value for key, value in item.items() if key in trial.names}
    return tuple(item) if isinstance(item, list) and not trial.own_forward else item


def _plain(tensor: Tensor) -> Tensor:
    """On the CPU, without gradients, floating-point values in single precision."""
    kept = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", kept)


def _image_alone(item: Any, whole: Any, trial: Trial, sample_ndim: int) -> bool:
    """Whether the image of an item is all that the model takes of it."""
    if isinstance(whole, Mapping):
        if len(whole) > 1 and trial.names is not None:
            return False  # every entry is an argument of the model
        if not any(key in IMAGE_KEYS for key in item):
            return False
    elif not isinstance(item, (tuple, list)) or not item:
        return False
    try:
        image = image_of(item, 0)
    except FewerError:
        return False
    if image.ndim not in (sample_ndim, sample_ndim + 1) or not image.is_floating_point():
        return False
    image = _plain(image if image.ndim > sample_ndim else image[None])
    return trial.run(image[:1]) is not None


def _as_batch(whole: Any, trial: Trial) -> bool:
    """Whether an item is a batch: all of its tensors have the samples first, and so has what the model gives."""
    counts = {t.shape[0] if t.ndim else 0 for t in leaves(whole)}
    if len(counts) != 1 or 0 in counts:
        return False
    return trial.run(whole) == counts.pop()


def _as_list(items: Sequence[Any], trial: Trial) -> tuple[Callable[[list[Any]], Any] | None, int | None]:
    """How the user's own forward takes samples: as a list of them, or one by one as they are; and how many at once."""
    if not trial.own_forward:
        return None, None
    if trial.run(list(items[:1])) == 1:
        several = len(items) < 2 or trial.run(list(items[:2])) == 2
        return list, None if several else 1
    if trial.run(items[0]) == 1:
        return one_by_one, 1
    return None, None


def one_by_one(items: list[Any]) -> Any:
    """The only sample of a batch, as it is.

    Examples
    --------
    >>> one_by_one([torch.ones(1)])
    tensor([1.])
    """
    return items[0]


def _of_batches(batches: Iterable[Any], count: int | None) -> Samples:
    """Batches with the samples first, one after the other; padded to different lengths they stay apart."""
    kept: list[Any] = []
    total = 0
    for batch in batches:
        size = leaves(batch)[0].shape[0]
        take = size if count is None else min(size, count - total)
        batch = map_tensors(batch, lambda t, take=take: t[:take])
        _check(batch, total)
        kept.append(batch)
        total += take
        if total == count:
            break
    forms = {tuple((t.shape[1:], t.dtype) for t in leaves(batch)) for batch in kept}
    if len(forms) == 1:
        columns: Iterator[Tensor] = iter([torch.cat(c) for c in zip(*map(leaves, kept), strict=True)])
        joined = map_tensors(kept[0], lambda _: next(columns))
        return TensorSamples(joined) if isinstance(joined, Tensor) else TreeSamples(joined)
    rows = [map_tensors(b, lambda t, i=i: t[i]) for b in kept for i in range(leaves(b)[0].shape[0])]
    return ListSamples(rows)


def _check(item: Any, index: int) -> None:
    for tensor in leaves(item):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise FewerError(f"input {index} holds NaN or infinity; remove or repair it")
