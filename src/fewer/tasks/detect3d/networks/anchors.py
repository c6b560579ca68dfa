"""The anchor head: priors on a grid, what they should say about the objects of a scan, and how boxes follow."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.tasks.detect3d.networks.config import DetectorConfig

__all__ = ["AnchorHeadSingle", "anchor_grid", "decode_boxes", "encode_boxes", "nearest_overlap"]

_DIR_OFFSET = 0.78539


def anchor_grid(config: DetectorConfig) -> Tensor:
    """Priors of every cell, shape (y, x, classes times 2, 7): each class lengthwise and turned by a right angle.

    Examples
    --------
    >>> from fewer.tasks.detect3d.networks.config import small_config
    >>> anchor_grid(small_config("pointpillars")).shape
    torch.Size([64, 64, 6, 7])
    """
    nx, ny = config.head_grid
    xs = _places(config, 0, nx)
    ys = _places(config, 1, ny)
    priors = []
    for anchor in config.anchors:
        for turn in (0.0, 1.57):
            one = torch.zeros(ny, nx, 7)
            one[..., 0], one[..., 1] = xs[None, :], ys[:, None]
            one[..., 2] = anchor.bottom + anchor.size[2] / 2
            one[..., 3:6], one[..., 6] = torch.tensor(anchor.size), turn
            priors.append(one)
    return torch.stack(priors, 2)


def _places(config: DetectorConfig, axis: int, count: int) -> Tensor:
    start, stop = config.reach[axis], config.reach[axis + 3]
    if config.anchors_at == "centres":
        side = config.voxel[axis] * config.head_stride
        return start + (torch.arange(count) + 0.5) * side
    # as in the published networks; seen from its cell, a prior then stands elsewhere in every row and column, by up to
    # half a cell: little where cells are small, but convolutions cannot know it
    return torch.linspace(start, stop, count)


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes relative to priors (SECOND): offsets over the diagonal, logarithms of sizes, difference of angles."""
    diagonal = torch.hypot(anchors[..., 3], anchors[..., 4])
    flat = (boxes[..., :2] - anchors[..., :2]) / diagonal[..., None]
    height = (boxes[..., 2:3] - anchors[..., 2:3]) / anchors[..., 5:6]
    return torch.cat(
        [flat, height, torch.log(boxes[..., 3:6] / anchors[..., 3:6]), boxes[..., 6:] - anchors[..., 6:]], -1
    )


def decode_boxes(codes: Tensor, anchors: Tensor) -> Tensor:
    """The other way round.

    Examples
    --------
    >>> anchor, box = torch.tensor([[0.0, 0, 0, 4, 2, 1, 0]]), torch.tensor([[1.0, 1, 1, 3, 2, 1, 0.5]])
    >>> torch.allclose(decode_boxes(encode_boxes(box, anchor), anchor), box)
    True
    """
    diagonal = torch.hypot(anchors[..., 3], anchors[..., 4])
    flat = codes[..., :2] * diagonal[..., None] + anchors[..., :2]
    height = codes[..., 2:3] * anchors[..., 5:6] + anchors[..., 2:3]
    # far beyond any real size nothing is lost by the limit, and a wild network does not overflow
    sizes = codes[..., 3:6].clamp(-6, 6).exp() * anchors[..., 3:6]
    return torch.cat([flat, height, sizes, codes[..., 6:] + anchors[..., 6:]], -1)


def _upright(boxes: Tensor) -> Tensor:
    """Boxes from above turned to the nearest axis: x and y from, x and y to."""
    angle = boxes[:, 6] - torch.floor(boxes[:, 6] / torch.pi + 0.5) * torch.pi
    turned = angle.abs() >= torch.pi / 4
    size = torch.where(turned[:, None], boxes[:, [4, 3]], boxes[:, 3:5])
    return torch.cat([boxes[:, :2] - size / 2, boxes[:, :2] + size / 2], 1)


def nearest_overlap(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union from above of boxes turned to the nearest axis, shape (n, m)."""
    a, b = _upright(first), _upright(second)
    side = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2])).clamp(min=0)
    shared = side.prod(-1)
    area = (a[:, 2:] - a[:, :2]).prod(-1)[:, None] + (b[:, 2:] - b[:, :2]).prod(-1)[None]
    return shared / (area - shared).clamp(min=1e-6)


class AnchorHeadSingle(nn.Module):
    """Class, box and direction of every prior, one 1 x 1 convolution each."""

    anchors: Tensor

    def __init__(self, config: DetectorConfig, inputs: int) -> None:
        super().__init__()
        self.config = config
        count = 2 * len(config.anchors)
        self.conv_cls = nn.Conv2d(inputs, count * len(config.classes), 1)
        self.conv_box = nn.Conv2d(inputs, count * 7, 1)
        self.conv_dir_cls = nn.Conv2d(inputs, count * 2, 1)
        # at first nothing is an object
        nn.init.constant_(self.conv_cls.bias, -float(np.log(99)))  # type: ignore[arg-type]
        nn.init.normal_(self.conv_box.weight, std=0.001)
        self.register_buffer("anchors", anchor_grid(config), persistent=False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Raw outputs, each (samples, priors times values, y, x)."""
        return {
            "cls_preds": self.conv_cls(x),
            "box_preds": self.conv_box(x),
            "dir_cls_preds": self.conv_dir_cls(x),
        }

    def _rows(self, raw: Tensor, values: int) -> Tensor:
        """(samples, priors of all cells, values)."""
        return raw.permute(0, 2, 3, 1).reshape(len(raw), -1, values)

    def candidates(self, raw: dict[str, Tensor], most: int = 1000) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The most confident boxes of each sample: boxes (n, 7), scores, class numbers, priors that they came from."""
        scores = self._rows(raw["cls_preds"], len(self.config.classes)).sigmoid()
        codes, ways = self._rows(raw["box_preds"], 7), self._rows(raw["dir_cls_preds"], 2).argmax(-1)
        anchors, found = self.anchors.reshape(-1, 7), []
        for score, code, way in zip(scores, codes, ways, strict=True):
            best, label = score.max(-1)
            at = best.topk(min(most, len(best))).indices
            boxes = decode_boxes(code[at], anchors[at])
            angle = boxes[:, 6] - _DIR_OFFSET
            half = angle - torch.floor(angle / torch.pi) * torch.pi
            yaw = half + _DIR_OFFSET + torch.pi * way[at]
            found.append((torch.cat([boxes[:, :6], yaw[:, None]], 1), best[at], label[at], at))
        return found

    def loss(self, raw: dict[str, Tensor], boxes: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Focal loss of classes, smooth L1 of boxes, cross-entropy of directions, as SECOND weighs them."""
        scores = self._rows(raw["cls_preds"], len(self.config.classes))
        codes, ways = self._rows(raw["box_preds"], 7), self._rows(raw["dir_cls_preds"], 2)
        total = scores.new_zeros(())
        for i in range(len(scores)):
            wanted, target = self.assign(boxes[i], labels[i])
            positive, known = wanted > 0, wanted >= 0
            count = positive.sum().clamp(min=1)
            one_hot = F.one_hot(wanted.clamp(min=0), len(self.config.classes) + 1)[:, 1:].to(scores)
            total = total + _focal(scores[i][known], one_hot[known]) / count
            if positive.any():
                total = (
                    total + self._box_loss(codes[i][positive], ways[i][positive], target[positive], positive) / count
                )
        return total / len(scores)

    def _box_loss(self, code: Tensor, way: Tensor, boxes: Tensor, positive: Tensor) -> Tensor:
        anchors = self.anchors.reshape(-1, 7)[positive]
        aim = encode_boxes(boxes, anchors)
        # sin(a - b) = sin a cos b - cos a sin b: a box turned round costs nothing here, the direction tells
        ours, theirs = code[:, 6:].sin() * aim[:, 6:].cos(), code[:, 6:].cos() * aim[:, 6:].sin()
        near = torch.cat([code[:, :6], ours], 1) - torch.cat([aim[:, :6], theirs], 1)
        size = near.abs()
        smooth = torch.where(size < 1 / 9, 4.5 * size * size, size - 1 / 18).sum()
        angle = boxes[:, 6] - _DIR_OFFSET
        bins = (torch.floor((angle - torch.floor(angle / (2 * torch.pi)) * 2 * torch.pi) / torch.pi)).long().clamp(0, 1)
        return 2.0 * smooth + 0.2 * F.cross_entropy(way, bins, reduction="sum")

    @torch.no_grad()
    def assign(self, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Class of every prior (0 background, -1 ignored, else class number + 1) and the box it stands for."""
        count, side = len(self.config.classes), self.anchors.shape[:2]
        wanted = torch.zeros(*side, count, 2, dtype=torch.long, device=boxes.device)
        target = boxes.new_zeros(*side, count, 2, 7)
        for number, anchor in enumerate(self.config.anchors):
            own = boxes[labels == number]
            if not len(own):
                continue
            priors = self.anchors.view(*side, count, 2, 7)[:, :, number].reshape(-1, 7)
            overlap = nearest_overlap(priors, own)
            best, at = overlap.max(1)
            got = torch.where(best >= anchor.matched, number + 1, torch.where(best < anchor.unmatched, 0, -1))
            # whoever no prior fits well enough takes those that fit best
            top = overlap.max(0).values
            forced = ((overlap == top[None]) & (top[None] > 0)).nonzero()
            got[forced[:, 0]], at[forced[:, 0]] = number + 1, forced[:, 1]
            wanted[:, :, number] = got.view(*side, 2)
            target[:, :, number] = own[at].view(*side, 2, 7)
        return wanted.reshape(-1), target.reshape(-1, 7)


def _focal(scores: Tensor, wanted: Tensor) -> Tensor:
    """Sum of the sigmoid focal loss, alpha 0.25, gamma 2 (Lin et al., ICCV 2017)."""
    chance = scores.sigmoid()
    wrong = wanted * (1 - chance) + (1 - wanted) * chance
    weight = wanted * 0.25 + (1 - wanted) * 0.75
    plain: Any = F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")
    return (weight * wrong * wrong * plain).sum()
