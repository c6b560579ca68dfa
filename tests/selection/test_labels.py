"""Labels that come back from each tool: what counts, what does not, and what cannot be meant."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.selection.labels import read_labels

NAMES = ["a/1.png", "a/2.png", "b/1.png"]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A pool whose pictures are 6 x 4 pixels."""
    for name in NAMES:
        (tmp_path / "pool" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (6, 4)).save(tmp_path / "pool" / name)
    return tmp_path / "pool"


def written(folder: Path, name: str, value) -> Path:
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def task(image: str, *annotations, **data):
    return {"data": {"image": image, **data}, "annotations": list(annotations)}


def choice(*words, cancelled=False):
    return {"was_cancelled": cancelled, "result": [{"type": "choices", "value": {"choices": list(words)}}]}


def test_the_last_annotation_of_label_studio_counts_and_a_cancelled_one_does_not(root):
    tasks = [
        task("/data/local-files/?d=a%2F1.png", choice("crack"), choice("whole")),
        task("/data/upload/1/0123abcd-2.png", choice("crack"), choice("whole", cancelled=True)),
        task("s3://bucket/b/1.png", choice("whole", cancelled=True)),  # looked at and left
        task("http://host/elsewhere.png", choice("crack")),
    ]
    found = read_labels(written(root.parent, "export.json", tasks), root, NAMES)
    assert found.kind == "labelstudio"
    assert found.labels == {"a/1.png": "whole", "a/2.png": "crack"}
    assert found.unknown == ["http://host/elsewhere.png"]


def test_our_own_name_in_a_task_beats_its_url(root):
    tasks = [task("http://host/a/1.png", choice("crack"), fewer_name="b/1.png")]
    assert read_labels(written(root.parent, "e.json", tasks), root, NAMES).labels == {"b/1.png": "crack"}


def test_boxes_are_a_label_without_a_class(root):
    boxed = {"result": [{"type": "rectanglelabels", "value": {"rectanglelabels": ["crack"]}}]}
    found = read_labels(written(root.parent, "e.json", [task("a/2.png", boxed)]), root, NAMES)
    assert found.labels == {"a/2.png": None}


def test_only_drawn_images_of_coco_are_labelled(root):
    images = [{"id": 1, "file_name": "a/1.png", "width": 6, "height": 4}, {"id": 2, "file_name": "a/2.png"}]
    file = written(root.parent, "c.json", {"images": images, "annotations": [{"image_id": 1.0}]})
    found = read_labels(file, root, NAMES)
    assert (found.kind, found.labels, found.unknown) == ("coco", {"a/1.png": None}, [])


def test_masks_have_the_names_of_their_images_and_their_size(root, tmp_path):
    masks = tmp_path / "masks"
    (masks / "a").mkdir(parents=True)
    Image.new("L", (6, 4)).save(masks / "a" / "1.tif")
    np.save(masks / "a" / "2.npy", np.zeros((4, 6), np.uint8))
    found = read_labels(masks, root, NAMES)
    assert (found.kind, found.labels) == ("masks", {"a/1.png": None, "a/2.png": None})
    Image.new("L", (3, 2)).save(masks / "a" / "1.tif")
    with pytest.raises(FewerError, match=r"has 3 x 2 pixels, but its image 1\.png has 6 x 4"):
        read_labels(masks, root, NAMES)


def test_a_table_an_archive_and_a_plain_list(root):
    table = written(root.parent, "t.csv", "label,name\ncrack,a/1.png\n,a/2.png\n")
    assert read_labels(table, root, NAMES).labels == {"a/1.png": "crack"}  # a row without a label is not labelled yet
    plain = written(root.parent, "t.txt", "a/2.png\n\nb/1.png\n")
    assert read_labels(plain, root, NAMES).labels == {"a/2.png": None, "b/1.png": None}
    with zipfile.ZipFile(root.parent / "e.zip", "w") as archive:
        archive.writestr("export.json", json.dumps([task("a/1.png", choice("whole"))]))
    assert read_labels(root.parent / "e.zip", root, NAMES).labels == {"a/1.png": "whole"}


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("a.json", {"some": "thing"}, "neither a Label Studio export"),
        ("a.json", [{"no": "data"}], "not one of Label Studio tasks"),
        ("a.json", [], "holds no label of any image"),
        ("a.json", "{", "not valid JSON|damaged"),
        ("a.txt", "z.png\ny.png\n", r"none of the 2 images in .* is in the pool; the first is 'z\.png'"),
        ("a.csv", "name,status\na/1.png,waiting\n", "has no column 'label'"),
        ("a.txt", "", "is empty"),
    ],
)
def test_what_holds_no_labels_is_told(root, name, value, says):
    with pytest.raises(FewerError, match=says) as error:
        read_labels(written(root.parent, name, value), root, NAMES)
    assert "\n" not in str(error.value)


def test_an_archive_that_leaves_a_choice_is_not_guessed_at(root):
    with zipfile.ZipFile(root.parent / "e.zip", "w") as archive:
        archive.writestr("one.json", "[]")
        archive.writestr("two.xml", "<annotations/>")
    with pytest.raises(FewerError, match="holds 2 files of annotations"):
        read_labels(root.parent / "e.zip", root, NAMES)


def test_several_classes_of_one_image_are_no_one_class(root):
    several = [
        task("a/1.png", choice("crack", "rust")),
        task("a/2.png", {"result": choice("crack")["result"] + choice("old")["result"]}),
        task("b/1.png", {"result": choice("crack")["result"] * 2}),
    ]
    found = read_labels(written(root.parent, "e.json", several), root, NAMES)
    assert found.labels == {"a/1.png": None, "a/2.png": None, "b/1.png": "crack"}
    with pytest.raises(FewerError, match="names no class"):
        read_labels(written(root.parent, "e.json", [task("a/1.png", choice("crack", ""))]), root, NAMES)
    tags = '<tag label="crack"/><tag label="{}"/>'
    for second, label in (("rust", None), ("crack", "crack")):
        xml = f'<annotations><image name="a/1.png">{tags.format(second)}</image></annotations>'
        assert read_labels(written(root.parent, "c.xml", xml), root, NAMES).labels == {"a/1.png": label}


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("name,label\n b.png,x\nb.png,y\n", {" b.png": "x", "b.png": "y"}),
        ("name,label\n\tb.png ,x\n", {"b.png": "x"}),
        ("name,label\na\u2028b.png,x\na\u0085b.png,y\n", {"a\u2028b.png": "x", "a\u0085b.png": "y"}),
        ("id,name,label\n,b.png,x\n2,,\n", {"b.png": "x"}),
        (" b.png\n", {" b.png": None}),
        ("b.png,x\n", {"b.png": "x"}),
        ("b.png\r c.png \r\n", {"b.png": None, "c.png": None}),
    ],
)
def test_names_of_a_table_are_those_of_the_pool(tmp_path, text, labels):
    pool = ["b.png", " b.png", "a\u2028b.png", "a\u0085b.png", "ab.png", "c.png"]
    (tmp_path / "t.csv").write_bytes(text.encode())
    assert read_labels(tmp_path / "t.csv", tmp_path, pool).labels == labels


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("b.png,17,x\n", "3 columns without a heading"),  # as Label Studio's CSV: which of them is the class?
        ("image,id,choice\nb.png,17,x\n", "without a heading"),
        ("name,label\n,x\n", "names no image"),
        ("label,name\nx\n", "names no image"),
    ],
)
def test_a_table_that_leaves_it_open_is_refused(tmp_path, text, says):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(FewerError, match=says):
        read_labels(tmp_path / "t.csv", tmp_path, ["b.png", "c.png"])


@pytest.mark.parametrize("what", ["the pool", "copies", "links"])
def test_images_are_no_masks(root, tmp_path, what):
    """A folder of images given by mistake would label everything."""
    folder = tmp_path / "annotate"
    (folder / "masks").mkdir(parents=True)
    if what == "the pool":
        folder = root
    elif what == "copies":
        shutil.copytree(root, folder / "images")
    else:
        (folder / "images").symlink_to(root)
        folder = folder / "images"
    with pytest.raises(FewerError, match="is the image itself and no mask"):
        read_labels(folder, root, NAMES)
