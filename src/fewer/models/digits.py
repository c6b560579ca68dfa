"""Small networks for grey digits, with the parameter names of the package ccexam."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["DigitNet"]


class DigitNet(nn.Module):
    """Two convolutions with pooling, then two linear layers: 0.42 M parameters for 28 pixels.

    Parameters
    ----------
    side
        Of the image in pixels, a multiple of 4.
    norm
        BatchNorm behind the convolutions, and dropout in front of the linear layers (the network for USPS).

    Examples
    --------
    >>> import torch
    >>> tuple(DigitNet(16, norm=True)(torch.zeros(2, 1, 16, 16)).shape)
    (2, 10)
    """

    def __init__(self, side: int = 28, norm: bool = False) -> None:
        super().__init__()

        def part(inputs: int, outputs: int) -> list[nn.Module]:
            between = [nn.BatchNorm2d(outputs)] if norm else []
            return [nn.Conv2d(inputs, outputs, 3, padding=1), *between, nn.ReLU(), nn.MaxPool2d(2)]

        def drop() -> list[nn.Module]:
            return [nn.Dropout(0.3)] if norm else []

        self.features = nn.Sequential(*part(1, 32), *part(32, 64))
        self.classifier = nn.Sequential(
            *drop(), nn.Linear(64 * (side // 4) ** 2, 128), nn.ReLU(), *drop(), nn.Linear(128, 10)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits [N, 10] of images [N, 1, side, side]."""
        return self.classifier(self.features(images).flatten(1))
