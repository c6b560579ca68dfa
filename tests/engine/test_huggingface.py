"""A folder for the Hub: it loads back bit for bit, its card is the report's, and nothing foreign is written over."""

from __future__ import annotations

import json

import pytest
import torch

import fewer
from fewer.core.errors import FewerError
from fewer.engine.huggingface import CARD, CONFIG, IMAGES
from fewer.engine.settings import Settings
from fewer.reports.numbers import significant
from tests.support.transformers import need_transformers

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))
    return net, {"input_size": (3, 12, 12), "crop": 1.0}
"""
FEW = {"calibration": 12, "sensing": 4, "heldout": 4, "backend": "serial", "additivity": 0, "search": 0}


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    place = tmp_path_factory.mktemp("secret-user")
    (place / "net.py").write_text(NET)
    images = torch.randn(32, 3, 12, 12, generator=torch.Generator().manual_seed(1))
    settings = Settings(**FEW, baselines=("uniform", "wanda"))
    spec = f"{place}/net.py:make"
    fewer.compress(spec, images, "weights=50%", out=place / "run", settings=settings, command=f"fewer compress {spec}")
    return place / "run"


def test_it_loads_back_bit_for_bit(run, tmp_path) -> None:
    made = fewer.export(run, "huggingface", out=tmp_path / "hub", trust=True)
    assert made.path == tmp_path / "hub" and made.difference == 0.0
    names = {path.name for path in made.path.iterdir()}
    assert names == {CARD, CONFIG, IMAGES, "model.safetensors", "recipe.json"}
    assert not [path for path in tmp_path.iterdir() if path.name != "hub"]
    x = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(2))
    assert torch.equal(fewer.load(made.path, trust=True)(x), fewer.load(run, trust=True)(x))
    assert any("Python file" in one for one in made.lost)


def test_the_card_says_what_the_report_says(run, tmp_path) -> None:
    card = (fewer.export(run, "huggingface", out=tmp_path / "hub", trust=True).path / CARD).read_text()
    report = fewer.reports.RunReport.from_json((run / "report.json").read_text())
    head = card.split("---")[1]
    assert "library_name: fewer" in head and '"pruning"' in head and "pipeline_tag: image-feature-extraction" in head
    assert "base_model" not in head  # a file of one's own is no repository
    for row in report.baselines:
        assert f"| {row.label} | {significant(row.distortion)} |" in card, row.label
    assert "not part of this folder" in card and "licence" in card


def test_no_path_and_no_command_of_this_machine_is_published(run, tmp_path) -> None:
    made = fewer.export(run, "huggingface", out=tmp_path / "hub", trust=True)
    for name in (CARD, CONFIG, IMAGES):
        assert "secret-user" not in (made.path / name).read_text(), name


def test_the_preprocessing_is_that_of_the_model(run, tmp_path) -> None:
    made = fewer.export(run, "huggingface", out=tmp_path / "hub", trust=True)
    found = json.loads((made.path / IMAGES).read_text())
    assert found["crop_size"] == {"height": 12, "width": 12} and found["size"] == {"shortest_edge": 12}
    transformers = need_transformers()
    from PIL import Image

    from fewer.data.images import load_images
    from fewer.data.preprocess import Preprocess

    picture = Image.effect_mandelbrot((30, 20), (-2, -1, 1, 1), 60).convert("RGB")
    picture.save(tmp_path / "a.png")
    wanted = load_images([tmp_path / "a.png"], preprocess=Preprocess((3, 12, 12), crop=1.0)).tensor[0]
    processor = transformers.BitImageProcessor(**{k: v for k, v in found.items() if k != "image_processor_type"})
    given = torch.as_tensor(processor(picture, return_tensors="np")["pixel_values"][0])
    assert (given - wanted).abs().max() < 0.05


def test_what_is_there_stays_unless_it_is_an_earlier_export(run, tmp_path) -> None:
    with pytest.raises(FewerError, match="say where"):
        fewer.export(run, "huggingface", trust=True)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "a.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FewerError, match="not made by fewer export"):
            fewer.export(run, "huggingface", out=other, overwrite=overwrite, trust=True)
    assert [path.name for path in other.iterdir()] == ["a.txt"]
    fewer.export(run, "huggingface", out=tmp_path / "hub", trust=True)
    with pytest.raises(FewerError, match="--overwrite"):
        fewer.export(run, "huggingface", out=tmp_path / "hub", trust=True)
    assert fewer.export(run, "huggingface", out=tmp_path / "hub", overwrite=True, trust=True).bytes > 0
    with pytest.raises(FewerError, match="ONNX only"):
        fewer.export(run, "huggingface", out=tmp_path / "b", activations="static", trust=True)
