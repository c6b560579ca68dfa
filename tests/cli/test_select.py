"""``fewer select`` from the shell."""

from __future__ import annotations

import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'fewer[select]'")

GOOD = ["--features=net.py:net", "--backend=serial", "--out=queue"]


def test_a_queue_and_a_further_round(fewer):
    told = fewer("select", "photos", "--budget=labels=2", *GOOD)
    assert told.code == 0, told
    assert "2 of 6 images to label, chosen by coverage" in told.out and "wrote queue/gallery.html" in told.out
    again = fewer("select", "--continue", "--out=queue", "--budget=labels=100%", "--json", "--backend=serial")
    assert again.code == 0 and len(json.loads(again.out)["chosen"]) == 4


def test_the_queue_may_be_named_in_the_place_of_the_pool(fewer):
    """As in ``fewer select --continue queue/``: it was taken for a pool of images."""
    assert fewer("select", "photos", "--budget=labels=2", *GOOD[:2], "--out=asked").code == 0
    again = fewer("select", "--continue", "asked", "--budget=labels=1", "--json", "--backend=serial")
    assert again.code == 0 and json.loads(again.out)["folder"] == "asked", again
    assert not Path("queue").exists()


def test_a_dry_run_writes_nothing(fewer):
    told = fewer("select", "photos", "--budget=labels=50%", "--dry-run", "--json")
    assert json.loads(told.out) | {"images": 6, "choose": 3} == json.loads(told.out) and not Path("queue").exists()


@pytest.mark.parametrize(("flag", "says"), [("--method=kcentre", "'kcenter'"), ("--to=cocco", "'coco'")])
def test_a_dry_run_finds_mistakes_too(fewer, flag, says):
    told = fewer("select", "photos", "--budget=labels=2", "--dry-run", flag)
    assert told.code == 2 and f"did you mean {says}" in told.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["photos"], "which budget?"),
        (["--budget=labels=2"], "which pool?"),
        (["photos", "--budget=labels=7"], "at most labels=6"),
        (["photos", "--budget=labels=2", "--method=bald"], "cold start"),
        (["fotos", "--budget=labels=2"], "did you mean 'photos'"),
        (["photos", "--budget=labels=2", "--device=cuda:0"], "on the CPU"),
    ],
)
def test_mistakes_are_one_sentence(fewer, words, says):
    told = fewer("select", *words, *GOOD)
    assert told.code == 2 and told.err.count("\n") == 1 and says in told.err and told.out == ""
    assert not Path("queue").exists()


def test_all_methods_are_listed(fewer):
    from fewer.selection.methods import METHODS

    assert json.loads(fewer("list", "selection", "--json").out).keys() == {*METHODS, "skactiveml/NAME"}


def test_a_pool_of_broken_images(fewer):
    shutil.rmtree("photos")
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(b"no")
    told = fewer("select", "photos", "--budget=labels=1", *GOOD)
    assert told.code == 2 and "none of the 1 images can be read; the first: a.png" in told.err


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _head(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))


def _encoded(pixels: np.ndarray, form: str) -> bytes:
    held = io.BytesIO()
    Image.fromarray(pixels).save(held, form)
    return held.getvalue()


def test_thousands_of_images_some_of_them_broken(fewer):
    """Ten kinds of damage, three files of each, among 3,000 images: skipped, counted, named; nothing else happens."""
    shutil.rmtree("photos")
    Path("photos").mkdir()
    rng = np.random.default_rng(0)
    good = [_encoded(rng.integers(0, 255, (6, 7, 3), np.uint8), "PNG") for _ in range(50)]
    noise = rng.integers(0, 255, (40, 40, 3), np.uint8)
    png, jpeg, grey = _encoded(noise, "PNG"), _encoded(noise, "JPEG"), np.full((3, 3), np.nan, np.float32)
    damage = {
        "empty.png": b"",
        "text.png": b"no picture",
        "page.jpg": b"<html><body>404 Not Found</body></html>",
        "cut.png": png[: len(png) // 2],
        "cut.jpg": jpeg[: len(jpeg) // 3],
        "flipped.png": png[:60] + bytes(255 - b for b in png[60:90]) + png[90:],
        "zeros.webp": bytes(500),
        "bomb.png": _head(60_000, 60_000) + _chunk(b"IDAT", zlib.compress(bytes(100))) + _chunk(b"IEND", b""),
        "nan.tif": _encoded(grey, "TIFF"),
    }
    broken = {f"{2 * i:04d}-{name}" for i, name in enumerate([*damage, "link.png"] * 3)}
    for name in broken:
        path = Path("photos", name)
        if "link" in name:
            path.symlink_to("gone.png")
        else:
            path.write_bytes(damage[name.split("-")[1]])
    for i in range(3000 - len(broken)):
        Path("photos", f"{i:04d}.png").write_bytes(good[i % 50])
    assert len([*Path("photos").iterdir()]) == 3000 and len(broken) == 30

    told = fewer("select", "photos", "--budget=labels=40", *GOOD)
    assert told.code == 0, told
    assert "30" in told.err + told.out and "Traceback" not in told.err
    plan = json.loads(Path("queue/plan.json").read_text())
    assert {one["name"] for one in plan["skipped"]} == broken
    assert all(one["reason"] and "\n" not in one["reason"] for one in plan["skipped"])
    page = Path("queue/gallery.html").read_text()
    assert all(name in page for name in broken)
    again = fewer("select", "--continue", "--out=queue", "--budget=labels=200", "--json", "--backend=serial")
    chosen = {one["name"] for one in json.loads(again.out)["chosen"]}
    assert again.code == 0 and len(chosen) == 200 and not chosen & broken
