"""The worst held-out images: the right ones, shown as the model saw them, with what it said before and after."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import fewer
from fewer.engine.judge import Judge
from fewer.engine.prepare import prepare
from fewer.engine.settings import Settings
from fewer.engine.worst import SHOWN, worst_images
from fewer.models.vit import VisionTransformer
from fewer.reports.compression.html import render

FEW = {"calibration": 8, "sensing": 2, "heldout": 8, "backend": "serial", "additivity": 0, "search": 0}


def pictures(count: int, channels: int = 3, side: int = 16) -> Tensor:
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def worst(model: nn.Module, changed: nn.Module, images: Tensor) -> tuple[list[dict], Tensor]:
    prepared = prepare(model, images, Settings(**FEW))
    judge = Judge(model, prepared.heldout)
    _, changes = judge.judge_each(changed, slice(None))
    return worst_images(prepared, judge, changed, changes), changes


def decode(text: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


class Classes(nn.Module):
    """Scores of ten classes; ``shift`` is added to one of them, the more the brighter an image is."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.shift = nn.Linear(3 * 16 * 16, 10), shift

    def forward(self, x: Tensor) -> Tensor:
        bright = 1 + x.mean((1, 2, 3))[:, None]
        return self.body(x.flatten(1)) + self.shift * bright * torch.eye(10)[3]


def test_those_that_changed_most_come_first_with_their_classes() -> None:
    entries, changes = worst(Classes().eval(), Classes(50.0).eval(), pictures(40))
    assert len(entries) == SHOWN
    assert [e["distortion"] for e in entries] == changes.sort(descending=True).values[:SHOWN].tolist()
    for entry in entries:
        assert entry["after"][0]["label"] == "class 3" and entry["after"][0]["share"] > 0.99
        shares = [guess["share"] for guess in entry["before"]]
        assert len(shares) == 5 and shares == sorted(shares, reverse=True)
        assert max(decode(entry["picture"]).shape[:2]) == 160


def test_tokens_of_patches_are_drawn_in_the_colours_of_the_dense_model() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = VisionTransformer(32, 4, width=16, depth=1, heads=2).eval()
    entries, _ = worst(net, net, pictures(16, side=32))
    for entry in entries:
        assert "before" not in entry
        assert (decode(entry["before_map"]) == decode(entry["after_map"])).all()  # nothing was changed
    assert entries == worst(net, net, pictures(16, side=32))[0]


@pytest.mark.parametrize("channels", [1, 3])
def test_maps_are_drawn(channels: int) -> None:
    net = nn.Conv2d(3, channels, 3).eval()
    other = nn.Conv2d(3, channels, 3).eval()
    entries, _ = worst(net, other, pictures(16))
    assert (decode(entries[0]["before_map"]) != decode(entries[0]["after_map"])).any()


def test_what_is_no_picture_has_none() -> None:
    net = nn.Sequential(nn.Linear(4, 6)).eval()
    assert worst(net, net, torch.randn(32, 4))[0] == []
    volumes = nn.Conv3d(1, 2, 3).eval()
    assert worst(volumes, volumes, torch.randn(16, 1, 6, 6, 6))[0] == []


def test_the_page_shows_them_with_file_names_and_no_folder(tmp_path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "private").mkdir()
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)).save(tmp_path / "private" / f"photo{i}.png")
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef net():\n    torch.manual_seed(0)\n"
        "    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)\n"
        "    return nn.Sequential(*layers), {'input_size': (3, 16, 16), 'crop': 1.0}\n"
    )
    run = fewer.compress(f"{tmp_path}/net.py:net", str(tmp_path / "private"), "weights=50%", settings=Settings(**FEW))
    shown = run.report.worst
    assert len(shown) == SHOWN and all(one.file.startswith("photo") for one in shown)
    page = render(run.report)
    section = page[page.index('id="worst"') :][:60_000]
    assert section.count("data:image/jpeg;base64,") >= SHOWN and "The first class is the same on" in section
    assert "img-src data:" in page
