"""Classifiers for small images (32 pixels), which the networks for ImageNet shrink too early.

Each takes [N, 3, H, W] and gives scores [N, classes]. Residual networks have the parameter names of the checkpoints in
common use (``layer1.0.conv1.weight``, ``linear.bias``), VGG those of torchvision, so that such files load strictly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewer.core.methods import Method, MethodTable
from fewer.models.mobilenet import MobileNetV2
from fewer.models.vit import VisionTransformer

__all__ = ["NETWORKS", "VGG", "DenseNet", "ResidualNet", "build"]


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut without parameters: every second pixel, and zeros as new channels.

    This is option A of He et al. (2016), section 4.2.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.missing = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.missing or self.stride > 1:
            before = self.missing // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.missing - before))
        return F.relu(x + y)


class ResidualNet(nn.Module):
    """ResNet of depth 6 n + 2 for CIFAR (He et al., 2016, section 4.2).

    Parameters
    ----------
    blocks
        n: residual blocks per stage; 3 is ResNet-20, 5 is ResNet-32, 9 is ResNet-56.
    num_classes
        Outputs.
    channels
        Of the input.
    width
        Channels of the first stage; the others have two and four times as many.
    stride
        Of the first convolution: 2 halves the resolution, and the cost of a step to about a quarter.

    Examples
    --------
    >>> net = ResidualNet(3).eval()
    >>> tuple(net(torch.zeros(2, 3, 32, 32)).shape), sum(p.numel() for p in net.parameters())
    ((2, 10), 269722)
    """

    def __init__(self, blocks: int, num_classes: int = 10, channels: int = 3, width: int = 16, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        stages, inputs = [], width
        for outputs, step in ((width, 1), (2 * width, 2), (4 * width, 2)):
            rows = [ResidualBlock(inputs if i == 0 else outputs, outputs, step if i == 0 else 1) for i in range(blocks)]
            stages.append(nn.Sequential(*rows))
            inputs = outputs
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(inputs, num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Scores [N, classes]."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


class VGG(nn.Module):
    """VGG-16 with batch normalisation and one linear layer at the end, as is usual for 32 pixels.

    Widths are those of Simonyan and Zisserman (2015), column D; the three large linear layers make no sense at 1 x 1.

    Parameters
    ----------
    num_classes
        Outputs.
    channels
        Of the input.
    width
        Channels of the first two convolutions, 64 in the paper; all others grow from it as they do there.

    Examples
    --------
    >>> tuple(VGG(width=16).eval()(torch.zeros(1, 3, 32, 32)).shape)
    (1, 10)
    """

    WIDTHS = (1, 1, 0, 2, 2, 0, 4, 4, 4, 0, 8, 8, 8, 0, 8, 8, 8, 0)
    """Channels of the convolutions, in units of the width; 0 halves the resolution."""

    def __init__(self, num_classes: int = 10, channels: int = 3, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for times in self.WIDTHS:
            if times == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            outputs = times * width
            layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
            channels = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Scores [N, classes]."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))


class DenseLayer(nn.Module):
    """Adds ``growth`` channels to what it is given: norm, ReLU, 1 x 1, norm, ReLU, 3 x 3."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, inputs + growth, H, W]."""
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    """DenseNet-121 (Huang et al., 2017) with a 3 x 3 stem that keeps the resolution.

    The blocks (6, 12, 24, 16 layers) and the halving between them are the paper's; growth 12 instead of 32 is usual
    for 32 pixels.

    Examples
    --------
    >>> tuple(DenseNet(blocks=(1, 1)).eval()(torch.zeros(1, 3, 32, 32)).shape)
    (1, 10)
    """

    def __init__(
        self,
        num_classes: int = 10,
        channels: int = 3,
        blocks: tuple[int, ...] | list[int] = (6, 12, 24, 16),
        growth: int = 12,
    ) -> None:
        super().__init__()
        width = 2 * growth
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
        for number, depth in enumerate(blocks):
            for _ in range(depth):
                layers.append(DenseLayer(width, growth))
                width += growth
            if number < len(blocks) - 1:
                layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
                layers += [nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
                width //= 2
        self.features = nn.Sequential(*layers, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.classifier = nn.Linear(width, num_classes)
        _initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        """Scores [N, classes]."""
        return self.classifier(self.features(images).mean(dim=(2, 3)))


class SmallMobileNet(MobileNetV2):
    """MobileNetV2 for 32 pixels: the first two halvings of the resolution are left out.

    Parameter names and shapes stay those of torchvision, so that ImageNet weights can be the start.

    Examples
    --------
    >>> tuple(SmallMobileNet().eval()(torch.zeros(1, 3, 32, 32)).shape)
    (1, 10)
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(num_classes)
        halving = [m for m in self.features.modules() if isinstance(m, nn.Conv2d) and m.stride == (2, 2)]
        for layer in halving[:2]:
            layer.stride = (1, 1)


def _initialise(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _vit(num_classes: int = 10) -> nn.Module:
    return VisionTransformer(image_size=32, patch_size=4, width=192, depth=6, heads=3, num_classes=num_classes)


def _tiny_vit(num_classes: int = 10) -> nn.Module:
    return VisionTransformer(image_size=32, patch_size=4, width=96, depth=4, heads=3, num_classes=num_classes)


def _nano_vit(num_classes: int = 10) -> nn.Module:
    return VisionTransformer(image_size=32, patch_size=8, width=96, depth=4, heads=3, num_classes=num_classes)


def _narrow_vgg(num_classes: int = 10) -> nn.Module:
    return VGG(num_classes, width=16)


def _trial(num_classes: int = 10) -> nn.Module:
    return ResidualNet(1, num_classes, width=24, stride=2)


NETWORKS: MethodTable[Callable[..., nn.Module]] = MethodTable(
    "network",
    [
        Method("resnet20", lambda num_classes=10: ResidualNet(3, num_classes), "0.27 M parameters", "He et al., 2016"),
        Method("resnet32", lambda num_classes=10: ResidualNet(5, num_classes), "0.46 M parameters", "He et al., 2016"),
        Method("resnet56", lambda num_classes=10: ResidualNet(9, num_classes), "0.85 M parameters", "He et al., 2016"),
        Method("resnet8", _trial, "0.17 M parameters at 16 pixels: trials on a CPU", "after He et al., 2016"),
        Method("vgg16-bn", VGG, "14.7 M parameters", "Simonyan and Zisserman, 2015"),
        Method("vgg16-bn-narrow", _narrow_vgg, "0.92 M parameters: trials on a CPU", "after Simonyan, 2015"),
        Method("densenet121", DenseNet, "1.0 M parameters, growth 12", "Huang et al., 2017"),
        Method("mobilenet-v2", SmallMobileNet, "2.2 M parameters", "Sandler et al., 2018"),
        Method("vit-small", _vit, "2.7 M parameters, patches of 4", "Dosovitskiy et al., 2021"),
        Method("vit-tiny", _tiny_vit, "0.46 M parameters: trials on a CPU", "after Dosovitskiy et al., 2021"),
        Method("vit-nano", _nano_vit, "0.47 M parameters, patches of 8: trials", "after Dosovitskiy et al., 2021"),
    ],
)
"""Networks for 32 pixels by name; ``run(num_classes=...)`` builds one with random weights."""


def build(name: str, **args: Any) -> nn.Module:
    """Build a network for small images with random weights.

    Raises
    ------
    FewerError
        For an unknown name, with the nearest one.

    Examples
    --------
    >>> type(build("resnet20", num_classes=4)).__name__
    'ResidualNet'
    """
    return NETWORKS[name].run(**args)
