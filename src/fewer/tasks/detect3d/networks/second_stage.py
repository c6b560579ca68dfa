"""PV-RCNN beyond the first stage: keypoints, what they see in every stage, and the correction of proposals."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.models.remembered import Facts
from fewer.models.sparse import Sites
from fewer.tasks.detect3d.boxes import points_in_boxes
from fewer.tasks.detect3d.networks.anchors import decode_boxes, encode_boxes
from fewer.tasks.detect3d.networks.config import DetectorConfig
from fewer.tasks.detect3d.networks.neighbours import StackSAModuleMSG, farthest_points
from fewer.tasks.detect3d.overlap import box_iou

__all__ = ["COUNTS", "RADII", "PVRCNNHead", "PointHeadSimple", "VoxelSetAbstraction"]

RADII = {"x_conv1": (0.4, 0.8), "x_conv2": (0.8, 1.2), "x_conv3": (1.2, 2.4), "x_conv4": (2.4, 4.8)}
COUNTS = {"x_conv1": (16, 16), "x_conv2": (16, 32), "x_conv3": (16, 32), "x_conv4": (16, 32)}


class VoxelSetAbstraction(nn.Module):
    """Keypoints, described by the points and the sparse sites around them and by the image from above."""

    def __init__(self, config: DetectorConfig, stages: dict[str, int], image: int) -> None:
        super().__init__()
        self.config = config
        self.names = tuple(RADII)
        self.SA_layers = nn.ModuleList(
            StackSAModuleMSG(stages[n], (stages[n], stages[n]), RADII[n], COUNTS[n]) for n in self.names
        )
        raw = config.channels[0]
        self.SA_rawpoints = StackSAModuleMSG(config.features - 3, (raw, raw), (0.4, 0.8), (16, 16))
        self.before = image + self.SA_rawpoints.channels + sum(2 * stages[n] for n in self.names)
        width = config.point_features
        self.vsa_point_feature_fusion = nn.Sequential(
            nn.Linear(self.before, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()
        )

    def forward(
        self, scans: tuple[Tensor, ...], image: Tensor, stages: dict[str, Sites], facts: Facts | None = None
    ) -> dict[str, Any]:
        """``places`` of the keypoints of each sample, their features ``before`` the fusion, and ``features``.

        ``facts`` holds the keypoints and their neighbours of an earlier pass over the same scans.
        """
        facts = facts or Facts()
        config = self.config
        low, high = scans[0].new_tensor(config.reach[:3]), scans[0].new_tensor(config.reach[3:])
        points, places = facts.once("keypoints", lambda: self._keypoints(scans, low, high))
        found = [self._from_above(places, image)]
        own, values = [p[:, :3] for p in points], [p[:, 3:] for p in points]
        layer: Any = self.SA_rawpoints
        found.append(layer(places, own, values, facts.once("raw", lambda: layer.near(places, own))))
        size = low.new_tensor(config.voxel)
        for layer, name, times in zip(self.SA_layers, self.names, (1, 2, 4, 8), strict=True):
            sites = stages[name]
            centres = (sites.where[:, [3, 2, 1]] + 0.5) * size * times + low
            # sites are sorted by sample
            cuts = torch.bincount(sites.where[:, 0], minlength=len(scans)).tolist()
            near = facts.once(name, lambda c=centres, k=cuts, at=layer: at.near(places, c.split(k)))
            found.append(layer(places, centres.split(cuts), sites.features.split(cuts), near))
        before = torch.cat(found, 1)
        return {"places": places, "before": before, "features": self.vsa_point_feature_fusion(before)}

    def _keypoints(self, scans: tuple[Tensor, ...], low: Tensor, high: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Points of each scan that are in reach, and its keypoints."""
        config = self.config
        points = [s[((s[:, :3] >= low) & (s[:, :3] < high)).all(1), : config.features] for s in scans]
        # a scan with nothing in reach still has keypoints, at the corner of the grid, that see nothing
        chosen = [p[farthest_points(p[:, :3], config.keypoints), :3] for p in points]
        return points, [c if len(c) else low.expand(config.keypoints, 3) for c in chosen]

    def _from_above(self, places: list[Tensor], image: Tensor) -> Tensor:
        """Bilinear values of the image at the keypoints."""
        config, rows = self.config, []
        for place, one in zip(places, image, strict=True):
            x = (place[:, 0] - config.reach[0]) / (config.voxel[0] * 8)
            y = (place[:, 1] - config.reach[1]) / (config.voxel[1] * 8)
            x0, y0 = x.floor(), y.floor()
            total = place.new_zeros(len(place), one.shape[0])
            for cx, cy in ((x0, y0), (x0 + 1, y0), (x0, y0 + 1), (x0 + 1, y0 + 1)):
                weight = (1 - (x - cx).abs()).clamp(min=0) * (1 - (y - cy).abs()).clamp(min=0)
                column = cx.long().clamp(0, one.shape[2] - 1)
                row = cy.long().clamp(0, one.shape[1] - 1)
                total = total + weight[:, None] * one[:, row, column].T
            rows.append(total)
        return torch.cat(rows)


def _fc(inputs: int, widths: tuple[int, ...], outputs: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for a, b in zip((inputs, *widths), widths, strict=False):
        parts += [nn.Linear(a, b, bias=False), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(widths[-1], outputs))


class PointHeadSimple(nn.Module):
    """Which keypoints lie in an object."""

    def __init__(self, inputs: int, width: int = 256) -> None:
        super().__init__()
        self.cls_layers = _fc(inputs, (width, width), 1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits, shape (keypoints, 1)."""
        return self.cls_layers(features)

    def loss(self, logits: Tensor, places: list[Tensor], boxes: list[Tensor]) -> Tensor:
        """Focal loss; keypoints within 20 cm of a box but not in it do not count."""
        inside, near = [], []
        for place, box in zip(places, boxes, strict=True):
            points, rows = place.cpu().numpy(), box.cpu().numpy().reshape(-1, 7)
            inside.append(points_in_boxes(points, rows).any(0))
            near.append(points_in_boxes(points, rows, 0.1).any(0))
        wanted = torch.from_numpy(np.concatenate(inside)).to(logits)
        known = torch.from_numpy(np.concatenate(inside) | ~np.concatenate(near)).to(logits)
        chance = logits[:, 0].sigmoid()
        wrong = wanted * (1 - chance) + (1 - wanted) * chance
        weight = (wanted * 0.25 + (1 - wanted) * 0.75) * wrong.square() * known
        plain = F.binary_cross_entropy_with_logits(logits[:, 0], wanted, reduction="none")
        return (weight * plain).sum() / wanted.sum().clamp(min=1)


class PVRCNNHead(nn.Module):
    """Looks into each proposal on a grid of points and corrects it."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.grid = config.roi_grid
        width, fc = config.roi_channels, config.roi_fc
        self.roi_grid_pool_layer = StackSAModuleMSG(config.point_features, (width, width), (0.8, 1.6), (16, 16))

        def block(a: int, b: int) -> list[nn.Module]:
            return [nn.Conv1d(a, b, 1, bias=False), nn.BatchNorm1d(b), nn.ReLU()]

        inputs = self.grid**3 * self.roi_grid_pool_layer.channels
        self.shared_fc_layer = nn.Sequential(*block(inputs, fc), nn.Dropout(0.3), *block(fc, fc))
        self.cls_layers = nn.Sequential(*block(fc, fc), nn.Dropout(0.3), *block(fc, fc), nn.Conv1d(fc, 1, 1))
        self.reg_layers = nn.Sequential(*block(fc, fc), nn.Dropout(0.3), *block(fc, fc), nn.Conv1d(fc, 7, 1))
        nn.init.normal_(self.reg_layers[-1].weight, std=0.001)  # type: ignore[arg-type]

    def forward(self, proposals: list[Tensor], places: list[Tensor], features: Tensor) -> tuple[Tensor, Tensor]:
        """Confidence (proposals, 1) and correction (proposals, 7) of the proposals of all samples."""
        steps = torch.arange(self.grid, device=features.device)
        index = torch.cartesian_prod(steps, steps, steps)
        centres = []
        for rois in proposals:
            local = ((index + 0.5) / self.grid - 0.5)[None] * rois[:, None, 3:6]
            c, s = rois[:, 6].cos()[:, None], rois[:, 6].sin()[:, None]
            x, y = local[..., 0], local[..., 1]
            turned = torch.stack([c * x - s * y, s * x + c * y, local[..., 2]], -1)
            centres.append((turned + rois[:, None, :3]).reshape(-1, 3))
        split = list(features.split([len(p) for p in places]))
        pooled = self.roi_grid_pool_layer(centres, places, split)
        count = sum(len(rois) for rois in proposals)
        rows = pooled.view(count, self.grid**3, -1).transpose(1, 2).reshape(count, -1, 1)
        shared = self.shared_fc_layer(rows)
        return self.cls_layers(shared)[..., 0], self.reg_layers(shared)[..., 0]

    def refined(
        self, found: list[tuple[Tensor, ...]], confidence: Tensor, change: Tensor
    ) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Corrected boxes, scores and class numbers of each sample."""
        out, start = [], 0
        for rois, _, labels, _ in found:
            part = slice(start, start + len(rois))
            local = rois.clone()
            local[:, :3] = 0
            boxes = decode_boxes(change[part], local)
            c, s = rois[:, 6].cos(), rois[:, 6].sin()
            x, y = c * boxes[:, 0] - s * boxes[:, 1], s * boxes[:, 0] + c * boxes[:, 1]
            place = torch.stack([x, y, boxes[:, 2]], 1) + rois[:, :3]
            out.append((torch.cat([place, boxes[:, 3:]], 1), confidence[part, 0].sigmoid(), labels))
            start += len(rois)
        return out

    def loss(
        self,
        found: list[tuple[Tensor, ...]],
        confidence: Tensor,
        change: Tensor,
        boxes: list[Tensor],
        labels: list[Tensor],
    ) -> Tensor:
        """Cross-entropy with the overlap as the target, and smooth L1 of the correction where it is above 0.55.

        The published code samples proposals and adds a loss of corners; here all proposals count, and it is left out.
        """
        overlaps, aims = [], []
        for (rois, _, guess, _), box, label in zip(found, boxes, labels, strict=True):
            overlap, aim = _matched(rois, guess, box, label)
            overlaps.append(overlap)
            aims.append(aim)
        overlap, aim = torch.cat(overlaps), torch.cat(aims)
        wanted = ((overlap - 0.25) / 0.5).clamp(0, 1)
        total = F.binary_cross_entropy_with_logits(confidence[:, 0], wanted)
        total = total + 0.0 * change.sum()  # a gradient of zero, rather than none, where no proposal is good
        good = overlap > 0.55
        if good.any():
            size = (change[good] - aim[good]).abs()
            total = total + torch.where(size < 1 / 9, 4.5 * size * size, size - 1 / 18).sum() / good.sum()
        return total


@torch.no_grad()
def _matched(rois: Tensor, guess: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Overlap of each proposal with the best object of its class, and that object as a correction of it."""
    overlap, aim = rois.new_zeros(len(rois)), rois.new_zeros(len(rois), 7)
    if not len(boxes) or not len(rois):
        return overlap, aim
    iou = box_iou(rois.cpu().numpy(), boxes.cpu().numpy()) * (guess[:, None] == labels[None]).cpu().numpy()
    at = torch.from_numpy(iou.argmax(1)).to(rois.device)
    overlap = torch.from_numpy(iou.max(1)).to(rois)
    own = boxes[at].clone()
    away = own[:, :3] - rois[:, :3]
    c, s = rois[:, 6].cos(), rois[:, 6].sin()
    own[:, 0], own[:, 1], own[:, 2] = c * away[:, 0] + s * away[:, 1], c * away[:, 1] - s * away[:, 0], away[:, 2]
    turn = own[:, 6] - rois[:, 6]
    own[:, 6] = (
        turn - torch.floor(turn / torch.pi + 0.5) * torch.pi
    )  # which end is the front is left to the first stage
    local = rois.clone()
    local[:, :3], local[:, 6] = 0, 0
    return overlap, encode_boxes(own, local)
