"""Names that come back: what fewer wrote comes back exactly, what a tool rewrote is matched or refused."""

import json
import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from fewer.core.errors import FewerError
from fewer.data.images import load_images, printable, why_no_name
from fewer.selection.cvat import read_cvat, write_cvat
from fewer.selection.labels import Names, read_labels

LETTERS = st.sampled_from([*"ab1 %25#?&+:;='\"<>\\é", "e\u0301", "%20", "日"])
STEMS = st.lists(LETTERS, min_size=1, max_size=6).map("".join).filter(lambda s: s.strip() and not s.startswith("."))
POOLS = st.lists(st.tuples(st.sampled_from(["", "x/", "y/", "x/y/"]), STEMS), min_size=1, max_size=8, unique=True)


def _names(pairs: list) -> list[str]:
    return sorted({f"{folder}{stem}.png" for folder, stem in pairs})


def _task(name: str, label: str) -> dict:
    data = {"image": f"/data/local-files/?d={quote(name)}", "fewer_name": name}
    return {"data": data, "annotations": [{"result": [{"type": "choices", "value": {"choices": [label]}}]}]}


@settings(max_examples=150, deadline=None)
@given(POOLS)
def test_names_that_fewer_wrote_come_back_exactly(tmp_path_factory, pairs) -> None:
    names = _names(pairs)
    folder = tmp_path_factory.mktemp("names")
    wanted = {name: f"class {i}" for i, name in enumerate(names)}
    tasks = [_task(name, label) for name, label in wanted.items()]
    (folder / "back.json").write_text(json.dumps(tasks))
    assert read_labels(folder / "back.json", folder, names).labels == wanted
    for task in tasks:  # without our own key, the URL alone
        del task["data"]["fewer_name"]
    (folder / "back.json").write_text(json.dumps(tasks))
    assert read_labels(folder / "back.json", folder, names).labels == wanted
    images = [{"id": i, "file_name": name} for i, name in enumerate(names)]
    coco = {"images": images, "annotations": [{"image_id": str(i)} for i in range(len(names))]}
    (folder / "coco.json").write_text(json.dumps(coco))
    assert set(read_labels(folder / "coco.json", folder, names).labels) == set(names)
    assert _cvat_names(write_cvat([(name, 4, 3) for name in names], "")) == names


def _cvat_names(text: str) -> list[str]:
    from xml.etree import ElementTree

    for image in (root := ElementTree.fromstring(text)).iter("image"):
        ElementTree.SubElement(image, "box")
    return [drawn.name for drawn in read_cvat(ElementTree.tostring(root, "unicode"), Path("x.xml"))]


@settings(max_examples=150, deadline=None)
@given(POOLS, st.sampled_from(["", "images/", "/mnt/data/pool/"]), st.sampled_from(["plain", "back", "quoted", "nfd"]))
def test_a_name_of_another_tool_is_matched_or_refused_but_never_mistaken(pairs, front, how) -> None:
    names = _names(pairs)
    rewrite = {
        "plain": lambda n: n,
        "back": lambda n: n.replace("/", "\\"),
        "quoted": quote,
        "nfd": lambda n: unicodedata.normalize("NFD", n),
    }[how]
    find = Names(names).find
    for name in names:
        found = find(front + rewrite(name))
        if how == "plain" and not front:
            assert found == name
        if len(names) == 1:
            assert found in (name, None)
        if found not in (name, None):  # only another reading of the very path
            given = re.sub("/+", "/", (front + rewrite(name)).replace("\\", "/"))  # a doubled separator is one
            readings = {unicodedata.normalize("NFC", one) for one in (given, unquote(given), unquote(unquote(given)))}
            wanted = re.sub("/+", "/", unicodedata.normalize("NFC", found).replace("\\", "/"))
            assert any(f"/{one}".endswith(f"/{wanted}") for one in readings)


def test_the_spellings_of_tools_are_understood() -> None:
    find = Names(["photo 1.png", "café.png", "x/a.png", "y/a.png"]).find
    assert find("images\\photo 1.png") == find("images/photo%201.png") == find("/mnt/p/photo 1.png") == "photo 1.png"
    assert find("cafe\u0301.png") == find("images/caf%C3%A9.png") == "café.png"
    assert find("x\\a.png") == find("/pool/x/a.png") == "x/a.png"
    assert find("a.png") is None and find("z/a.png") is None


def test_two_images_of_one_stem_share_no_mask() -> None:
    names = ["a.jpg", "a.png", "b.jpg", "c.tar.jpg"]
    find = Names(names, by_stem=True).find
    assert find("a.png") is None and find("a.tif") is None
    assert find("a.jpg.png") == "a.jpg" and find("a.png.png") == "a.png"
    assert find("b.png") == "b.jpg" and find("c.tar.png") == "c.tar.jpg"


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(images=["a.png"]),
        lambda c: c.update(annotations={"1": []}),
        lambda c: c.update(annotations=[3]),
        lambda c: c["images"][0].update(width="wide"),
        lambda c: c["images"][0].update(width=float("inf")),
        lambda c: c["images"][0].update(width=[4]),
        lambda c: c.update(images=[*c["images"], {"id": 1, "file_name": "b.png"}]),
        lambda c: c.update(annotations=[]),
        lambda c: c.update(annotations=[{"image_id": 99}]),
        # what is no id would match what is no id either
        lambda c: (c["images"][0].update(id=[1]), c["annotations"][0].update(image_id=[1])),
        lambda c: (c["images"][0].update(id={}), c["annotations"][0].update(image_id={})),
        lambda c: (c["images"][0].pop("id"), c["annotations"][0].pop("image_id")),
        lambda c: (c["images"][0].update(id=True), c["annotations"][0].update(image_id=True)),
        lambda c: c["annotations"][0].update(image_id=float("nan")),
        lambda c: c["images"][0].pop("file_name"),
        lambda c: c["images"][0].update(file_name=["a.png"]),
    ],
)
def test_a_broken_coco_file_is_refused_in_a_sentence(tmp_path, change) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    coco = {"images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 3}], "annotations": [{"image_id": 1}]}
    change(coco)
    (tmp_path / "back.json").write_text(json.dumps(coco))
    with pytest.raises(FewerError):
        read_labels(tmp_path / "back.json", tmp_path, ["a.png", "b.png"])


@pytest.mark.parametrize("value", [{}, {"choices": []}, {"choices": [""]}, {"choices": [None]}, {"choices": {}}, [], 7])
def test_a_choice_without_a_class_is_no_label(tmp_path, value) -> None:
    task = {"data": {"image": "a.png"}, "annotations": [{"result": [{"type": "choices", "value": value}]}]}
    (tmp_path / "back.json").write_text(json.dumps([task]))
    with pytest.raises(FewerError, match="names no class"):
        read_labels(tmp_path / "back.json", tmp_path, ["a.png"])


def test_classes_may_be_one_word_or_a_number_and_boxes_have_none(tmp_path) -> None:
    results = {
        "a.png": [{"type": "choices", "value": {"choices": "cat"}}],
        "b.png": [{"type": "choices", "value": {"choices": [3]}}],
        "c.png": [{"type": "rectanglelabels", "value": {"x": 1}}],
        "d.png": [],  # looked at, and nothing was there to draw
    }
    tasks = [{"data": {"image": n}, "annotations": [{"result": found}]} for n, found in results.items()]
    (tmp_path / "back.json").write_text(json.dumps(tasks))
    wanted = {"a.png": "cat", "b.png": "3", "c.png": None, "d.png": None}
    assert read_labels(tmp_path / "back.json", tmp_path, list(wanted)).labels == wanted


@pytest.mark.parametrize("data", [{}, {"image": ["a.png"]}, {"image": {"a.png": 1}}, {"fewer_name": 3}, {"image": ""}])
def test_a_task_without_the_name_of_an_image_is_refused(tmp_path, data) -> None:
    (tmp_path / "back.json").write_text(json.dumps([{"data": data, "annotations": [{"result": []}]}]))
    with pytest.raises(FewerError, match="name of an image"):
        read_labels(tmp_path / "back.json", tmp_path, ["a.png"])


@pytest.mark.parametrize("number", [1, "1", 1.0, " 1"])
def test_ids_and_sizes_may_be_text(tmp_path, number) -> None:
    Image.new("L", (4, 3)).save(tmp_path / "a.png")
    coco = {"images": [{"id": 1, "file_name": "a.png", "width": "4.0", "height": 3.0}]}
    coco["annotations"] = [{"image_id": number}]
    (tmp_path / "back.json").write_text(json.dumps(coco))
    assert read_labels(tmp_path / "back.json", tmp_path, ["a.png"]).labels == {"a.png": None}


def test_two_labels_of_one_image_are_refused(tmp_path) -> None:
    (tmp_path / "back.csv").write_text("name,label\na.png,cat\n./a.png,dog\n")
    with pytest.raises(FewerError, match="two labels"):
        read_labels(tmp_path / "back.csv", tmp_path, ["a.png"])


def test_a_name_that_is_no_text_is_skipped_with_a_reason(tmp_path) -> None:
    for name in (b"a.png", b"b.png", b"caf\xe9.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
        (tmp_path / "x.png").rename(tmp_path / os.fsdecode(name))
    found = load_images(tmp_path, part="calibration")
    assert [(str(p.name), r) for p, r in found.skipped] == [
        ("caf\\xe9.png", "its name is no valid UTF-8; rename the file")
    ]
    assert why_no_name("a\nb.png") and str(printable("a\nb.png")) == "a\\x0ab.png"


@settings(max_examples=50, deadline=None)
@given(POOLS)
def test_an_exact_name_always_wins(pairs) -> None:
    names = _names(pairs)
    assume(names)
    find = Names(names).find
    assert [find(name) for name in names] == names
