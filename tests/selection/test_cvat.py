"""The XML of CVAT, written and read, and what is no such file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.selection.cvat import DrawnImage, read_cvat, write_cvat
from fewer.selection.labels import read_labels

# the elements as CVAT's documentation of the format shows them; the last image was not annotated
BACK = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
 <image id="0" name="a/1.png" subset="default" width="6" height="4">
  <polygon label="lesion" source="manual" occluded="0" points="1.0,1.0;3.0,1.0;3.0,3.0" z_order="0"/>
 </image>
 <image id="1" name="2.png" width="6" height="4">
  <mask label="lesion" source="manual" occluded="0" rle="0, 4" left="1" top="1" width="2" height="2" z_order="0"/>
 </image>
 <image id="2" name="3.png" width="6" height="4">
  <tag label="crack" source="manual"/><tag label="dust" source="manual"/>
 </image>
 <image id="3" name="4.png" width="6" height="4"></image>
</annotations>
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a/1.png", "2.png", "3.png", "4.png"):
        (tmp_path / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 4)).save(tmp_path / "pool" / name)
    return tmp_path / "pool"


NAMES = ["2.png", "3.png", "4.png", "a/1.png"]


def test_what_is_written_lists_every_image_and_says_that_none_is_done() -> None:
    text = write_cvat([("<b>&.png", 6, 4), ("ä.png", 5, 5)], "a & b")
    images = ElementTree.fromstring(text).findall("image")
    assert [image.attrib for image in images] == [
        {"id": "0", "name": "<b>&.png", "width": "6", "height": "4"},
        {"id": "1", "name": "ä.png", "width": "5", "height": "5"},
    ]
    assert read_cvat(text, Path("x.xml")) == []


@pytest.mark.parametrize("packed", [False, True])
def test_shapes_and_tags_come_back_and_untouched_images_do_not(root: Path, packed: bool) -> None:
    file = root.parent / "annotations.xml"
    file.write_text(BACK, "utf-8")
    if packed:
        with zipfile.ZipFile(root.parent / "job.zip", "w") as archive:
            archive.write(file, "annotations.xml")
            archive.write(root / "2.png", "images/2.png")
        file = root.parent / "job.zip"
    found = read_labels(file, root, NAMES)
    assert found.kind == "cvat" and found.unknown == []
    assert found.labels == {"a/1.png": None, "2.png": None, "3.png": None}  # two tags are no one class


def test_an_image_without_a_size_is_taken_as_it_is() -> None:
    xml = '<annotations><image name="a.png"><box label="x"/></image></annotations>'
    assert read_cvat(xml, Path("x.xml")) == [DrawnImage("a.png", None, None)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<annotations>", "is not valid XML"),
        ("<boxes/>", "its outermost element is 'boxes'"),
        ('<annotations><track id="0"/></annotations>', "tracks of a video"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><annotations/>', "entities of its own"),
        (BACK.replace('width="6" height="4"', 'width="4" height="6"'), "has 4 x 6 pixels, but its image"),
        (BACK.replace("a/1.png", "b/9.png").replace('"2.png', '"8.png').replace('"3.png', '"7.png'), "none of the 3"),
    ],
)
def test_what_is_no_such_file_is_told(root: Path, text: str, says: str) -> None:
    (root.parent / "x.xml").write_text(text, "utf-8")
    with pytest.raises(FewerError, match=says):
        read_labels(root.parent / "x.xml", root, NAMES)


def test_archives_that_cannot_be_meant(root: Path) -> None:
    (root.parent / "x.zip").write_bytes(b"PK no")
    with pytest.raises(FewerError, match="damaged archive"):
        read_labels(root.parent / "x.zip", root, NAMES)
    with zipfile.ZipFile(root.parent / "y.zip", "w") as archive:
        archive.writestr("SegmentationClass/2.png", b"")
    with pytest.raises(FewerError, match="holds 0 files of annotations"):
        read_labels(root.parent / "y.zip", root, NAMES)
