"""Networks of translators, small enough for two cores: a residual generator with taps, a patch discriminator, heads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Generator", "Sampler", "patch_discriminator", "small_unet"]


def _block(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    pad = kernel // 2
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, pad, padding_mode="reflect")
    return nn.Sequential(convolution, nn.InstanceNorm2d(outputs), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(width, width), nn.Conv2d(width, width, 3, 1, 1, padding_mode="reflect"), nn.InstanceNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Generator(nn.Module):
    """From an image to its translation: two halvings, residual blocks, two doublings (as in CycleGAN and CUT).

    Parameters
    ----------
    channels
        Of the input.
    width
        Of the first level.
    blocks
        Residual blocks.
    outputs
        Channels of the translation; by default as many as the input.
    classes
        Outputs of a segmentation head on the encoder; 0 for none.

    Examples
    --------
    >>> net = Generator(1, 4, 1, classes=3)
    >>> x = torch.zeros(1, 1, 16, 16)
    >>> net(x).shape, net.segment(x).shape, len(net.taps(x))
    (torch.Size([1, 1, 16, 16]), torch.Size([1, 3, 16, 16]), 4)
    """

    def __init__(
        self, channels: int, width: int = 16, blocks: int = 3, *, outputs: int | None = None, classes: int = 0
    ) -> None:
        super().__init__()
        outputs = channels if outputs is None else outputs
        self.encoder = nn.ModuleList(
            [_block(channels, width, kernel=7), _block(width, 2 * width, 2), _block(2 * width, 4 * width, 2)]
            + [_Residual(4 * width) for _ in range(blocks)]
        )
        self.up = nn.ModuleList([_block(4 * width, 2 * width), _block(2 * width, width)])
        self.last = nn.Conv2d(width, outputs, 7, 1, 3, padding_mode="reflect")
        self.widths = (channels, width, 2 * width, 4 * width)
        self.heads = nn.ModuleList([_block(4 * width, 2 * width), _block(2 * width, width)]) if classes else None
        self.classify = nn.Conv2d(width, classes, 1) if classes else None
        self.first = outputs

    def encode(self, x: Tensor) -> list[Tensor]:
        """What every part of the encoder puts out, the input first."""
        found = [x]
        for part in self.encoder:
            found.append(part(found[-1]))
        return found

    def taps(self, x: Tensor) -> list[Tensor]:
        """Features for PatchNCE: the input, the first two levels, and the last block."""
        found = self.encode(x)
        return [found[0], found[1], found[2], found[-1]]

    def _grow(self, x: Tensor, parts: Sequence[nn.Module], shape: tuple[int, int]) -> Tensor:
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            size = shape if last else (-(-shape[0] // 2), -(-shape[1] // 2))
            x = part(F.interpolate(x, size=size, mode="nearest"))
        return x

    def forward(self, x: Tensor) -> Tensor:
        """The translation, as a change of the middle of the input's channels."""
        shape = (x.shape[-2], x.shape[-1])
        return self.last(self._grow(self.encode(x)[-1], list(self.up), shape))

    def segment(self, x: Tensor) -> Tensor:
        """Class scores from the encoder alone."""
        assert self.heads is not None and self.classify is not None
        shape = (x.shape[-2], x.shape[-1])
        return self.classify(self._grow(self.encode(x)[-1], list(self.heads), shape))


class Sampler(nn.Module):
    """Features of some positions as unit vectors: a two-layer perceptron for each tap (the F of CUT)."""

    def __init__(self, widths: Sequence[int], size: int = 64) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Sequential(nn.Linear(w, size), nn.ReLU(), nn.Linear(size, size)) for w in widths)

    def forward(self, taps: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """Vectors ``(batch, positions, size)`` of each tap at given positions of its flattened plane."""
        found = []
        for tap, place, part in zip(taps, places, self.parts, strict=True):
            chosen = tap.flatten(2)[:, :, place].transpose(1, 2)
            found.append(F.normalize(part(chosen), dim=-1))
        return found


def patch_discriminator(channels: int, width: int = 16) -> nn.Sequential:
    """Real or fake for overlapping patches: three convolutions that halve, and a map of scores.

    Examples
    --------
    >>> patch_discriminator(1, 4)(torch.zeros(1, 1, 32, 32)).shape
    torch.Size([1, 1, 8, 8])
    """
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, 3, 2, 1),
        nn.InstanceNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 3, 1, 1),
    )


class small_unet(nn.Module):
    """A small U-Net that segments translated images while the translator learns."""

    def __init__(self, channels: int, classes: int, width: int = 8) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            [_block(channels, width), _block(width, 2 * width, 2), _block(2 * width, 4 * width, 2)]
        )
        self.up = nn.ModuleList([_block(6 * width, 2 * width), _block(3 * width, width)])
        self.last = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores."""
        one = self.down[0](x)
        two = self.down[1](one)
        y = self.down[2](two)
        for part, skip in zip(self.up, (two, one), strict=True):
            y = part(torch.cat([F.interpolate(y, size=skip.shape[-2:], mode="nearest"), skip], 1))
        return self.last(y)
