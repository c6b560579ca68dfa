"""More small networks for 32 x 32 pixels, of kinds that the contest's constants were not chosen on.

Like those of ``small_networks.py``, which they are trained as, they are nobody's: mixers without attention, one block
that is used again and again, a tower for both halves of an image, recurrent and cross-attending heads, transposed
convolutions and PixelShuffle.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DENSE", "ODD"]


class Residual(nn.Module):
    """Adds what a part makes of its input."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.part = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.part(x)


def conv_mixer(width: int = 96, depth: int = 5) -> nn.Module:
    """ConvMixer (Trockman and Kolter 2022)."""
    blocks: list[nn.Module] = []
    for _ in range(depth):
        depthwise = Residual(nn.Conv2d(width, width, 5, padding=2, groups=width), nn.GELU(), nn.BatchNorm2d(width))
        blocks += [depthwise, nn.Conv2d(width, width, 1), nn.GELU(), nn.BatchNorm2d(width)]
    stem = [nn.Conv2d(3, width, 4, 4), nn.GELU(), nn.BatchNorm2d(width)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


class Turned(nn.Module):
    """Mixes tokens: the part sees them as channels."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x.transpose(1, 2)).transpose(1, 2)


class MlpMixer(nn.Module):
    """MLP-Mixer (Tolstikhin et al. 2021)."""

    def __init__(self, width: int = 96, depth: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)

        def mlp(size: int) -> nn.Module:
            return nn.Sequential(nn.Linear(size, 2 * size), nn.GELU(), nn.Linear(2 * size, size))

        self.blocks = nn.Sequential(
            *(
                nn.Sequential(Residual(nn.LayerNorm(width), Turned(mlp(64))), Residual(nn.LayerNorm(width), mlp(width)))
                for _ in range(depth)
            )
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.stem(x).flatten(2).transpose(1, 2))).mean(1))


class Recursive(nn.Module):
    """One block of a transformer, used four times, as in ALBERT (Lan et al. 2020)."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 48, 3, 2, 1), nn.GELU(), nn.Conv2d(48, width, 2, 2))
        self.block = nn.TransformerEncoderLayer(width, 4, 256, 0.0, F.gelu, batch_first=True, norm_first=True)
        self.place = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2) + self.place
        for _ in range(4):
            x = self.block(x)
        return self.head(self.norm(x).mean(1))


class Siamese(nn.Module):
    """One tower for both halves of an image, and a head that compares them."""

    def __init__(self) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for i, o, stride in ((3, 32, 1), (32, 64, 2), (64, 96, 2), (96, 96, 1)):
            parts += [nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.LeakyReLU(0.1)]
        self.tower = nn.Sequential(*parts)
        self.head = nn.Sequential(nn.Linear(4 * 96, 128), nn.ReLU(), nn.Linear(128, 10))

    def forward(self, x: Tensor) -> Tensor:
        a, b = (self.tower(half).mean((2, 3)) for half in x.chunk(2, dim=3))
        return self.head(torch.cat([a, b, a * b, (a - b).abs()], 1))


class Reader(nn.Module):
    """Convolutions of several dilations, then an LSTM that reads the columns in both directions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 48, 3, 2, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU())
        self.wide = nn.ModuleList(
            nn.Sequential(nn.Conv2d(48, 48, 3, padding=d, dilation=d, groups=2), nn.BatchNorm2d(48), nn.ReLU())
            for d in (1, 2, 4)
        )
        self.join = nn.Sequential(nn.Conv2d(144, 64, 1), nn.ReLU(), nn.AvgPool2d((4, 2)))
        self.lstm = nn.LSTM(256, 64, batch_first=True, bidirectional=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.join(torch.cat([part(x) for part in self.wide], 1))
        return self.head(self.lstm(x.flatten(1, 2).transpose(1, 2))[0].mean(1))


class Queries(nn.Module):
    """Convolutions, then queries that attend to their map, as in DETR (Carion et al. 2020); two outputs."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 48, 3, 2, 1, bias=False), nn.BatchNorm2d(48), nn.SiLU(),
            nn.Conv2d(48, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.SiLU(),
        )  # fmt: skip
        layer = nn.TransformerDecoderLayer(width, 4, 192, 0.0, batch_first=True)
        self.decoder = nn.TransformerDecoder(layer, 2)
        self.query, self.place = nn.Embedding(5, width), nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.classes = nn.Linear(width, 10)
        self.box = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        memory = self.stem(x).flatten(2).transpose(1, 2) + self.place
        found = self.decoder(self.query.weight.expand(len(x), -1, -1), memory)
        return self.classes(found), self.box(found)


class SuperResolution(nn.Module):
    """Twice the pixels of a small image by PixelShuffle, as ESPCN (Shi et al. 2016), beside bilinear ones."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.PReLU(width)]
        for _ in range(3):
            body.append(Residual(nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width), nn.Conv2d(width, width, 1)))
        self.body = nn.Sequential(*body, nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x, 2)
        return self.body(small) + F.interpolate(small, scale_factor=2.0, mode="bilinear", align_corners=False)


class Bottleneck(nn.Module):
    """An autoencoder of transposed convolutions with a code of 64 numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 32, 4, 2, 1), nn.ELU(), nn.Conv2d(32, 64, 4, 2, 1), nn.ELU(), nn.Flatten(), nn.Linear(4096, 64)
        )
        self.start = nn.Linear(64, 4096)
        self.decoder = nn.Sequential(
            nn.ELU(), nn.ConvTranspose2d(64, 48, 4, 2, 1), nn.ELU(),
            nn.ConvTranspose2d(48, 32, 4, 2, 1, groups=2), nn.ELU(), nn.Conv2d(32, 3, 3, padding=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.start(self.encoder(x)).unflatten(1, (64, 8, 8)))


class DenseNet(nn.Module):
    """Every layer reads all before it (Huang et al. 2017): normalisation comes before a convolution, not behind it."""

    def __init__(self, growth: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2, 1)
        self.layers, self.shrink, width = nn.ModuleList(), nn.ModuleList(), 32
        for _ in range(2):
            for _ in range(4):
                self.layers.append(
                    nn.Sequential(
                        nn.BatchNorm2d(width),
                        nn.ReLU(),
                        nn.Conv2d(width, 48, 1, bias=False),
                        nn.BatchNorm2d(48),
                        nn.ReLU(),
                        nn.Conv2d(48, growth, 3, padding=1, bias=False),
                    )
                )
                width += growth
            self.shrink.append(nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width // 2, 1)))
            width //= 2
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in range(2):
            for layer in self.layers[4 * block : 4 * block + 4]:
                x = torch.cat([x, layer(x)], 1)
            x = F.avg_pool2d(self.shrink[block](x), 2)
        return self.head(x.mean((2, 3)))


ODD: dict[str, Callable[[], nn.Module]] = {
    "convmixer": conv_mixer, "mixer": MlpMixer, "recursive": Recursive, "siamese": Siamese, "reader": Reader,
    "queries": Queries, "superres": SuperResolution, "code": Bottleneck, "dense": DenseNet,
}  # fmt: skip
DENSE = ("superres", "code")
"""Those that are to give their image back."""
