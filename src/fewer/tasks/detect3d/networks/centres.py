"""The centre head: a heat map of centres for each class, and the box at every cell."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.tasks.detect3d.networks.config import DetectorConfig

__all__ = ["CenterHead", "gaussian_radius"]

_BRANCHES = {"center": 2, "center_z": 1, "dim": 3, "rot": 2}


def gaussian_radius(length: float, width: float, overlap: float = 0.1) -> float:
    """Cells that a corner may move so that the overlap with the true box stays (CornerNet, Law and Deng, ECCV 2018).

    The least of the three cases: one corner moved in, both moved in, both moved out.

    Examples
    --------
    >>> gaussian_radius(10, 5)
    3.0
    """
    total, area = length + width, length * width
    found = []
    for a, b, c in (
        (1.0, total, area * (1 - overlap) / (1 + overlap)),
        (4.0, 2 * total, (1 - overlap) * area),
        (4 * overlap, -2 * overlap * total, (overlap - 1) * area),
    ):
        # the published code divides by 2, whatever the first coefficient; kept, since weights were trained with it
        found.append((b + math.sqrt(max(0.0, b * b - 4 * a * c))) / 2)
    return min(found)


class _SeparateHead(nn.Module):
    """Branches of one group of classes."""

    def __init__(self, channels: int, branches: dict[str, int], bias: bool) -> None:
        super().__init__()
        self.names = tuple(branches)
        for name, outputs in branches.items():
            first = nn.Sequential(
                nn.Conv2d(channels, channels, 3, padding=1, bias=bias), nn.BatchNorm2d(channels), nn.ReLU()
            )
            last = nn.Conv2d(channels, outputs, 3, padding=1)
            nn.init.constant_(last.bias, -2.19 if name == "hm" else 0.0)  # type: ignore[arg-type]
            setattr(self, name, nn.Sequential(first, last))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: getattr(self, name)(x) for name in self.names}


class CenterHead(nn.Module):
    """Heat maps and boxes (CenterPoint, first stage)."""

    def __init__(self, config: DetectorConfig, inputs: int) -> None:
        super().__init__()
        self.config = config
        self.groups = config.groups or (config.classes,)
        bias = config.bias_before_norm
        self.shared_conv = nn.Sequential(
            nn.Conv2d(inputs, config.shared, 3, padding=1, bias=bias), nn.BatchNorm2d(config.shared), nn.ReLU()
        )
        branches = {**_BRANCHES, **({"vel": 2} if config.velocity else {})}
        self.heads_list = nn.ModuleList(
            _SeparateHead(config.shared, {**branches, "hm": len(group)}, bias) for group in self.groups
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Raw outputs by ``group.branch``, each (samples, values, y, x)."""
        x = self.shared_conv(x)
        return {f"{i}.{k}": v for i, head in enumerate(self.heads_list) for k, v in head(x).items()}

    def _cells(self) -> tuple[float, float, float, float]:
        config, stride = self.config, self.config.head_stride
        return config.reach[0], config.reach[1], config.voxel[0] * stride, config.voxel[1] * stride

    def candidates(self, raw: dict[str, Tensor], most: int = 500) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """The most confident boxes of each sample: boxes (n, 7, or 9 with velocities), scores, class numbers, cells."""
        x0, y0, dx, dy = self._cells()
        found: list[list[tuple[Tensor, ...]]] = [[] for _ in range(len(raw["0.hm"]))]
        for number, group in enumerate(self.groups):
            part = {k.partition(".")[2]: v for k, v in raw.items() if k.startswith(f"{number}.")}
            names = torch.tensor([self.config.classes.index(n) for n in group], device=part["hm"].device)
            cells = part["hm"].shape[-2] * part["hm"].shape[-1]
            for sample in range(len(found)):
                heat = part["hm"][sample].sigmoid().flatten()
                score, at = heat.topk(min(most, len(heat)))
                cell = at % cells
                rows = {k: v[sample].flatten(1)[:, cell].T for k, v in part.items() if k != "hm"}
                wide = part["hm"].shape[-1]
                x = (cell % wide + rows["center"][:, 0]) * dx + x0
                y = (cell // wide + rows["center"][:, 1]) * dy + y0
                yaw = torch.atan2(rows["rot"][:, 1], rows["rot"][:, 0])
                sizes = rows["dim"].clamp(-6, 6).exp()
                boxes = torch.cat([x[:, None], y[:, None], rows["center_z"], sizes, yaw[:, None]], 1)
                if "vel" in rows:
                    boxes = torch.cat([boxes, rows["vel"]], 1)
                found[sample].append((boxes, score, names[at // cells], cell))
        return [tuple(torch.cat(column) for column in zip(*rows, strict=True)) for rows in found]  # type: ignore[misc]

    def loss(self, raw: dict[str, Tensor], boxes: list[Tensor], labels: list[Tensor]) -> Tensor:
        """Focal loss of heat maps and L1 of boxes at centres, weighed as in OpenPCDet."""
        total = raw["0.hm"].new_zeros(())
        for number, group in enumerate(self.groups):
            part = {k.partition(".")[2]: v for k, v in raw.items() if k.startswith(f"{number}.")}
            own = [self.config.classes.index(name) for name in group]
            heat, wanted, sample, cell = self._targets(part["hm"], boxes, labels, own)
            total = total + _heat_loss(part["hm"], heat)
            if len(wanted):
                names = ["center", "center_z", "dim", "rot"]
                got = torch.cat([part[n] for n in names], 1).flatten(2)[sample, :, cell]
                total = total + 2.0 * (got - wanted).abs().sum() / len(wanted)
        return total

    def _learning(self, column: int, row: int, tall: int, wide: int) -> Iterator[tuple[int, int]]:
        """Row and column of the cells that learn the box of an object: its centre, and those around it if wanted."""
        around = self.config.around
        for at_y in range(max(0, row - around), min(tall, row + around + 1)):
            for at_x in range(max(0, column - around), min(wide, column + around + 1)):
                yield at_y, at_x

    @torch.no_grad()
    def _targets(
        self, like: Tensor, boxes: list[Tensor], labels: list[Tensor], own: list[int]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x0, y0, dx, dy = self._cells()
        heat, tall, wide = torch.zeros_like(like), like.shape[-2], like.shape[-1]
        rows, samples, cells = [], [], []
        beside: dict[tuple[int, int], tuple[float, Tensor]] = {}
        ys, xs = torch.arange(tall, device=like.device)[:, None], torch.arange(wide, device=like.device)[None]
        for sample, (box, label) in enumerate(zip(boxes, labels, strict=True)):
            for one, number in zip(box, label.tolist(), strict=True):
                if number not in own:
                    continue
                x, y = float((one[0] - x0) / dx), float((one[1] - y0) / dy)
                if not (0 <= x < wide and 0 <= y < tall):
                    continue
                column, row = int(x), int(y)
                radius = max(2, int(gaussian_radius(float(one[3]) / dx, float(one[4]) / dy)))
                spread = (2 * radius + 1) / 6
                bump = torch.exp(-((xs - column) ** 2 + (ys - row) ** 2) / (2 * spread * spread))
                bump = bump * ((xs - column).abs() <= radius) * ((ys - row).abs() <= radius)
                place = own.index(number)
                heat[sample, place] = torch.maximum(heat[sample, place], bump.to(heat))
                rest = torch.cat([one[2:3], one[3:6].log(), torch.stack([one[6].cos(), one[6].sin()])])
                for at_y, at_x in self._learning(column, row, tall, wide):
                    aim = torch.cat([one.new_tensor([x - at_x, y - at_y]), rest])
                    key, apart = (sample, at_y * wide + at_x), (x - at_x - 0.5) ** 2 + (y - at_y - 0.5) ** 2
                    if (at_y, at_x) == (row, column):
                        rows.append(aim)
                        samples.append(sample)
                        cells.append(key[1])
                    elif key not in beside or apart < beside[key][0]:
                        beside[key] = (apart, aim)
        centres = set(zip(samples, cells, strict=True))
        for (sample, cell), (_, aim) in beside.items():
            if (sample, cell) not in centres:
                rows.append(aim)
                samples.append(sample)
                cells.append(cell)
        wanted = torch.stack(rows) if rows else like.new_zeros(0, 8)
        return heat, wanted, torch.tensor(samples, dtype=torch.long), torch.tensor(cells, dtype=torch.long)


def _heat_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """Penalty-reduced focal loss of a heat map (CornerNet, equation 1), over the number of centres."""
    chance = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    at = wanted.eq(1).to(chance)
    there = (chance.log() * (1 - chance) ** 2 * at).sum()
    away = (F.logsigmoid(-logits) * chance**2 * (1 - wanted) ** 4 * (1 - at)).sum()
    return -(there + away) / at.sum().clamp(min=1)
