"""A run that someone else made runs no code, reads no pickle, asks no server and takes no more memory than it may."""

from __future__ import annotations

import hashlib
import json
import pickle
import socket
from pathlib import Path

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.models.artefact import load_artefact, load_masks, save_artefact
from fewer.models.build import build_architecture
from fewer.models.foreign import alone, build_within
from fewer.models.load import load
from fewer.models.spec import load_model, load_named
from fewer.models.trust import forget_trust, remember_named, trust_files, was_named
from fewer.models.vit import VisionTransformer

ARGS = {"image_size": 16, "patch_size": 8, "width": 32, "depth": 2, "heads": 2, "num_classes": 4}


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = VisionTransformer(**ARGS)
    unit = {"name": "head", "pattern": "dense", "sparsity": 0.0, "precision": "fp32", "mask": None}
    source = {"kind": "builtin", "name": "vit-small-16", "args": ARGS}
    save_artefact(tmp_path / "run", net, [unit], source)
    return tmp_path / "run"


def change(run: Path, **facts) -> None:
    recipe = json.loads((run / "recipe.json").read_text())
    recipe.update(facts)
    (run / "recipe.json").write_text(json.dumps(recipe))


def evil(run: Path) -> Path:
    file = run / "evil.py"
    file.write_text("open('PWNED', 'w').write('x')\nfrom torch import nn\ndef f():\n    return nn.Linear(2, 2)\n")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    change(run, source={"kind": "file", "path": str(file), "function": "f", "sha256": sha256})
    return file


@pytest.mark.parametrize("how", [load, load_artefact, lambda run: load_model(str(run)), load_masks])
def test_code_that_a_recipe_names_does_not_run(run, how):
    evil(run)
    if how is load_masks:
        how(run)
    else:
        with pytest.raises(FewerError, match=r"Python code, .*evil\.py.*--trust"):
            how(run)
    assert not Path("PWNED").exists()


def test_code_runs_when_its_file_is_trusted_and_only_then(run, tmp_path):
    file = evil(run)
    other = tmp_path / "other.py"
    other.write_text("")
    for trust in (False, other, [other]):
        with pytest.raises(FewerError, match="--trust"):
            load(run, trust=trust)
    assert not Path("PWNED").exists()
    for trust in (True, file, [str(file)]):
        with pytest.raises(FewerError, match="another model"):  # the code ran, and made another network
            load(run, trust=trust)
        assert Path("PWNED").exists()
        with pytest.raises(FewerError, match="--trust"):
            load(run)
    trust_files([file])
    with pytest.raises(FewerError, match="another model"):
        load(run)
    forget_trust()
    with pytest.raises(FewerError, match="no such file"):
        load(run, trust="nothing.py")


def test_a_config_cannot_name_code_either(run):
    file = evil(run)
    with pytest.raises(FewerError, match="config names Python code"):
        load_named(f"{file}:f", "config")
    assert not Path("PWNED").exists()


def test_a_file_that_ends_the_program_is_told(tmp_path):
    (tmp_path / "quits.py").write_text("import sys\ndef f():\n    sys.exit(3)\n")
    (tmp_path / "quits_early.py").write_text("raise SystemExit\n")
    for name in ("quits", "quits_early"):
        with pytest.raises(FewerError, match=rf"{name}\.py.*sys\.exit"):
            load_model(f"{tmp_path / name}.py:f")


SOURCES = {
    "a checkpoint": {"kind": "timm", "name": "resnet18", "kwargs": {"checkpoint_path": "weights.bin"}},
    "pretrained": {"kind": "timm", "name": "resnet18", "kwargs": {"pretrained": True}},
    "a hub": {"kind": "timm", "name": "hf-hub:evil/net", "kwargs": {}},
    "a local folder": {"kind": "timm", "name": "local-dir:/tmp/x", "kwargs": {}},
    "an overlay": {"kind": "timm", "name": "resnet18", "kwargs": {"pretrained_cfg_overlay": {"url": "http://x"}}},
    "an address": {"kind": "monai", "name": "HoVerNet", "args": {"mode": "fast", "pretrained_url": "http://x"}},
    "a fetching class": {"kind": "monai", "name": "EfficientNetBN", "args": {"model_name": "efficientnet-b0"}},
    "a progress flag": {"kind": "monai", "name": "DenseNet", "args": {"pretrained": True}},
    "a hidden address": {"kind": "monai", "name": "UNet", "args": {"act": ["prelu", {"x": "http://127.0.0.1/x"}]}},
    "no class": {"kind": "monai", "name": "os.system", "args": {}},
    "another function": {"kind": "hf", "config": {"architecture": "pipeline", "config": {"model_type": "vit"}}},
    "remote kernels": {"kind": "hf", "config": {"architecture": "ViTModel", "config": {
        "model_type": "vit", "attn_implementation": "evil/kernel"}}},
    "a hidden backbone": {"kind": "hf", "config": {"architecture": "DetrModel", "config": {
        "model_type": "detr", "sub": {"use_pretrained_backbone": True}}}},
    "no kind": {"kind": ["builtin"], "name": "vit-small-16"},
    "a number for a name": {"kind": "builtin", "name": 3},
    "text for a number": {"kind": "builtin", "name": "vit-small-16", "args": {"width": "wide"}},
    "an unknown argument": {"kind": "builtin", "name": "vit-small-16", "args": {"weights": "x"}},
    "a huge number": {"kind": "builtin", "name": "vit-small-16", "args": {"width": 2**200}},
    "a huge network": {"kind": "builtin", "name": "vit-small-16", "args": {"width": 2**17, "heads": 2}},
    "a deep network": {"kind": "builtin", "name": "vit-small-16", "args": {"width": 8, "heads": 2, "depth": 2**30}},
    "a negative network": {"kind": "builtin", "name": "vit-small-16", "args": {"width": -8}},
    "no heads": {"kind": "builtin", "name": "vit-small-16", "args": {"heads": 0}},
    "surgery of another kind": {"kind": "builtin", "name": "vit-small-16", "args": ARGS, "surgery": {"a": 1}},
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_a_recipe_cannot_name_anything_but_layers(source):
    with pytest.raises(FewerError):
        build_architecture(source, room=2**28)


def test_nothing_gets_out_of_a_constructor():
    def calls():
        socket.create_connection(("127.0.0.1", 9))

    def unpickles():
        pickle.loads(b"cbuiltins\nlen\n.")

    for make in (calls, unpickles, lambda: __import__("os").system("true")):
        with pytest.raises(FewerError, match="cannot be built"):
            build_within(make, 2**20, "the net")
    with alone(), pytest.raises(PermissionError):
        unpickles()
    unpickles()  # outside of it everything is as before


@pytest.mark.parametrize("shape", [[40000, 40000, 2], [2**31, 2**31], [0], []])
def test_a_unit_of_another_shape_takes_no_memory(run, shape):
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["units"][0] |= {"shape": shape, "pattern": "unstructured"}
    change(run, units=recipe["units"])
    with pytest.raises(FewerError):
        load_artefact(run)
    if shape and min(shape):
        with pytest.raises(FewerError):
            load_masks(run)


def test_a_weights_file_that_claims_too_much(run):
    file = run / "model.safetensors"
    for data in (b"", b"\xff" * 8, (2**40).to_bytes(8, "little") + b"{}", b"\x02" + b"\0" * 7 + b"{}" * 50):
        file.write_bytes(data)
        change(run, weights_sha256=hashlib.sha256(data).hexdigest())
        with pytest.raises(FewerError):
            load_artefact(run)
    file.unlink()
    file.symlink_to("/dev/zero")
    with pytest.raises(FewerError):
        load_artefact(run)


def test_a_good_run_loads(run):
    with torch.no_grad():
        assert load(run)(torch.zeros(1, 3, 16, 16)).shape == (1, 4)
    assert isinstance(load(run), nn.Module)


def test_what_the_user_named_is_remembered_as_long_as_it_is_the_same(tmp_path, monkeypatch):
    place = tmp_path / "cache" / "fewer" / "named-files"
    monkeypatch.setattr("fewer.models.trust.named_files", lambda: place)
    file = tmp_path / "net.py"
    file.write_text("def f(): ...")
    assert not was_named(file, "f")
    remember_named(file, "f"), remember_named(file, "f")
    assert was_named(file, "f") and len(place.read_text().split()) == 1 and place.stat().st_mode & 0o077 == 0
    assert not was_named(file, "g") and not was_named(tmp_path / "other.py", "f")
    (tmp_path / "link.py").symlink_to(file)
    assert was_named(tmp_path / "link.py", "f")  # it is the same file
    copy = tmp_path / "copy.py"
    copy.write_text(file.read_text())
    assert not was_named(copy, "f")
    file.write_text("def f(): import os")
    assert not was_named(file, "f")
    file.write_text("def f(): ...")
    place.chmod(0o666)  # anyone could have written it
    assert not was_named(file, "f")
    place.unlink()
    place.symlink_to(tmp_path / "elsewhere")
    remember_named(file, "f")
    assert not (tmp_path / "elsewhere").exists() and not was_named(file, "f")


def test_nothing_is_remembered_where_nothing_can_be(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "net.py").write_text("def f(): ...")
    monkeypatch.setattr("fewer.models.trust.named_files", lambda: tmp_path / "file" / "named-files")
    remember_named(tmp_path / "net.py", "f")
    assert not was_named(tmp_path / "net.py", "f")
