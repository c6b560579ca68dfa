"""Model specs: every kind loads, is rebuilt, and fails in one sentence."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.data.preprocess import Preprocess
from fewer.models import adapters
from fewer.models.build import build_architecture
from fewer.models.spec import list_models, load_model
from tests.tiny import ConvNet

GOOD = """
import torch
from neighbour import width

def make():
    return torch.nn.Linear(width, 2)

def with_settings():
    return make(), dict(input_size=(1, 28, 28), mean=0.1, std=[0.3])

def settings_typo():
    return make(), dict(input_sise=(1, 28, 28))

def text():
    return "a model"

def fails():
    x = 1
    return x / 0
"""


@pytest.fixture
def user_file(tmp_path):
    (tmp_path / "neighbour.py").write_text("width = 3\n")
    path = tmp_path / "my_model.py"
    path.write_text(GOOD)
    yield path
    sys.modules.pop("neighbour", None)


def test_user_file(user_file):
    loaded = load_model(f"{user_file}:make")
    assert isinstance(loaded.model, nn.Linear) and not loaded.model.training
    assert loaded.name == "my_model.py:make"
    source = json.loads(json.dumps(loaded.source))
    assert build_architecture(source).weight.shape == (2, 3)
    assert str(user_file.parent) not in sys.path


def test_user_file_with_settings(user_file):
    loaded = load_model(f"{user_file}:with_settings")
    assert (loaded.input_size, loaded.mean, loaded.std) == ((1, 28, 28), (0.1,), (0.3,))
    assert isinstance(build_architecture(loaded.source), nn.Linear)
    assert load_model(f"{user_file}:with_settings", crop=1.0).crop == 1.0


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fails", r"my_model\.py, line 19: fails in fails\(\): ZeroDivisionError: division by zero"),
        ("mak", r"no function 'mak'; did you mean 'make'"),
        ("text", "must return an nn.Module or .*; it returned str"),
        ("settings_typo", "unknown key 'input_sise'; did you mean 'input_size'"),
    ],
)
def test_user_file_that_is_wrong(user_file, function, message):
    with pytest.raises(FewerError, match=message):
        load_model(f"{user_file}:{function}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import torch\n\nraise RuntimeError('no')\n", r"broken\.py, line 3: cannot be loaded: RuntimeError: no"),
        ("x = 1\ndef f(:\n", r"broken\.py, line 2: cannot be loaded: SyntaxError"),
        ("import no_such_module_at_all\n", r"line 1: cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_user_file_that_does_not_load(tmp_path, text, message):
    path = tmp_path / "broken.py"
    path.write_text(text)
    for _ in range(2):  # the second try must not find a half-made module
        with pytest.raises(FewerError, match=message):
            load_model(f"{path}:f")


def test_user_file_that_changed_since(user_file):
    source = load_model(f"{user_file}:make").source
    user_file.write_text(GOOD + "\n# changed\n")
    with pytest.raises(FewerError, match="has changed since the model was saved"):
        build_architecture(source)
    assert isinstance(build_architecture(source, architecture=lambda: nn.Linear(3, 2)), nn.Linear)
    user_file.unlink()
    with pytest.raises(FewerError, match="does not exist"):
        build_architecture(source)


def test_spec_without_function(user_file):
    with pytest.raises(FewerError, match="names a file but no function"):
        load_model(str(user_file))
    with pytest.raises(FewerError, match="does not exist"):
        load_model("nowhere.py:make")


def test_module_object():
    model = ConvNet().train()
    loaded = load_model(model, input_size=(3, 16, 16))
    assert loaded.model is model and not model.training
    assert loaded.source == {"kind": "object", "class": "tests.tiny:ConvNet"}
    assert loaded.input_size == (3, 16, 16)
    with pytest.raises(FewerError, match=r"tests\.tiny:ConvNet.*architecture="):
        build_architecture(loaded.source)
    assert isinstance(build_architecture(loaded.source, ConvNet), ConvNet)
    with pytest.raises(FewerError, match="returned NoneType"):
        build_architecture(loaded.source, lambda: None)


def test_list_models():
    assert {"fewer/dinov2-small", "fewer/mobilenet-v2", "fewer/vit-small-16"} <= set(list_models())


def test_vit_small():
    loaded = load_model("fewer/vit-small-16")
    assert sum(p.numel() for p in loaded.model.parameters()) == 22_050_664  # DeiT-S
    assert loaded.task == "classify"
    assert build_architecture(loaded.source).state_dict().keys() == loaded.model.state_dict().keys()


def test_built_in_architecture_needs_no_asset(monkeypatch):
    monkeypatch.setattr("fewer.data.assets.package_folder", lambda module: None)
    for name in ("dinov2-small", "mobilenet-v2"):
        assert isinstance(build_architecture({"kind": "builtin", "name": name, "args": {}}), nn.Module)
        with pytest.raises(FewerError, match=r"not installed; run: .*pip install"):
            load_model(f"fewer/{name}")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fewer/mobilenet", "did you mean 'fewer/mobilenet-v2'"),
        ("mobilenet-v2", "did you mean 'fewer/mobilenet-v2'"),
        ("fewer/", "unknown model"),
        ("zzz", "built in are fewer/dinov2-small"),
        ("some/net.onnx", r"net.onnx is an ONNX graph.*convert\('some/net.onnx'\).*net.py:make"),
        ("net.tflite", "a file of TensorFlow Lite.*FILE.py:FUNCTION"),
        ("weights/best.pth", "a file of weights.*--checkpoint best.pth"),
        (3, "got int"),
    ],
)
def test_unknown_specs(spec, message):
    with pytest.raises(FewerError, match=message):
        load_model(spec)


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(FewerError, match="holds no finished run"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "message"),
    [({"kind": "pickle"}, "unknown kind"), ({}, "unknown kind"), ({"kind": "builtin"}, "lacks the key 'name'")],
)
def test_sources_that_cannot_be_built(source, message):
    with pytest.raises(FewerError, match=message):
        build_architecture(source)


def test_missing_extras_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(FewerError, match=r"pip install .*\[hf\]"):
        load_model("hf/facebook/dinov2-small")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FewerError, match=r"pip install .*\[timm\]"):
        load_model("timm/deit_small_patch16_224")


@pytest.mark.apart  # the real torchvision may have been imported here, and operators stay declared
def test_torchvision_beside_another_build_of_torch(monkeypatch, tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    # what the CUDA wheel does beside a CPU torch: it registers a meta kernel for an operator that nobody declared
    (package / "__init__.py").write_text(
        "import torch\n"
        "@torch.library.register_fake('torchvision::nms')\n"
        "def nms(dets, scores, iou_threshold):\n    return dets.new_empty(0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    module = adapters.import_torchvision()
    assert module.nms and str(torch.ops.torchvision.nms.default._schema).startswith("torchvision::nms")
    monkeypatch.delitem(sys.modules, "torchvision")


@pytest.mark.apart
def test_transformers_beside_another_build_of_torchvision(monkeypatch, tmp_path):
    """It imports torchvision by itself; what that lacks is declared first."""
    for name, text in (
        ("torchvision", "import torch\n@torch.library.register_fake('torchvision::nms')\ndef nms(d):\n    return d\n"),
        ("transformers", "import torchvision\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("torchvision", "transformers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    assert adapters.import_transformers().torchvision.nms
    for name in ("torchvision", "transformers"):
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"input_size": (224, 224)}, "input_size must be"),
        ({"input_size": (3, 0, 224)}, "input_size must be"),
        ({"mean": (0.5, 0.5)}, "2 numbers but the input has 3 channels"),
        ({"std": 0.0}, "std must be positive"),
        ({"interpolation": "bicubik"}, "did you mean 'bicubic'"),
        ({"crop": 0}, "crop must lie"),
    ],
)
def test_preprocess_that_cannot_be_meant(settings, message):
    with pytest.raises(FewerError, match=message):
        Preprocess.of(settings)


def test_preprocess_round_trip():
    settings = Preprocess((1, 28, 28), 0.1, 0.3, "nearest", 1.0)
    assert Preprocess.of(json.loads(json.dumps(settings.to_dict()))) == settings
    assert Preprocess.of({"input_size": (1, 8, 8)}).mean == (0.5,)
