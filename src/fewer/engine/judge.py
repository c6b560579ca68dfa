"""How good a compressed model is: its output against the dense model's, on images that nothing was tuned on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.distortion.outputs import Reference, output_tensors
from fewer.models.running import Forward, call, evaluating


@dataclass(frozen=True)
class Quality:
    """Distortion of the output, and one number that a person can read.

    Attributes
    ----------
    distortion
        Mean over images of ``|f~(x) - f(x)|^2`` over the mean of ``|f(x)|^2``; 0 is the same output.
    name, value
        ``top-1 agreement`` (classifiers: share of images with the same first class) or ``feature cosine``
        (mean over images, of the first token where there are tokens); 1 is the same as the dense model.
    median
        As ``distortion``, but the median over images.
    """

    distortion: float
    name: str
    value: float
    median: float


class Judge:
    """Dense outputs on held-out images, ready to compare models with.

    Examples
    --------
    >>> net = nn.Linear(4, 10)
    >>> Judge(net, torch.randn(8, 4), task="classify").judge(net)
    Quality(distortion=0.0, name='top-1 agreement', value=1.0, median=0.0)
    """

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        *,
        batch: int = 8,
        forward: Forward | None = None,
        task: str | None = None,
    ) -> None:
        self.batches, self.forward = list(images.split(batch)), forward
        outputs = self._run(model)
        self.reference = Reference(outputs)
        first = [output_tensors(o)[0] for o in outputs]
        self.classes = task == "classify" or (task is None and first[0].ndim == 2 and first[0].shape[1] in _CLASSES)
        self.first = torch.cat(first) if first[0].ndim else torch.stack(first)

    def _run(self, model: nn.Module) -> list[Any]:
        with evaluating(model):
            return [call(model, b, self.forward) for b in self.batches]

    def judge(self, model: nn.Module) -> Quality:
        """Compare a model with the dense one."""
        return self.judge_parts(model, slice(None))[0]

    def judge_parts(self, model: nn.Module, *parts: Tensor | slice) -> list[Quality]:
        """Compare a model with the dense one on several parts of the images, from one pass over all of them.

        Parameters
        ----------
        model
            In any mode.
        parts
            Which images, as an index of a tensor of all of them. Errors are relative to the energy of all outputs.

        Examples
        --------
        >>> net = nn.Linear(4, 10)
        >>> whole, half = Judge(net, torch.randn(8, 4)).judge_parts(net, slice(None), slice(4))
        >>> whole == half
        True
        """
        outputs = self._run(model)
        change = torch.cat([self.reference.change(i, o) for i, o in enumerate(outputs)])
        first = [output_tensors(o)[0] for o in outputs]
        got = torch.cat(first) if first[0].ndim else torch.stack(first)
        if self.classes:
            name, values = "top-1 agreement", got.flatten(1).argmax(1) == self.first.flatten(1).argmax(1)
        else:
            name, values = "feature cosine", self._cosine(got)
        return [
            Quality(float(change[p].mean()), name, float(values[p].double().mean()), float(change[p].median()))
            for p in parts
        ]

    def _cosine(self, got: Tensor) -> Tensor:
        a, b = (t[:, 0] if t.ndim == 3 else t.flatten(1) if t.ndim > 1 else t[:, None] for t in (got, self.first))
        return F.cosine_similarity(a, b)


# outputs of this many numbers are taken for class scores when the model does not say what it is
_CLASSES = {10, 100, 1000, 21841, 21843}
