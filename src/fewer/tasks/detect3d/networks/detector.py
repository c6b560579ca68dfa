"""A detector: scans in, raw head tensors out; boxes follow from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.models.choices import Choices
from fewer.models.remembered import Facts, remembered
from fewer.tasks.detect3d.boxes import limit_angle
from fewer.tasks.detect3d.frames import Objects
from fewer.tasks.detect3d.networks.anchors import AnchorHeadSingle
from fewer.tasks.detect3d.networks.cells import MeanVFE, PillarVFE, cells_of
from fewer.tasks.detect3d.networks.centres import CenterHead
from fewer.tasks.detect3d.networks.config import DetectorConfig
from fewer.tasks.detect3d.networks.flat import BaseBEVBackbone
from fewer.tasks.detect3d.networks.second_stage import PointHeadSimple, PVRCNNHead, VoxelSetAbstraction
from fewer.tasks.detect3d.networks.volume import HeightCompression, VoxelBackBone8x
from fewer.tasks.detect3d.overlap import rotated_nms, voted

__all__ = ["Detector"]

_SECOND = ("rcnn_cls", "rcnn_reg")
_VOTES = 0.05
"""Confidence from which on a box votes, whatever the least confidence of what is wanted."""


class _Scatter(nn.Module):
    """Pillars to an image from above."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.side = config.grid

    def forward(self, features: Tensor, where: Tensor, samples: int) -> Tensor:
        x, y, _ = self.side
        keys = (where[:, 0] * y + where[:, 2]) * x + where[:, 3]
        image = features.new_zeros(samples * y * x, features.shape[1]).index_put((keys,), features)
        return image.view(samples, y, x, -1).permute(0, 3, 1, 2).contiguous()


class Detector(nn.Module):
    """A network for boxes in LiDAR scans, in the parts and under the names of OpenPCDet.

    Parameters
    ----------
    config
        See :class:`DetectorConfig`.

    Examples
    --------
    >>> from fewer.tasks.detect3d.networks.config import small_config
    >>> net = Detector(small_config("centerpoint-pillar")).eval()
    >>> scans = (torch.rand(500, 4) * 20, torch.rand(300, 4) * 20)
    >>> net(*scans)["0.hm"].shape
    torch.Size([2, 3, 64, 64])
    """

    global_step: Tensor
    choices: Choices | None = None
    """Proposals that were looked into first, while copies of the network are compared; see :meth:`forward`."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.makes_choices = config.network == "pv-rcnn"
        self.register_buffer("global_step", torch.zeros(1, dtype=torch.int64))
        if config.on_pillars:
            self.vfe: nn.Module = PillarVFE(config)
            self.map_to_bev: nn.Module = _Scatter(config)
            inputs = config.pillar
        else:
            self.vfe = MeanVFE()
            self.backbone_3d = VoxelBackBone8x(config)
            self.map_to_bev = HeightCompression()
            inputs = config.channels[-1] * self.backbone_3d.levels
        two_stages = config.network == "pv-rcnn"
        if two_stages:
            self.pfe = VoxelSetAbstraction(config, self.backbone_3d.channels, inputs)
        self.backbone_2d = BaseBEVBackbone(config, inputs)
        head = AnchorHeadSingle if config.has_anchors else CenterHead
        self.dense_head: AnchorHeadSingle | CenterHead = head(config, self.backbone_2d.channels)
        if two_stages:
            self.point_head = PointHeadSimple(self.pfe.before, config.point_fc)
            self.roi_head = PVRCNNHead(config)
        if config.norm_momentum is not None:
            for part in self.modules():
                if isinstance(part, nn.modules.batchnorm._BatchNorm):
                    part.momentum = config.norm_momentum

    def forward(self, *scans: Tensor) -> dict[str, Tensor]:
        """Raw head tensors, each (samples, values, y, x), and ``occupied``: cells of the head with a point nearby.

        The second stage of PV-RCNN is written back to the priors that its proposals came from, zero elsewhere, so that
        two networks can be compared place by place. While the engine compares copies of a network, all of them look
        into the proposals that the first one had for a scan (:mod:`fewer.models.choices`): otherwise the smallest
        change of the first stage, which lets another of two equal boxes win, would count as a change of the second.
        Scans of one length may come as one tensor (samples, points, features).
        """
        if len(scans) == 1 and scans[0].ndim == 3:
            scans = tuple(scans[0])
        if not scans or any(scan.ndim != 2 or scan.shape[1] < self.config.features for scan in scans):
            shapes = [tuple(scan.shape) for scan in scans]
            raise FewerError(f"scans are rows of {self.config.features} values or more; got the shapes {shapes}")
        return self._run(scans, self.choices)[0]

    def _run(
        self, scans: tuple[Tensor, ...], choices: Choices | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        facts = self._facts(scans)
        cells = facts.once("cells", lambda: cells_of(scans, self.config))
        features = self.vfe(cells)
        stages: dict[str, Any] = {}
        if self.config.on_pillars:
            image = self.map_to_bev(features, cells.where, cells.samples)
        else:
            sites, stages = self.backbone_3d(features, cells.where, cells.samples, facts)
            image = self.map_to_bev(sites)
        flat = self.backbone_2d(image)
        raw = self.dense_head(flat)
        more: dict[str, Any] = {"cells": cells}
        if self.config.network == "pv-rcnn":
            more |= self._second_stage(scans, raw, image, stages, choices, facts)
            raw = {**raw, **{name: more[name] for name in _SECOND}}
        return {**raw, "occupied": _occupied(cells.where, cells.samples, self.config, next(iter(raw.values())))}, more

    def _facts(self, scans: tuple[Tensor, ...]) -> Facts:
        """What depends on the scans and the grid alone, kept while copies of the network see the same scans."""
        if self.training:  # every scan is another one there
            return Facts()
        c = self.config
        grid = (c.on_pillars, c.residual, c.reach, c.voxel, c.features, c.most_points, c.channels, c.keypoints)
        return remembered(scans, *grid)

    def _second_stage(
        self,
        scans: tuple[Tensor, ...],
        raw: dict[str, Tensor],
        image: Tensor,
        stages: dict[str, Any],
        choices: Choices | None,
        facts: Facts,
    ) -> dict[str, Any]:
        config, found = self.config, self._proposals(raw)
        if choices is not None:  # the own ones are made all the same, so that the time is that of use
            found = [choices.first(scan, own) for scan, own in zip(scans, found, strict=True)]
        points = self.pfe(scans, image, stages, facts)
        seen = self.point_head(points["before"])
        weighted = points["features"] * seen.sigmoid()
        confidence, change = self.roi_head([f[0] for f in found], points["places"], weighted)
        raw_cls, raw_reg = confidence, change
        priors = 2 * len(config.anchors)
        side = next(iter(raw.values())).shape[-2:]
        maps = {"rcnn_cls": (confidence, 1), "rcnn_reg": (change, 7)}
        out: dict[str, Any] = {}
        start = 0
        flat = {k: v.new_zeros(len(found), side[0] * side[1] * priors, n) for k, (v, n) in maps.items()}
        for sample, (boxes, *_, at) in enumerate(found):
            for name, (values, _) in maps.items():
                part = values[start : start + len(boxes)]
                flat[name] = flat[name].index_put((torch.full_like(at, sample), at), part)
            start += len(boxes)
        for name, value in flat.items():
            out[name] = value.view(len(found), *side, -1).permute(0, 3, 1, 2)
        return out | {"found": found, "points": points, "seen": seen, "second": (raw_cls, raw_reg)}

    @torch.no_grad()
    def _proposals(self, raw: dict[str, Tensor]) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """Boxes of the first stage that the second looks into: boxes, scores, class numbers, priors, by sample."""
        found = []
        for boxes, scores, labels, at in self.dense_head.candidates(raw):
            kept = rotated_nms(boxes.double().cpu().numpy(), scores.double().cpu().numpy(), 0.7, self.config.proposals)
            kept = torch.from_numpy(np.ascontiguousarray(kept)).to(boxes.device)
            found.append((boxes[kept], scores[kept], labels[kept], at[kept]))
        return found

    @torch.no_grad()
    def detect(self, *scans: Tensor, score: float | None = None) -> list[Objects]:
        """Objects of each scan, the most confident first.

        Parameters
        ----------
        scans
            Each (points, features or more).
        score
            Least confidence; that of the configuration by default.
        """
        raw, more = self._run(scans)
        return self.objects(raw, more, score)

    @torch.no_grad()
    def objects(
        self, raw: dict[str, Tensor], more: dict[str, Any] | None = None, score: float | None = None
    ) -> list[Objects]:
        """Objects from raw head tensors."""
        config, least = self.config, self.config.score if score is None else score
        if config.network == "pv-rcnn":
            assert more is not None
            confidence, change = more["second"]
            rows = self.roi_head.refined(more["found"], confidence, change)
        else:
            rows = self.dense_head.candidates(raw)
        found = []
        for boxes, scores, labels, *_ in rows:
            box, confidence, label = (t.double().cpu().numpy() for t in (boxes, scores, labels))
            voters = least if config.vote is None else min(least, _VOTES)
            good = (confidence >= voters) & np.isfinite(box).all(1)
            box, confidence, label = box[good], confidence[good], label[good].astype(int)
            kept: list[int] = []
            moved = box.copy()
            for number in range(len(config.classes)):
                own = np.flatnonzero(label == number)
                wanted = own[confidence[own] >= least]
                best = wanted[rotated_nms(box[wanted, :7], confidence[wanted], config.overlap, config.most_boxes)]
                if config.vote is not None:
                    moved[best] = voted(box[own], confidence[own], np.searchsorted(own, best), config.vote)
                kept += best.tolist()
            box = moved
            order = sorted(kept, key=lambda i: -confidence[i])[: config.most_boxes]
            box = box[order]
            box[:, 6] = limit_angle(box[:, 6])
            names = tuple(config.classes[label[i]] for i in order)
            speed = box[:, 7:9] if box.shape[1] > 7 else None
            found.append(Objects(box[:, :7], names, confidence[order], speed))
        return found

    def loss(self, scans: tuple[Tensor, ...], boxes: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Training loss of a batch.

        Parameters
        ----------
        scans
            Each (points, features or more).
        boxes
            Of each scan, shape (n, 7).
        labels
            Class numbers, shape (n,).
        """
        raw, more = self._run(scans)
        total = self.dense_head.loss(raw, boxes, labels)
        if self.config.network == "pv-rcnn":
            total = total + self.point_head.loss(more["seen"], more["points"]["places"], boxes)
            scores, corrections = more["second"]
            total = total + self.roi_head.loss(more["found"], scores, corrections, boxes, labels)
        return total


def _occupied(where: Tensor, samples: int, config: DetectorConfig, like: Tensor) -> Tensor:
    """Which cells of the head have an occupied cell of the grid in them or beside them, bool (samples, 1, y, x)."""
    tall, wide = like.shape[-2:]
    stride = config.head_stride
    grid = torch.zeros(samples, 1, tall, wide, device=where.device)
    y, x = (where[:, 2] // stride).clamp(max=tall - 1), (where[:, 3] // stride).clamp(max=wide - 1)
    grid[where[:, 0], 0, y, x] = 1
    return nn.functional.max_pool2d(grid, 3, 1, 1) > 0
