"""How good a compressed model is: its output against the dense model's, on samples that nothing was tuned on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.data.samples import Samples
from fewer.distortion.distance import MakeDistance
from fewer.distortion.outputs import Reference, dimension_of_classes, output_tensors
from fewer.models.running import Forward, call, evaluating

if TYPE_CHECKING:
    from fewer.engine.prepare import Prepared
    from fewer.engine.settings import Settings

__all__ = ["Judge", "Quality", "judge_of", "judge_of_fitted"]

_FITTED = 128
"""Calibration samples that judge, at most."""
_FEWEST = 16
_KEPT_BYTES = 2**28
"""Of the dense model's answers to them."""


@dataclass(frozen=True)
class Quality:
    """Distortion of the output, and one number that a person can read.

    Attributes
    ----------
    distortion
        Mean over samples of the change of the output, by default ``|f~(x) - f(x)|^2`` over the mean of ``|f(x)|^2``;
        0 is the same output.
    name, value
        ``top-1 agreement`` (classifiers: share of images with the same first class), ``top-1 agreement per place``
        (probabilities for each place of a map or a sequence: share of places with the same first class), ``map
        correlation`` (other outputs with two or more dimensions of space, such as edges: mean over images of the
        correlation over all values) or ``feature cosine`` (mean over images, and over tokens where there are any); 1
        is the same as the dense model. Of several outputs it looks at the first.
    median
        As ``distortion``, but the median over samples.
    """

    distortion: float
    name: str
    value: float
    median: float


class Judge:
    """Dense outputs on held-out samples, ready to compare models with.

    Parameters
    ----------
    model
        The dense one.
    samples
        To judge by: samples, or a tensor of them.
    batch
        Samples per forward pass.
    forward
        ``forward(model, batch)``.
    task
        Of the model; ``classify`` compares first classes.
    distance
        How a change is measured; see :mod:`fewer.distortion.distance`.

    Examples
    --------
    >>> net = nn.Linear(4, 10)
    >>> Judge(net, torch.randn(8, 4), task="classify").judge(net)
    Quality(distortion=0.0, name='top-1 agreement', value=1.0, median=0.0)
    """

    def __init__(
        self,
        model: nn.Module,
        samples: Samples | Tensor,
        *,
        batch: int = 8,
        forward: Forward | None = None,
        task: str | None = None,
        distance: MakeDistance = Reference,
    ) -> None:
        self.batches, self.forward, self._count = list(samples.split(batch)), forward, len(samples)
        outputs = self._run(model)
        self.reference = distance(outputs)
        # the scale of each output, for errors that need a gradient
        self.energies = self.reference if isinstance(self.reference, Reference) else Reference(outputs)
        # what a training lessens: the very error that is judged, where the task's distance can tell it of any batch
        self.training_error: Any = self.reference if hasattr(self.reference, "error") else self.energies
        self._first = [output_tensors(o)[0] for o in outputs]
        self.outputs = len(output_tensors(outputs[0]))
        one = self._first[0]
        self.along = dimension_of_classes(one)
        scores = one.ndim == 2 and (one.shape[1] in _CLASSES or self.along is not None)
        self.classes = task == "classify" or (task is None and scores)

    def __len__(self) -> int:
        return self._count

    def _run(self, model: nn.Module) -> list[Any]:
        with evaluating(model):
            return [call(model, b, self.forward) for b in self.batches]

    def steady(self) -> float:
        """Share of the dense output's energy that is the same for every sample; each output counts alike.

        Where it is nearly all, as with probabilities that hardly differ, a model that always says the same has a small
        distortion. The mean over n samples holds an n-th of what differs, which is taken out.

        Examples
        --------
        >>> Judge(nn.Identity(), torch.tensor([[1.0, 3.0], [1.0, -3.0]])).steady()
        0.0
        >>> Judge(nn.Identity(), torch.ones(4, 2)).steady()
        1.0
        """
        every = self.energies
        if self.reference is not every or self._count < 2:
            return 0.0
        total = 0.0
        for parts, scale in zip(zip(*every.tensors, strict=True), every.scale.tolist(), strict=True):
            if any(not t.ndim or t.shape[1:] != parts[0].shape[1:] for t in parts):
                return 0.0
            if sum(len(t) for t in parts) != self._count:
                return 0.0
            mean = torch.stack([t.double().sum(0) for t in parts]).sum(0) / self._count
            total += float(mean.square().sum()) / scale
        return min(1.0, max(0.0, (self._count * total - 1) / (self._count - 1)))

    def over_spread(self) -> float | None:
        """What turns a distortion into a distance over the spread of the dense output; None for a task's own measure.

        A distortion is relative to the energy of the output, most of which may be the same for every sample.

        Examples
        --------
        >>> Judge(nn.Identity(), torch.tensor([[1.0, 3.0], [1.0, -3.0]])).over_spread() == 20 / 18
        True
        """
        if self.reference is not self.energies or self.outputs > 1 or self._count < 2:
            return None
        if len({t.shape[1:] for t in self._first}) > 1 or sum(len(t) for t in self._first if t.ndim) != self._count:
            return None
        whole = torch.cat(self._first).double()
        spread = float((whole - whole.mean(0)).square().sum())
        return float(whole.square().sum()) / spread if spread > 0 else None

    def judge(self, model: nn.Module) -> Quality:
        """Compare a model with the dense one."""
        return self.judge_parts(model, slice(None))[0]

    def judge_parts(self, model: nn.Module, *parts: Tensor | slice) -> list[Quality]:
        """Compare a model with the dense one on several parts of the samples, from one pass over all of them.

        Parameters
        ----------
        model
            In any mode.
        parts
            Which samples, as an index of a tensor of all of them. Errors are relative to the energy of all outputs.

        Examples
        --------
        >>> net = nn.Linear(4, 10)
        >>> whole, half = Judge(net, torch.randn(8, 4)).judge_parts(net, slice(None), slice(4))
        >>> whole == half
        True
        """
        return self.judge_each(model, *parts)[0]

    def judge_each(self, model: nn.Module, *parts: Tensor | slice) -> tuple[list[Quality], Tensor]:
        """As :meth:`judge_parts`, and the change of the output of each sample."""
        outputs = self._run(model)
        change = torch.cat([self.reference.change(i, o) for i, o in enumerate(outputs)])
        got = [output_tensors(o)[0] for o in outputs]
        if self.classes:
            name, values = "top-1 agreement", _each(_same_class, got, self._first)
        elif self.along is not None and self._first[0].ndim > 2:
            same = partial(_same_places, along=self.along)
            name, values = "top-1 agreement per place", _each(same, got, self._first)
        elif self._first[0].ndim > 3:
            name, values = "map correlation", _each(_correlation, got, self._first)
        else:
            name, values = "feature cosine", _each(_cosine, got, self._first)
        found = [
            Quality(float(change[p].mean()), name, float(values[p].double().mean()), float(change[p].median()))
            for p in parts
        ]
        return found, change


def judge_of(prepared: Prepared, settings: Settings | None, samples: Samples) -> Judge:
    """A judge of a run's models on some of its samples; ``settings`` may ask for larger batches."""
    return Judge(
        prepared.model,
        samples,
        batch=8 if settings is None else max(8, settings.batch),
        forward=prepared.forward,
        task=prepared.loaded.task,
        distance=prepared.distance,
    )


def judge_of_fitted(prepared: Prepared, settings: Settings | None) -> Judge:
    """A judge on the calibration samples, or on some that are spread over all of them where answers are large.

    Of a transformer in int8 a quarter of 128 samples took another plan than all of them, and a worse one.
    """
    samples = prepared.calibration
    with evaluating(prepared.model):
        answer = output_tensors(call(prepared.model, prepared.example, prepared.forward))
    room = _KEPT_BYTES // max(1, sum(t.numel() * t.element_size() for t in answer))
    return judge_of(prepared, settings, samples[:: -(-len(samples) // max(_FEWEST, min(_FITTED, room)))])


def _each(compare: Any, got: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """A number for each sample. Outputs of different shapes are compared batch by batch."""
    if len({t.shape[1:] for t in wanted}) == 1:  # one number for a whole batch has no dimension
        a, b = (torch.cat([t if t.ndim else t[None] for t in ts]) for ts in (got, wanted))
        return compare(a, b).cpu()
    return torch.cat([compare(a, b).cpu() for a, b in zip(got, wanted, strict=True)])


def _same_class(a: Tensor, b: Tensor) -> Tensor:
    return a.flatten(1).argmax(1) == b.flatten(1).argmax(1)


def _same_places(a: Tensor, b: Tensor, along: int) -> Tensor:
    return (a.argmax(along) == b.argmax(along)).flatten(1).double().mean(1)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    if a.ndim == 3:
        return F.cosine_similarity(a, b, dim=2).mean(1)
    a, b = (t.flatten(1) if t.ndim > 1 else t[:, None] for t in (a, b))
    return F.cosine_similarity(a, b)


# outputs of this many numbers are taken for class scores when the model does not say what it is
_CLASSES = {10, 100, 1000, 21841, 21843}


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    a, b = (t.flatten(1) - t.flatten(1).mean(1, keepdim=True) for t in (a, b))
    return F.cosine_similarity(a, b)
