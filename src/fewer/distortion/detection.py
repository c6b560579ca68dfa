"""Distortion of a detector: how far the raw head tensors move, in place and in confidence.

DM3D (Xu et al., arXiv 2407.02098) prunes detectors so that the joint change of box geometry and confidence of the raw
outputs is least; the weight between the two is not known from public material. The plain form below is the sum over
output tensors of the mean squared difference, as the authors' public code computes it. The default is ours: every
tensor is measured on the scale of its own variance, cells count by how sure the dense detector is of an object there,
and cells without a point do not count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fewer.core.errors import FewerError

__all__ = ["CONFIDENCE", "DetectionDistance", "plain_detection"]

CONFIDENCE = ("hm", "cls_preds", "rcnn_cls")
"""Names of tensors that say how sure the detector is; all others say where and how large."""

_SURE_OF = {"box_preds": ("cls_preds", 7), "dir_cls_preds": ("cls_preds", 2), "rcnn_reg": ("rcnn_cls", 7)}
_BACKGROUND = 0.02
"""What a cell of the background weighs in confidence, where a wrong object may appear."""


class DetectionDistance:
    """Change of the head tensors against those of the dense detector.

    Parameters
    ----------
    outputs
        Of the dense detector, one per batch: tensors by name, each (samples, values, y, x), the last part of the name
        being that of OpenPCDet's heads; and ``occupied``, bool (samples, 1, y, x).
    locality
        Weight of place and size against confidence, 0 to 1.
    plain
        The form of the published code: nothing is scaled or weighted.

    Raises
    ------
    FewerError
        When an output is not finite, or no tensor of a confidence is among them.

    Examples
    --------
    >>> dense = {"hm": torch.tensor([[[[3.0, -3.0]]]]), "center": torch.tensor([[[[1.0, 0.0]]]])}
    >>> distance = DetectionDistance([dense])
    >>> float(distance.change(0, dense)), bool(distance.change(0, {**dense, "hm": torch.zeros(1, 1, 1, 2)}) > 0)
    (0.0, True)
    """

    tells_places = True
    """Cells weigh by what they are worth: rows of weights are ranked by it even where an activation hides outputs."""

    def __init__(self, outputs: Sequence[Mapping[str, Tensor]], *, locality: float = 0.5, plain: bool = False) -> None:
        named = [_floats(one) for one in outputs]
        names = list(named[0])
        if not any(_last(name) in CONFIDENCE for name in names):
            raise FewerError(
                f"the output holds {', '.join(names)}, and none of {', '.join(CONFIDENCE)}: it is no detector's"
            )
        if not all(bool(torch.isfinite(t).all()) for one in named for t in one.values()):
            raise FewerError("the dense detector's output holds NaN or infinity on the calibration scans.")
        self.names, self.dense = names, named
        self.samples = sum(len(next(iter(one.values()))) for one in named)
        self.plain, self.scales = plain, dict.fromkeys(names, 1.0)
        self.weights = self._plain() if plain else self._weighted(outputs, locality)

    @classmethod
    def plain_form(cls, outputs: Sequence[Mapping[str, Tensor]]) -> DetectionDistance:
        """The form of the published code; what the setting ``distance = "plain"`` means for detectors."""
        return cls(outputs, plain=True)

    def _plain(self) -> list[dict[str, Tensor]]:
        # so that a detector that puts out nothing has a change of 1
        energy = sum(float(t.double().square().mean()) for one in self.dense for t in one.values()) / len(self.dense)
        scale = 1 / max(energy, 1e-12)
        self.scales = dict.fromkeys(self.names, scale)
        return [{n: torch.full((1, 1, 1, 1), scale / t[0].numel()) for n, t in one.items()} for one in self.dense]

    def _weighted(self, outputs: Sequence[Mapping[str, Tensor]], locality: float) -> list[dict[str, Tensor]]:
        cells = [
            {name: _cell_weights(name, one, full) for name in self.names}
            for one, full in zip(self.dense, outputs, strict=True)
        ]
        sure = [name for name in self.names if _last(name) in CONFIDENCE]
        out: list[dict[str, Tensor]] = [{} for _ in cells]
        for name in self.names:
            pairs = [
                (one[name].float(), weight[name].expand_as(one[name]))
                for one, weight in zip(self.dense, cells, strict=True)
            ]
            total = sum(float(w.double().sum()) for _, w in pairs)
            mean = sum(float((w * t).double().sum()) for t, w in pairs) / max(total, 1e-12)
            variance = sum(float((w * (t - mean) ** 2).double().sum()) for t, w in pairs) / max(total, 1e-12)
            share = (1 - locality) / len(sure) if name in sure else locality / max(1, len(self.names) - len(sure))
            # the weights of all cells of a sample add up to 1 in the mean over the samples
            scale = share * self.samples / max(total * variance, 1e-12)
            self.scales[name] = scale
            for place, weight in zip(out, cells, strict=True):
                place[name] = weight[name] * scale
        return out

    def part(self, start: int, stop: int) -> DetectionDistance:
        """The batches ``start`` to ``stop`` alone, on the scale of the whole."""
        part = object.__new__(DetectionDistance)
        part.names, part.dense, part.weights = self.names, self.dense[start:stop], self.weights[start:stop]
        part.samples = sum(len(next(iter(one.values()))) for one in part.dense)
        part.plain, part.scales = self.plain, self.scales
        return part

    def change(self, batch: int, output: Any) -> Tensor:
        """Change of each sample of one batch, float64, shape (samples of the batch,)."""
        total: Any = 0.0
        got = _floats(output)
        for name, dense in self.dense[batch].items():
            squared = (got[name] - dense).float().square() * self.weights[batch][name].to(dense.device)
            total = total + squared.flatten(1).sum(1, dtype=torch.float64)
        return total.cpu()

    def error(self, wanted: Mapping[str, Any], got: Mapping[str, Any]) -> Tensor:
        """Mean change over the samples of a batch that is none of the dense ones, with gradients in ``got``.

        Tensors keep the scale that they have here; cells weigh by how sure the dense detector is on this batch.

        Parameters
        ----------
        wanted, got
            Outputs of the dense detector and of another one.

        Examples
        --------
        >>> dense = {"hm": torch.tensor([[[[3.0, -3.0]]]]), "center": torch.tensor([[[[1.0, 0.0]]]])}
        >>> distance, other = DetectionDistance([dense]), {**dense, "hm": torch.ones(1, 1, 1, 2)}
        >>> bool(torch.isclose(distance.error(dense, other).double(), distance.change(0, other).mean()))
        True
        """
        dense, total = _floats(wanted), torch.zeros(())
        samples = len(next(iter(dense.values())))
        for name, there in dense.items():
            if self.plain:
                weight = torch.full((1, 1, 1, 1), 1.0 / there[0].numel(), device=there.device)
            else:
                weight = _cell_weights(name, dense, wanted)
            changed = (got[name].float() - there.float()).square() * weight.float()
            total = total + changed.sum().cpu() * (self.scales[name] / samples)
        return total

    def directions(self, batch: int, outputs: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Random signs over the outputs, on the scale of each cell; see :mod:`fewer.distortion.distance`."""
        drawn = []
        for name, tensor in zip(self.dense[batch], outputs, strict=True):
            signs = torch.randint(0, 2, tensor.shape, generator=generator).to(tensor) * 2 - 1
            drawn.append(signs * self.weights[batch][name].to(tensor).sqrt())
        return drawn


def plain_detection(outputs: Sequence[Mapping[str, Tensor]]) -> DetectionDistance:
    """The form of the published code: mean squared differences of all head tensors, added up.

    Examples
    --------
    >>> dense = {"hm": torch.ones(1, 1, 1, 1), "dim": torch.ones(1, 1, 1, 1)}
    >>> float(plain_detection([dense]).change(0, {name: 0 * t for name, t in dense.items()}))
    1.0
    """
    return DetectionDistance.plain_form(outputs)


def with_locality(locality: float) -> Any:
    """A maker of distances with another weight between place and confidence."""
    return partial(DetectionDistance, locality=locality)


def _floats(output: Any) -> dict[str, Tensor]:
    return {name: t.detach() for name, t in output.items() if t.is_floating_point()}


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _cell_weights(name: str, dense: Mapping[str, Tensor], output: Mapping[str, Any]) -> Tensor:
    """What every value of a tensor weighs before scaling: how sure the dense detector is of an object there."""
    tensor, kind = dense[name], _last(name)
    group = name[: len(name) - len(kind)]
    occupied = output.get("occupied")
    there = torch.ones_like(tensor[:, :1]) if occupied is None else occupied.to(tensor)
    if kind in ("rcnn_cls", "rcnn_reg"):
        # proposals alone: everywhere else the tensor is zero by construction
        sure = dense[f"{group}rcnn_cls"]
        weight = sure.sigmoid() * (sure != 0)
        return weight.repeat_interleave(7, 1) if kind == "rcnn_reg" else weight + _BACKGROUND * (sure != 0)
    if kind == "hm":
        return there * (tensor.sigmoid().amax(1, keepdim=True) + _BACKGROUND)
    if kind == "cls_preds":
        return there * (tensor.sigmoid() + _BACKGROUND)
    partner, values = _SURE_OF.get(kind, ("hm", 0))
    sure = dense[f"{group}{partner}"].sigmoid()
    if not values:
        return there * sure.amax(1, keepdim=True)
    priors = tensor.shape[1] // values
    best = sure.view(len(sure), priors, -1, *sure.shape[2:]).amax(2)
    return there * best.repeat_interleave(values, 1)
