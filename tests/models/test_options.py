"""Options of a spec: weights of one's own, classes, and how images become the input."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fewer.core.errors import FewerError
from fewer.models.options import load_checkpoint, split_spec, with_options
from fewer.models.spec import load_model, load_named


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same weights as people keep them."""
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    state, folder = net.state_dict(), tmp_path_factory.mktemp("weights")
    files = {name: folder / name for name in ("plain.safetensors", "plain.pt", "training.pth", "wrapped.pt")}
    save_file(state, files["plain.safetensors"])
    torch.save(state, files["plain.pt"])
    torch.save({"epoch": 3, "model": state, "optimizer": {"lr": 0.1}}, files["training.pth"])
    torch.save({"state_dict": {f"module._orig_mod.{k}": v for k, v in state.items()}}, files["wrapped.pt"])
    return files


def _net() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize("name", ["plain.safetensors", "plain.pt", "training.pth", "wrapped.pt"])
def test_weights_are_found_however_they_were_kept(weights: dict[str, Path], name: str) -> None:
    net = load_checkpoint(_net(), weights[name])
    torch.manual_seed(1)
    assert torch.equal(net[0].weight, nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))[0].weight)


def test_a_checkpoint_that_holds_code_is_not_opened(tmp_path: Path) -> None:
    torch.save(_net(), tmp_path / "whole.pt")
    with pytest.raises(FewerError, match="holds more than weights"):
        load_checkpoint(_net(), tmp_path / "whole.pt")


def test_checkpoints_of_another_model(weights: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(FewerError, match=r"lacks 4.weight.*"):
        load_checkpoint(nn.Sequential(*_net(), nn.ReLU(), nn.Linear(3, 2)), weights["plain.pt"])
    with pytest.raises(FewerError, match="classes=3"):
        load_checkpoint(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 5)), weights["plain.pt"])
    with pytest.raises(FewerError, match="does not exist"):
        load_checkpoint(_net(), tmp_path / "none.pt")
    (tmp_path / "cut.safetensors").write_bytes(weights["plain.safetensors"].read_bytes()[:40])
    with pytest.raises(FewerError, match="truncated"):
        load_checkpoint(_net(), tmp_path / "cut.safetensors")


def test_a_spec_with_options_opens_the_same_model_again(tmp_path: Path) -> None:
    from fewer.models import builtin

    model = builtin.build("mnist-cnn")
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    spec = with_options("fewer/mnist-cnn", checkpoint=tmp_path / "mine.safetensors", input_size="1x28x28", mean="0.2")
    for loaded in (load_model(spec), load_named(spec, "config.toml")):
        assert loaded.preprocess.mean == (0.2,) and loaded.preprocess.std == (0.3081,)
        for name, value in model.state_dict().items():
            assert torch.equal(value, loaded.model.state_dict()[name])


def test_preprocessing_that_nobody_gave_is_called_assumed(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(2, 2)\n")
    spec = f"{tmp_path / 'net.py'}:make"
    assert load_model(spec).assumed and load_model(nn.Linear(2, 2)).assumed
    assert not load_model(f"{spec}?input_size=96").assumed
    assert load_model(f"{spec}?input_size=1x28x28").preprocess.mean == (0.5,)
    assert not load_model("fewer/vit-small-16").assumed


def test_another_number_of_classes_needs_weights_of_its_own() -> None:
    with pytest.raises(FewerError, match="give those of your network"):
        load_model("fewer/mobilenet-v2?classes=3")
    with pytest.raises(FewerError, match="is fixed"):
        load_model("fewer/mnist-cnn?classes=3")
    assert load_model("fewer/vit-small-16?classes=3").model(torch.zeros(1, 3, 224, 224)).shape == (1, 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fewer/vit-small-16?chekpoint=a.pt", "did you mean 'checkpoint'"),
        ("fewer/vit-small-16?mean=grey", "'grey' is no number"),
        ("fewer/vit-small-16?input_size=big", "write a side such as 96"),
        ("fewer/vit-small-16?classes=ten", "classes=10"),
        ("fewer/vit-small-16?classes=²", "classes=10"),
        ("fewer/vit-small-16?classes=0", "classes=10"),
        ("fewer/vit-small-16?classes=99999999999", "classes=10"),
        ("fewer/vit-small-16?input_size=²x3", "write a side such as 96"),
        ("fewer/vit-small-16?input_size=9999999999", "write a side such as 96"),
        ("fewer/vit-small-16?crop=", "unknown option"),
    ],
)
def test_options_that_cannot_be_read(spec: str, message: str) -> None:
    with pytest.raises(FewerError, match=message):
        split_spec(spec)


@pytest.mark.apart  # it may declare operators of torchvision for good
def test_torchvision_classifiers_bring_their_own_preprocessing() -> None:
    from fewer.models import adapters
    from fewer.models.build import build_architecture

    try:
        adapters.import_torchvision()
    except FewerError as error:
        pytest.skip(str(error))
    model, preprocess = adapters.torchvision_model("squeezenet1_1", pretrained=False, num_classes=5)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert preprocess.input_size == (3, 224, 224) and preprocess.crop == 0.875
    source = {"kind": "torchvision", "name": "squeezenet1_1", "kwargs": {"num_classes": 5}}
    assert build_architecture(source).state_dict().keys() == model.state_dict().keys()
    with pytest.raises(FewerError, match="did you mean 'torchvision/resnet50'"):
        adapters.torchvision_model("resnt50", pretrained=False)


TENSORS = {
    "on meta": (torch.empty(3, 8, device="meta"), "lies on 'meta'"),
    "sparse": (torch.eye(3, 8).to_sparse(), "is a sparse tensor.*to_dense"),
    "quantized": (torch.quantize_per_tensor(torch.ones(3, 8), 0.1, 0, torch.qint8), "quantized by torch"),
    "a single number": (torch.tensor(1.0), r"is \(\) there and \(3, 8\) here"),
    "complex": (torch.ones(3, 8, dtype=torch.cfloat), "complex there and real here"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", TENSORS)
def test_weights_of_another_kind_are_told(tmp_path: Path, kind: str) -> None:
    tensor, says = TENSORS[kind]
    torch.save({**_net().state_dict(), "2.weight": tensor}, tmp_path / "odd.pt")
    with pytest.raises(FewerError, match=says) as told:
        load_checkpoint(_net(), tmp_path / "odd.pt")
    assert "\n" not in str(told.value)


def test_a_file_without_names_or_without_an_end_is_told(tmp_path: Path) -> None:
    circle: dict = {}
    circle["model"] = circle
    for content in ({1: torch.ones(2)}, circle, {"model": {"model": {}}}, [torch.ones(2)]):
        torch.save(content, tmp_path / "odd.pt")
        with pytest.raises(FewerError, match="holds no weights by name"):
            load_checkpoint(_net(), tmp_path / "odd.pt")


def test_a_checkpoint_is_not_unpacked_before_its_size_is_known(
    weights: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(weights["plain.pt"]) as plain, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in plain.infolist():
            archive.writestr(one.filename, bytes(2**23) if one.filename.endswith("data/0") else plain.read(one))
    assert bomb.stat().st_size < 2**16
    monkeypatch.setattr("fewer.models.options.data_limit", lambda: 2**22)
    with pytest.raises(FewerError, match=r"unpacked, has 8\.4 MB"):
        load_checkpoint(_net(), bomb)


def test_a_whole_module_and_a_script_are_named_for_what_they_are(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    torch.save(net, tmp_path / "whole.pt")
    torch.jit.script(net).save(str(tmp_path / "script.pt"))
    with pytest.raises(FewerError, match=r"names the Python code torch\.nn\.modules\.container\.Sequential\)") as told:
        load_checkpoint(net, tmp_path / "whole.pt")
    assert "\x1b" not in str(told.value)
    with pytest.raises(FewerError, match=r"script\.pt is TorchScript"):
        load_model(str(tmp_path / "script.pt"))
    with pytest.raises(FewerError, match="which do not say what network they are for"):
        load_model(str(tmp_path / "whole.pt"))
