"""GaitGL: convolutions over space and time, global and local (Lin et al., ICCV 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fewer.tasks.gait.networks.network import GaitNetwork
from fewer.tasks.gait.networks.parts import ConvOnly3d, SeparateFCs, keep_real
from fewer.tasks.gait.tpa import TPAConfig

__all__ = ["GaitGL"]

_ROWS = 64


def _cube(ins: int, outs: int) -> ConvOnly3d:
    return ConvOnly3d(ins, outs, (3, 3, 3), (1, 1, 1), (1, 1, 1))


class GlobalLocal(nn.Module):
    """A convolution of the whole beside one of horizontal strips; added up, or one above the other."""

    def __init__(self, ins: int, outs: int, halving: int = 3, stacked: bool = False) -> None:
        super().__init__()
        self.halving, self.stacked = halving, stacked
        self.global_conv3d, self.local_conv3d = _cube(ins, outs), _cube(ins, outs)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve."""
        whole = self.global_conv3d(x)
        strips = x.split(x.shape[3] // 2**self.halving, 3)
        local = torch.cat([self.local_conv3d(strip) for strip in strips], 3)
        if self.stacked:
            return F.leaky_relu(torch.cat([whole, local], 3))
        return F.leaky_relu(whole) + F.leaky_relu(local)


def _long_enough(x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Sequences of one or two frames (axis 2) repeated, as three frames become one; in a padded batch just as alone."""
    if lengths is None:
        return (x if x.shape[2] > 2 else x.repeat(1, 1, 3 if x.shape[2] == 1 else 2, 1, 1)), None
    short = lengths < 3
    if x.shape[2] < 4:
        x = F.pad(x, (0, 0, 0, 0, 0, 4 - x.shape[2]))
    frames = x.shape[2]
    places = torch.arange(frames, device=x.device) % torch.where(short, lengths, frames)[:, None]
    again = x.gather(2, places[:, None, :, None, None].expand_as(x))
    return again, torch.where(short, lengths + 2, lengths)  # 1 and 2 frames become 3 and 4


class GeneralMean(nn.Module):
    """Generalised mean over every row, with a learnt power: (n, channels, 64, width) to (n, channels, 64)."""

    def __init__(self, power: float = 6.5, rows: int = _ROWS) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.ones(1) * power)
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """Pool."""
        x = x.reshape(*x.shape[:2], self.rows, -1).clamp(min=1e-6)
        return x.pow(self.p).mean(3).pow(1 / self.p)


class GaitGL(GaitNetwork):
    """Three global-local blocks over a third of the frames; the form of OpenGait for CASIA-B.

    Parameters
    ----------
    channels
        Of the three widths.
    classes
        Identities of the training.
    tpa
        Put Temporal Periodic Alignment before temporal pooling.
    """

    def __init__(
        self, channels: Sequence[int] = (32, 64, 128), classes: int = 74, tpa: TPAConfig | None = None
    ) -> None:
        super().__init__()
        a, b, c = channels
        self.conv3d = nn.Sequential(_cube(1, a), nn.LeakyReLU())
        self.LTA = nn.Sequential(ConvOnly3d(a, a, (3, 1, 1), (3, 1, 1), (0, 0, 0)), nn.LeakyReLU())
        self.GLConvA0 = GlobalLocal(a, b)
        self.MaxPool0 = nn.MaxPool3d((1, 2, 2))
        self.GLConvA1 = GlobalLocal(b, c)
        self.GLConvB2 = GlobalLocal(c, c, stacked=True)
        self.HPP = GeneralMean()
        self.Head0 = SeparateFCs(_ROWS, c, c)
        self.Bn = nn.BatchNorm1d(c)
        self.Head1 = SeparateFCs(_ROWS, c, classes)
        self.place_tpa(c, _ROWS, tpa)

    def trunk(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Every layer sees zeros past the end of a sequence, as if the batch ended there."""
        x, lengths = _long_enough(x, lengths)
        x = self.LTA(keep_real(self.conv3d(keep_real(x, lengths)), lengths))
        if lengths is not None:
            lengths = torch.div(lengths, 3, rounding_mode="floor")
        x = self.MaxPool0(self.GLConvA0(keep_real(x, lengths)))
        x = self.GLConvA1(keep_real(x, lengths))
        return self.GLConvB2(keep_real(x, lengths)), lengths

    def strips(self, x: Tensor) -> Tensor:
        """Every row of the stacked maps."""
        return self.HPP(x)

    def head(self, parts: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Linear map, batch norm, classes."""
        calm = self.Bn(self.Head0(parts))
        return calm, calm, self.Head1(calm)
