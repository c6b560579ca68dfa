"""Optional model libraries, where they are installed: our nets and theirs agree to the last bit."""

from __future__ import annotations

import importlib.util
import json

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.models import adapters
from fewer.models.build import build_architecture
from fewer.models.mobilenet import MobileNetV2
from fewer.models.spec import load_model
from fewer.models.vit import VisionTransformer


def need(module):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")


def agree(ours, theirs, forward=None):
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return torch.allclose(ours.eval()(x), (forward or theirs.eval())(x), atol=1e-5)


def test_mobilenet_is_torchvisions():
    need("torchvision")
    torchvision = adapters.import_torchvision()
    assert agree(MobileNetV2(), torchvision.models.mobilenet_v2())


def test_vit_is_timms():
    need("timm")
    timm = adapters.import_timm()
    assert agree(VisionTransformer(num_classes=1000), timm.create_model("deit_small_patch16_224"))
    backbone = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0).eval()
    ours = VisionTransformer(patch_size=14, layer_scale=1.0)
    assert agree(ours, backbone, backbone.forward_features)


def test_timm_names():
    need("timm")
    with pytest.raises(FewerError, match="did you mean 'timm/deit_small_patch16_224'"):
        load_model("timm/deit_smal_patch16_224")
    source = {"kind": "timm", "name": "deit_tiny_patch16_224", "kwargs": {}}
    assert sum(p.numel() for p in build_architecture(source).parameters()) == 5_717_416


def test_transformers_from_a_local_folder(tmp_path):
    need("transformers")
    transformers = adapters.import_transformers()
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=48, image_size=32, patch_size=16
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path)
    loaded = load_model(f"hf/{tmp_path}")
    assert loaded.input_size == (3, 32, 32)
    rebuilt = build_architecture(json.loads(json.dumps(loaded.source)))
    rebuilt.load_state_dict(loaded.model.state_dict(), strict=True)
    x = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(rebuilt(x), loaded.model(x)) and rebuilt(x).shape == (1, 2)
    with pytest.raises(FewerError, match="could not be loaded"):
        load_model(f"hf/{tmp_path / 'nowhere'}")
