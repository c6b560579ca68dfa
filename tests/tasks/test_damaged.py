"""Data sets and recipes that somebody else made: a mistake in them is one sentence, whatever it is."""

from __future__ import annotations

import gzip
import pickle
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.tasks.classify.readers import class_names, open_data
from fewer.tasks.detect3d.kitti import Calibration, parse_calibration, parse_label
from fewer.tasks.detect3d.layouts import parse_custom_label, parse_sweep_boxes, read_npy
from fewer.tasks.facts import facts_of
from fewer.tasks.gait.data.dataset import read_sequence
from fewer.tasks.pickles import unpickle_arrays
from fewer.tasks.segment.preparation import Preparation

PIXELS = np.zeros((2, 4, 4), np.uint8)
GOOD = {"images": PIXELS, "label": np.array([0, 1]), "classes": np.array(["a", "b"])}


def refused(call, *words, says: str = ".") -> None:
    with pytest.raises(FewerError, match=says) as told:
        call(*words)
    assert "\n" not in str(told.value) and len(str(told.value)) < 1000


@pytest.mark.parametrize(
    "change",
    [
        {"label": np.array([0.5, 1])}, {"label": np.array(["a", "b"])}, {"label": np.array(1)},
        {"label": np.array([0])},
        {"label": np.array([[0, 1]])}, {"label": np.array([0, 9])}, {"label": np.array([-1, 0])},
        {"label": np.zeros(0, int)}, {"classes": np.array("a")}, {"images": PIXELS.astype(float)},
        {"images": PIXELS[..., None, None]}, {"images": np.zeros((2, 4, 4, 2), np.uint8)}, {"images": PIXELS[:, :0]},
        {"images": None}, {"label": None}, {"jpeg": np.zeros(5, np.uint8)},
        {"jpeg": np.zeros(5, np.uint8), "offset": np.array([0, 9, 3])},
        {"jpeg": np.zeros(5, np.uint8), "offset": np.array([-5, 3, 5])},
        {"jpeg": np.zeros((5, 2), np.uint8), "offset": np.array([0, 3, 5])},
    ],
)  # fmt: skip
def test_npz_files(tmp_path, change) -> None:
    arrays = {key: value for key, value in (GOOD | change).items() if value is not None}
    np.savez(tmp_path / "train.npz", **arrays)
    refused(open_data, tmp_path)
    np.savez(tmp_path / "train.npz", **GOOD)
    assert len(open_data(tmp_path).names) == 2


@pytest.mark.parametrize("cut", [60, 100, 300])
def test_a_damaged_archive(tmp_path, cut) -> None:
    np.savez_compressed(tmp_path / "train.npz", **GOOD)
    data = bytearray((tmp_path / "train.npz").read_bytes())
    data[cut : cut + 4] = b"\xff" * 4
    (tmp_path / "train.npz").write_bytes(data)
    refused(open_data, tmp_path)
    (tmp_path / "train.npz").write_bytes(data[:-cut])
    refused(open_data, tmp_path)
    refused(read_sequence, tmp_path / "train.npz")


def test_an_archive_of_two_gigabytes_in_two_megabytes_is_not_unpacked(tmp_path, monkeypatch) -> None:
    from fewer.core import reading

    monkeypatch.setattr(reading, "free_memory", lambda: 2**27)
    np.savez_compressed(tmp_path / "train.npz", **(GOOD | {"more": np.zeros(2**27, np.uint8)}))
    assert (tmp_path / "train.npz").stat().st_size < 2**20
    refused(open_data, tmp_path, says="are not read of such a file")


@pytest.mark.parametrize(
    "change",
    [
        {b"data": 3}, {b"data": [1]}, {b"data": np.zeros((2, 5), np.uint8)}, {b"data": np.zeros((2, 3072))},
        {b"data": np.array(["x"])}, {b"labels": 3}, {b"labels": [0]}, {b"labels": [0, "x"]}, {b"labels": [0, 2**70]},
        {b"labels": [0, 11]}, {b"labels": None}, {b"labels": [[0], [1]]}, {b"labels": [0.5, 1]},
    ],
)  # fmt: skip
def test_batches_of_cifar(tmp_path, change) -> None:
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
    for protocol in (2, 4):
        (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch | change, protocol))
        refused(open_data, tmp_path)
        (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch, protocol))
        assert open_data(tmp_path).labels.tolist() == [0, 1]


@pytest.mark.parametrize("names", [3, "ab", [1, 2], {b"a": 1}, None])
def test_names_of_cifar(tmp_path, names) -> None:
    batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 1]}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(batch, 2))
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": names}, 2))
    refused(open_data, tmp_path)


class _Big:
    """An array that a pickle asks for without its values."""

    def __reduce__(self):
        return np.ndarray, ((2**40,),)


class _Packed:
    def __reduce__(self):
        import _codecs

        return _codecs.encode, ("aa", "rot13")


@pytest.mark.parametrize("thing", [_Big(), _Packed(), eval, np.random.default_rng, np.array([print], object)])
def test_a_pickle_calls_nothing(thing) -> None:
    refused(unpickle_arrays, pickle.dumps(thing))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_every_protocol_are_read(protocol) -> None:
    for array in (np.arange(6).reshape(2, 3), np.asfortranarray(np.eye(3)), np.zeros((0, 2)), np.array(["a"])):
        got = unpickle_arrays(pickle.dumps({"x": array, "b": b"\xff"}, protocol))
        assert np.array_equal(got["x"], array) and got["x"].dtype == array.dtype and got["b"] in (b"\xff", "\xff")


@pytest.mark.parametrize("shape", [(2**32 - 1,) * 3, (2, 0, 4), (3, 4, 4), (2, 4, 2**31)])
def test_idx_files_that_claim_another_size(tmp_path, shape) -> None:
    head = bytes((0, 0, 8, 3)) + struct.pack(">3I", *shape)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + bytes(32)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 2, 0, 1)))
    refused(open_data, tmp_path)


@pytest.mark.parametrize("text", ["[" * 5000, '{"a": ', '{"a": 1}', "[[]]", "3", "\xff"])
def test_names_of_classes(tmp_path, text) -> None:
    (tmp_path / "classes.json").write_text(text, "latin1")
    refused(class_names, tmp_path / "classes.json")


@pytest.mark.parametrize("text", ["[" * 5000, "[3]", '[{"file": "a.png"}]', '[{"file": [1], "label": "a"}]', "null"])
def test_tables_of_labels(tmp_path, text) -> None:
    (tmp_path / "labels.json").write_text(text)
    refused(open_data, tmp_path)


@pytest.mark.parametrize("value", ["nan", "inf", "-1e300", "x", "9" * 400])
def test_numbers_of_scans(value) -> None:
    line = f"Car 0 0 0 0 0 0 0 1.5 1.6 {value} 1 2 20 0"
    refused(parse_label, line, Calibration.usual(), says="no number")
    refused(parse_custom_label, f"1 1 1 {value} 1 1 1 Car", says="no number")
    refused(parse_calibration, Calibration.usual().text().replace("P2: 7", f"P2: {value} "), says="P2")
    entry = '[{"translation": [%s, 2, 3], "size": [2, 4, 1], "rotation": [1, 0, 0, 0], "detection_name": "car"}]'
    refused(parse_sweep_boxes, entry % value.replace("nan", "NaN").replace("inf", "Infinity"))


@pytest.mark.parametrize("array", [np.array("x"), np.zeros((2, 3)), np.zeros((2, 4), complex), np.zeros((0, 4))])
def test_points_as_arrays(tmp_path, array) -> None:
    np.save(tmp_path / "a.npy", array)
    refused(read_npy, tmp_path / "a.npy")


@pytest.mark.parametrize(
    "facts",
    [3, [], {"split": 3}, {"split": {"data": 3}}, {"split": {"data": "a\0b"}}, {"split": {"train": [1]}},
     {"held": {"names": "a"}}, {"classes": {"a": 1}}, {"view": 1}, {"preparation": []}],
)  # fmt: skip
def test_what_a_task_has_written(facts) -> None:
    refused(facts_of, SimpleNamespace(name="run", meta={"gait": facts}), "gait", says="recipe of run is damaged: gait")


PREPARATION = Preparation(("a", "b"), (0, 1), 1, "global", (0.0,), (1.0,), (0.0,), (1.0,), None, (32, 32)).to_dict()


@pytest.mark.parametrize(
    "change",
    [{"classes": []}, {"values": [0]}, {"channels": 0}, {"channels": "1"}, {"normalise": "x"}, {"mean": []},
     {"mean": [float("nan")]}, {"spacing": [1.0]}, {"spacing": [0.0, 1.0]}, {"patch": [32]}, {"patch": [0, 32]},
     {"patch": [2**40, 2]}, {"patch": "ab"}, {"more": 1}, {"std": None}],
)  # fmt: skip
def test_how_images_become_inputs(change) -> None:
    assert Preparation.of(PREPARATION).to_dict() == PREPARATION
    refused(Preparation.of, PREPARATION | change, says="does not describe a segmentation")
