"""Modules of networks that others trained, with the parameter names of their files; :mod:`unseen` fills them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CandidateNet", "LandmarkNet", "LineReader", "Matcher"]


class CandidateNet(nn.Module):
    """The first network of MTCNN (Zhang et al. 2016): maps of where a face may be, and of its box."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 10, 3), nn.PReLU(10)
        self.conv2, self.prelu2 = nn.Conv2d(10, 16, 3), nn.PReLU(16)
        self.conv3, self.prelu3 = nn.Conv2d(16, 32, 3), nn.PReLU(32)
        self.conv4_1, self.conv4_2 = nn.Conv2d(32, 2, 1), nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 2, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(self.prelu2(self.conv2(x))))
        return self.conv4_2(x), self.conv4_1(x).softmax(1)


class LandmarkNet(nn.Module):
    """The third network of MTCNN for 48 x 48 windows: box, five points of a face, and whether there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 32, 3), nn.PReLU(32)
        self.conv2, self.prelu2 = nn.Conv2d(32, 64, 3), nn.PReLU(64)
        self.conv3, self.prelu3 = nn.Conv2d(64, 64, 3), nn.PReLU(64)
        self.conv4, self.prelu4 = nn.Conv2d(64, 128, 2), nn.PReLU(128)
        self.dense5, self.prelu5 = nn.Linear(1152, 256), nn.PReLU(256)
        self.dense6_1, self.dense6_2, self.dense6_3 = nn.Linear(256, 2), nn.Linear(256, 4), nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu3(self.conv3(x)), 2, 2, ceil_mode=True)
        x = self.prelu4(self.conv4(x)).permute(0, 3, 2, 1).flatten(1)
        x = self.prelu5(self.dense5(x))
        return self.dense6_2(x), self.dense6_3(x), self.dense6_1(x).softmax(1)


class BasicLayer(nn.Module):
    """Convolution, BatchNorm without weights of its own, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, affine=False),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def layers(*widths: int, stride: int = 1, last: int = 3) -> list[nn.Module]:
    """A :class:`BasicLayer` between each two widths; the first has the stride, the last the kernel."""
    count = len(widths) - 1
    return [
        BasicLayer(widths[i], widths[i + 1], last if i == count - 1 else 3, stride if i == 0 else 1)
        for i in range(count)
    ]


class Matcher(nn.Module):
    """XFeat (Potje et al. 2024): features, key points and reliability of a grey picture, each at an eighth of its side.

    The file has a fifth part, which matches two pictures; its layers are here, and the forward pass does not use them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(1)
        self.skip1 = nn.Sequential(nn.AvgPool2d(4, 4), nn.Conv2d(1, 24, 1))
        self.block1 = nn.Sequential(*layers(1, 4), *layers(4, 8, 8, stride=2), *layers(8, 24, stride=2))
        self.block2 = nn.Sequential(*layers(24, 24, 24))
        self.block3 = nn.Sequential(*layers(24, 64, 64, 64, stride=2, last=1))
        self.block4 = nn.Sequential(*layers(64, 64, 64, 64, stride=2))
        self.block5 = nn.Sequential(*layers(64, 128, 128, 128, 64, stride=2, last=1))
        self.block_fusion = nn.Sequential(*layers(64, 64, 64), nn.Conv2d(64, 64, 1))
        point = [BasicLayer(64, 64, 1) for _ in range(5)]
        self.heatmap_head = nn.Sequential(*point[:2], nn.Conv2d(64, 1, 1), nn.Sigmoid())
        self.keypoint_head = nn.Sequential(*point[2:], nn.Conv2d(64, 65, 1))
        dense: list[nn.Module] = []
        for width in (128, 512, 512, 512):
            dense += [nn.Linear(width, 512), nn.BatchNorm1d(512, affine=False), nn.ReLU(inplace=True)]
        self.fine_matcher = nn.Sequential(*dense, nn.Linear(512, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            x = self.norm(x.mean(1, keepdim=True))
        x3 = self.block3(self.block2(self.block1(x) + self.skip1(x)))
        x4 = self.block4(x3)
        x5 = self.block5(x4)
        size = x3.shape[2:]
        features = self.block_fusion(
            x3 + F.interpolate(x4, size, mode="bilinear") + F.interpolate(x5, size, mode="bilinear")
        )
        return features, self.keypoint_head(F.pixel_unshuffle(x, 8)), self.heatmap_head(features)


class Recurrent(nn.Module):
    """A long short-term memory in both directions, and a layer that joins them."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.rnn(x)[0])


class LineReader(nn.Module):
    """A convolutional recurrent network that reads a line of text (Shi et al. 2015): scores of characters in order."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for inputs, outputs, pool in ((1, 32, 2), (32, 64, 2), (64, 128, 0), (128, 128, (2, 1))):
            parts += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(True)]
            parts += [nn.MaxPool2d(pool, pool)] if pool else []
        for inputs in (128, 256):
            parts += [nn.Conv2d(inputs, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), nn.ReLU(True)]
        parts += [nn.MaxPool2d((2, 1), (2, 1)), nn.Conv2d(256, 256, 2), nn.ReLU(True)]
        self.FeatureExtraction = nn.ModuleDict({"ConvNet": nn.Sequential(*parts)})
        self.SequenceModeling = nn.Sequential(Recurrent(256, 256, 256), Recurrent(256, 256, 256))
        self.Prediction = nn.Linear(256, characters)

    def forward(self, x: Tensor) -> Tensor:
        x = self.FeatureExtraction["ConvNet"](x).mean(2).transpose(1, 2)  # what is left of the height becomes one
        return self.Prediction(self.SequenceModeling(x))
