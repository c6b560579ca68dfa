"""Every format gives the same images and labels as were written; damaged files are told in one sentence."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks import task_for
from fewer.tasks.classify.dataset import ClassifyData, holdout
from fewer.tasks.classify.pictures import ArrayPictures
from fewer.tasks.classify.readers import class_names, format_of, open_data
from tests.support.shared_data import shared_data
from tests.tasks.classify.shapes import write_folders

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 255, (6, 32, 32, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 9, 1, 0])


def planes(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def cifar_python(root: Path) -> None:
    for name, part in (("data_batch_1", slice(0, 2)), ("data_batch_2", slice(2, 4)), ("test_batch", slice(4, 6))):
        found = {b"data": planes(PIXELS[part]), b"labels": LABELS[part].tolist(), b"filenames": [b"a.png", b"b.png"]}
        (root / name).write_bytes(pickle.dumps(found, protocol=2))
    names = [f"kind{i}".encode() for i in range(10)]
    (root / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, protocol=2))


def cifar_binary(root: Path) -> None:
    rows = np.concatenate([LABELS[:, None].astype(np.uint8), planes(PIXELS)], 1)
    (root / "data_batch_1.bin").write_bytes(rows[:4].tobytes())
    (root / "test_batch.bin").write_bytes(rows[4:].tobytes())


def npz(root: Path) -> None:
    np.savez(root / "train.npz", images=PIXELS[:4], label=LABELS[:4], classes=[f"kind{i}" for i in range(10)])
    np.savez(root / "test.npz", images=PIXELS[4:], label=LABELS[4:], classes=[f"kind{i}" for i in range(10)])


def idx(root: Path) -> None:
    grey = PIXELS[..., 0]
    for stem, part, pack in (("train", slice(0, 4), gzip.compress), ("t10k", slice(4, 6), bytes)):
        head = bytes((0, 0, 8, 3)) + struct.pack(">3I", *grey[part].shape)
        suffix = ".gz" if pack is gzip.compress else ""
        (root / f"{stem}-images-idx3-ubyte{suffix}").write_bytes(pack(head + grey[part].tobytes()))
        head = bytes((0, 0, 8, 1)) + struct.pack(">I", len(LABELS[part]))
        (root / f"{stem}-labels-idx1-ubyte{suffix}").write_bytes(pack(head + LABELS[part].astype(np.uint8).tobytes()))


@pytest.mark.parametrize("write", [cifar_python, cifar_binary, npz, idx], ids=lambda f: f.__name__)
def test_formats_of_known_sets_give_back_what_was_written(tmp_path: Path, write) -> None:
    write(tmp_path)
    data = open_data(tmp_path)
    assert data.labels.tolist() == LABELS.tolist()
    assert data.parts == ("train",) * 4 + ("test",) * 2
    assert len(data.classes) == 10 == len(data.model_classes)
    for row in range(6):
        wanted = PIXELS[row] if write is not idx else PIXELS[row, ..., 0]
        assert np.array_equal(np.asarray(data.pictures[row]), wanted)
        assert data.pictures.raw(row) != data.pictures.raw((row + 1) % 6)
    train, judge = holdout(data, 0.5, seed=3)
    assert (train.tolist(), judge.tolist()) == ([0, 1, 2, 3], [4, 5])


def test_cifar_100_has_fine_labels(tmp_path: Path) -> None:
    for part in ("train", "test"):
        found = {"data": planes(PIXELS[:2]), "fine_labels": [3, 99], "coarse_labels": [0, 1]}
        (tmp_path / part).write_bytes(pickle.dumps(found))
    names = [f"fine{i}" for i in range(100)]
    (tmp_path / "meta").write_bytes(pickle.dumps({"fine_label_names": names}))
    data = open_data(tmp_path)
    assert [data.classes[i] for i in data.labels] == ["fine3", "fine99"] * 2
    binary = tmp_path / "binary"
    binary.mkdir()
    rows = np.concatenate([np.array([[0, 3], [1, 99]], np.uint8), planes(PIXELS[:2])], 1)
    (binary / "test.bin").write_bytes(rows.tobytes())
    assert open_data(binary).labels.tolist() == [3, 99]


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return print, ("ran",)

    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": Evil()}))
    with pytest.raises(FewerError, match=r"asks for builtins\.print"):
        open_data(tmp_path)


def test_folders_tables_and_parts(tmp_path: Path) -> None:
    write_folders(tmp_path / "photos", each=3)
    data = open_data(tmp_path / "photos")
    assert data.count() == {"across": 3, "disc": 3, "upright": 3}
    (tmp_path / "photos" / "disc" / "phone.heic").write_bytes(b"x")
    assert [name for name, _ in open_data(tmp_path / "photos").skipped] == ["disc/phone.heic"]
    for part in ("train", "val"):
        write_folders(tmp_path / "both" / part, each=2, seed=len(part))
    both = open_data(tmp_path / "both")
    assert both.has_parts and both.count(both.rows("test")) == {"across": 2, "disc": 2, "upright": 2}
    table = tmp_path / "photos" / "labels.csv"
    table.write_text("path;class;split\nacross/across000.png;a;train\ndisc/disc001.png;b;test\nnone.png;a;test\n")
    found = open_data(tmp_path / "photos")
    assert (found.classes, found.parts, found.skipped) == (
        ("a", "b"),
        ("train", "test"),
        (("none.png", "does not exist"),),
    )
    listed = tmp_path / "photos" / "my.json"
    listed.write_text(json.dumps({"disc/disc002.png": 7, "across/across001.png": "10"}))
    assert open_data(listed).classes == ("7", "10")  # numbers in the order of numbers
    (tmp_path / "photos" / "classes.txt").write_text("b\na\n")
    assert open_data(table).model_classes == ("b", "a")


@pytest.mark.parametrize("names", [("images", "masks"), ("imagesTr", "labelsTr"), ("img", "labels")])
def test_a_segmentation_set_is_no_set_of_classes(tmp_path: Path, names: tuple[str, str]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / name / "a.png")
    assert format_of(tmp_path) == ""
    with pytest.raises(FewerError, match="no labelled set"):
        open_data(tmp_path)
    assert task_for(None, data=tmp_path).name == "segment"


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("labels.csv", b"picture,kind\na.png,1\n", "no column 'file'"),
        ("labels.csv", b"file,label\na.png,1\n", "exists"),
        ("labels.json", b"[1", "damaged"),
        ("train.npz", b"no zip", "damaged"),
        ("data_batch_1.bin", b"123", "no multiple"),
        ("data_batch_1", b"\x80\x04K", "damaged"),
        ("train-images-idx3-ubyte", b"\0\0\x08\x03", "no labels"),
    ],
)
def test_damaged_files_are_told(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FewerError, match=told):
        open_data(tmp_path)


def test_names_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('["cat", "dog"]')
    assert class_names(tmp_path / "a.json") == ("cat", "dog")
    (tmp_path / "b.txt").write_text("cat\ncat\n")
    with pytest.raises(FewerError, match="'cat' twice"):
        class_names(tmp_path / "b.txt")


def test_cifar_10_of_the_shared_data() -> None:
    data = open_data(shared_data("cifar10/test.npz"))
    assert (len(data), data.classes[0], data.pictures[7].size) == (10_000, "airplane", (32, 32))
    assert data.kind == "npz" and set(data.count().values()) == {1000}


def test_what_is_no_set_says_what_to_give_instead(tmp_path: Path) -> None:
    with pytest.raises(FewerError, match=r"does not exist; it can be had at https://www\.cs\.toronto\.edu"):
        open_data(tmp_path / "CIFAR-10")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"x")
    with pytest.raises(FewerError, match="unpack it, and give the folder that is inside"):
        open_data(tmp_path / "cifar-10-python.tar.gz")
    with pytest.raises(FewerError, match="give the folder that it is in, "):
        cifar_binary(tmp_path)
        open_data(tmp_path / "data_batch_1.bin")
    (tmp_path / "outer" / "cifar-10-batches-py").mkdir(parents=True)
    (tmp_path / "outer" / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"x")
    with pytest.raises(FewerError, match=r"give the folder inside, .*cifar-10-batches-py"):
        open_data(tmp_path / "outer")


def test_tiny_imagenet_as_it_is_distributed(tmp_path: Path) -> None:
    for number, name in enumerate(("n01", "n02")):
        (tmp_path / "train" / name / "images").mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (4, 4), (number, i, 0)).save(tmp_path / "train" / name / "images" / f"{name}_{i}.JPEG")
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("a\t0\t0\t4\t4\n")
    for part in ("val", "test"):
        (tmp_path / part / "images").mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (4, 4), (i, i, 9)).save(tmp_path / part / "images" / f"{part}_{i}.JPEG")
    noted = tmp_path / "val" / "val_annotations.txt"
    noted.write_text("val_0.JPEG\tn02\t0\t0\t4\t4\nval_1.JPEG\tn01\t0\t0\t4\t4\nval_2.JPEG\tn01\t0\t0\t4\t4\n")
    data = open_data(tmp_path)
    assert data.classes == ("n01", "n02") and data.count(data.rows("train")) == {"n01": 3, "n02": 3}
    assert [(data.names[row], data.labels[row]) for row in data.rows("test")] == [
        ("val/images/val_0.JPEG", 1),
        ("val/images/val_1.JPEG", 0),
    ]
    assert data.skipped == ((str(tmp_path / "test" / "images"), "nothing says of what classes its images are"),)
    assert task_for(None, data=tmp_path).name == "classify"
    noted.write_text("val_0.JPEG\n")
    with pytest.raises(FewerError, match="must hold a file and its class in each line"):
        open_data(tmp_path)
    with pytest.raises(FewerError, match=r"it can be had at http://cs231n\.stanford\.edu/tiny-imagenet"):
        open_data(tmp_path / "tiny-imagenet-200")


def test_a_table_from_windows(tmp_path: Path) -> None:
    write_folders(tmp_path, each=1)
    (tmp_path / "labels.csv").write_text("Image;Label\nacross\\across000.png;a\ndisc\\disc000.png;b\n")
    assert open_data(tmp_path).labels.tolist() == [0, 1]


def test_classes_whose_images_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    """The advice was to give the folder of one class, whose folders are no classes."""
    for name in ("cat/day 1/a.png", "cat/day 2/a.png", "dog/day 1/b.png", "dog/day 1/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    data = open_data(tmp_path)
    assert data.count() == {"cat": 2, "dog": 2} and "deeper" in data.kind
    shutil.move(tmp_path / "dog", tmp_path / "cat" / "dog")  # now one folder alone: it is the set
    with pytest.raises(FewerError, match="give the folder inside"):
        open_data(tmp_path)


def test_an_image_without_a_label_is_no_class_of_its_own(tmp_path: Path) -> None:
    for name in "abc":
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "labels.csv").write_text("file,label\na.png,cat\nb.png,\nc.png,dog\n")
    data = open_data(tmp_path)
    assert data.classes == ("cat", "dog") and data.skipped == (("b.png", "has no label"),)
    (tmp_path / "labels.csv").write_text("file,label\na.png,\nb.png, \n")
    with pytest.raises(FewerError, match="has a label"):
        open_data(tmp_path)


def test_images_of_one_subject_do_not_both_train_and_judge() -> None:
    """Also where they are of several classes. A class of one subject would be lost: names do not count then."""
    names = tuple(
        f"{kind}/sub{subject:02}_z{z}.png" for kind in ("ill", "well") for subject in range(5) for z in range(3)
    )
    pixels, labels = np.zeros((30, 2, 2), np.uint8), np.repeat([0, 1], 15)
    data = ClassifyData(Path("x"), ArrayPictures(pixels), names, labels, ("ill", "well"))
    for seed in range(3):
        train, judge = holdout(data, 0.2, seed)
        of = [{Path(names[row]).stem[:5] for row in rows} for rows in (train, judge)]
        assert not of[0] & of[1] and of[0] | of[1] == {f"sub{i:02}" for i in range(5)} and 6 <= len(judge) <= 12
        assert len(holdout(data, 0.2, seed, "none")[1]) == 6
    assert "30 images are of 5 subjects" in data.subjects().sentence()
    faces = tuple(f"p{i // 3}/person{i // 3}_{i % 3}.png" for i in range(30))
    people = ClassifyData(
        Path("x"), ArrayPictures(pixels), faces, np.arange(30) // 3, tuple(f"p{i}" for i in range(10))
    )
    assert len(holdout(people, 0.2, 0)[1]) == 10 and not people.subjects().grouped
    scans = tuple(f"p{i // 3}/sub{i // 3}_z{i % 3}.png" for i in range(30))
    alike = ClassifyData(Path("x"), ArrayPictures(pixels), scans, np.arange(30) // 3, tuple(f"p{i}" for i in range(10)))
    assert len(holdout(alike, 0.2, 0)[1]) == 10


def test_a_class_keeps_images_to_train_whichever_subjects_others_have_drawn() -> None:
    """Classes that share some of their subjects, and not all, of all sizes."""
    rng = np.random.default_rng(0)
    for seed in range(60):
        names, labels = [], []
        for label in range(3):
            for subject in rng.choice(6, int(rng.integers(2, 6)), replace=False):
                for z in range(int(rng.integers(1, 6))):
                    names.append(f"{label}/sub{subject:02}_z{z}.png")
                    labels.append(label)
        pictures = ArrayPictures(np.zeros((len(names), 2, 2), np.uint8))
        data = ClassifyData(Path("x"), pictures, tuple(names), np.array(labels), ("a", "b", "c"))
        train, judge = holdout(data, 0.3, seed)
        assert set(data.labels[train]) == {0, 1, 2}, seed
        own = data.subjects().of
        assert not {own[names[i]] for i in train} & {own[names[i]] for i in judge}


def test_names_that_say_nothing_are_of_their_own_class() -> None:
    """One pair of sides made one subject of ``a/img0`` and ``b/img0``."""
    names = [f"{kind}/img{i}.png" for kind in "abc" for i in range(20)] + ["a/photo-left.png", "a/photo-right.png"]
    labels = np.array(["abc".index(name[0]) for name in names])
    pictures = ArrayPictures(np.zeros((len(names), 2, 2), np.uint8))
    data = ClassifyData(Path("x"), pictures, tuple(names), labels, ("a", "b", "c"))
    own = data.subjects().of
    assert len(set(own.values())) == 61 and own["a/photo-left.png"] == own["a/photo-right.png"]
    assert len(set(data.subjects(r"photo|img1\d").of.values())) == 3 * 10 + 10 + 1
