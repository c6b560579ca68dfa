"""The queue for annotation tools: images in their order, sizes as the files have them, and nothing overwritten."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlparse

import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.selection.export import FORMATS, can_open, export
from fewer.selection.plan import Asked


@pytest.fixture
def asked(tmp_path):
    names = ["b/ä & 1%.png", "a/2.png"]
    for width, name in enumerate(names, 5):
        (tmp_path / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (width, 4)).save(tmp_path / "pool" / name)
    (tmp_path / "queue").mkdir()
    return [Asked(round=1, rank=rank, name=name, why="far from all") for rank, name in enumerate(names, 1)]


def test_a_task_of_label_studio_names_the_file_below_its_document_root(asked, tmp_path):
    (path,) = export(asked, tmp_path / "pool", tmp_path / "queue", ["labelstudio"])
    tasks = json.loads(path.read_text())
    assert [task["data"]["fewer_name"] for task in tasks] == [a.name for a in asked]
    url = urlparse(tasks[0]["data"]["image"])
    assert url.path == "/data/local-files/" and parse_qs(url.query) == {"d": [asked[0].name]}
    assert tasks[1]["data"]["rank"] == 2 and tasks[1]["data"]["why"] == "far from all"


def test_coco_has_the_sizes_of_the_files_and_no_annotation_yet(asked, tmp_path):
    (path,) = export(asked, tmp_path / "pool", tmp_path / "queue", ["coco"])
    data = json.loads(path.read_text())
    found = [(image["file_name"], image["width"], image["height"]) for image in data["images"]]
    assert found == [(asked[0].name, 5, 4), ("a/2.png", 6, 4)]
    assert data["annotations"] == [] and len({image["id"] for image in data["images"]}) == 2


def test_copies_for_masks_stay_as_an_annotator_left_them(asked, tmp_path):
    (folder,) = export(asked, tmp_path / "pool", tmp_path / "queue", ["masks"])
    assert (folder / "images" / asked[0].name).read_bytes() == (tmp_path / "pool" / asked[0].name).read_bytes()
    (folder / "images" / "a" / "2.png").write_bytes(b"turned by hand")
    (folder / "masks" / "mine.png").touch()
    export(asked, tmp_path / "pool", tmp_path / "queue", ["masks"])
    assert (folder / "images" / "a" / "2.png").read_bytes() == b"turned by hand"
    assert (folder / "masks" / "mine.png").exists()


def test_every_format_is_written_and_a_wrong_name_is_told_before_anything_is(asked, tmp_path):
    assert len(export(asked, tmp_path / "pool", tmp_path / "queue", list(FORMATS))) == len(FORMATS)
    with pytest.raises(FewerError, match="unknown export format 'coc'; did you mean 'coco'"):
        export(asked, tmp_path / "pool", tmp_path / "none", ["labelstudio", "coc"])


def test_only_images_can_be_opened(asked, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    assert can_open(tmp_path / "pool" / "a" / "2.png")
    assert not can_open(tmp_path / "text.png") and not can_open(tmp_path / "none.png")
