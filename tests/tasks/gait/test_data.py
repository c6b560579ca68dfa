"""Reading, writing and preparing silhouettes; losses and batches against loops."""

from __future__ import annotations

import json
import os
import pickle
import platform
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fewer.core.errors import FewerError
from fewer.tasks.gait.data import as_input, open_data, write_sequence
from fewer.tasks.gait.data.dataset import read_sequence, write_partition
from fewer.tasks.gait.data.loose import open_sequences
from fewer.tasks.gait.data.silhouettes import resize_cubic, treat_frame, treat_frames
from fewer.tasks.gait.data.video import video_silhouettes
from fewer.tasks.gait.losses import class_loss, triplet_loss
from fewer.tasks.gait.protocols.records import Walk
from fewer.tasks.gait.sampling import PersonSampler, choose_frames

RNG = np.random.default_rng(0)
WALK = Walk("001", "nm-01", "090")


def figure(height: int = 180, width: int = 120, left: int = 40) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[15:-20, left : left + 30] = 255
    mask[20:40, left + 5 : left + 20] = 0
    return mask


@pytest.mark.parametrize("form", ["npz", "pkl"])
def test_what_was_written_is_read(tmp_path: Path, form: str) -> None:
    frames = RNG.integers(0, 2, (9, 64, 64), dtype=np.uint8) * 255
    write_sequence(tmp_path, WALK, frames, form=form)
    write_partition(tmp_path, ["001"], ["002"])
    data = open_data(tmp_path)
    assert data.walks == [WALK] and np.array_equal(data.frames(WALK), frames)
    assert data.part("train") == [WALK] and data.part("test") == []
    assert as_input(frames).shape == (9, 64, 44)
    if form == "pkl":  # what OpenGait reads
        assert np.array_equal(pickle.loads((tmp_path / "001/nm-01/090/090.pkl").read_bytes()), frames)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_pickles_of_any_protocol(tmp_path: Path, protocol: int) -> None:
    frames = RNG.integers(0, 2, (5, 64, 64), dtype=np.uint8) * 255
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(frames, protocol=protocol))
    assert np.array_equal(read_sequence(tmp_path / "a.pkl"), frames)


class _Evil:
    def __reduce__(self):
        return os.mkdir, ("should-not-be",)


def test_a_pickle_that_holds_an_object_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(_Evil()))
    with pytest.raises(FewerError, match="is not read"):
        read_sequence(tmp_path / "a.pkl")
    assert not Path("should-not-be").exists()


def test_bad_files_are_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "two.pkl").write_bytes(pickle.dumps([np.zeros((64, 64), np.uint8), np.zeros((32, 32), np.uint8)]))
    np.savez(tmp_path / "none.npz", silhouettes=np.zeros((0, 64, 64), np.uint8))
    np.savez(tmp_path / "flat.npz", silhouettes=np.zeros(4))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "flat.npz").read_bytes()[:60])
    cases = {
        "two.pkl": "several sizes",
        "none.npz": "no frame",
        "flat.npz": "not silhouettes",
        "cut.npz": "write it again",
    }
    for name, told in cases.items():
        with pytest.raises(FewerError, match=told) as error:
            read_sequence(tmp_path / name)
        assert "\n" not in str(error.value)
    (tmp_path / "p").mkdir()
    write_sequence(tmp_path / "p", WALK, np.zeros((3, 64, 64), np.uint8))
    (tmp_path / "p" / "s.json").write_text(json.dumps({"TRAIN_SET": ["001"], "TEST_SET": ["001"]}))
    with pytest.raises(FewerError, match="trains and judges"):
        open_data(tmp_path / "p")
    (tmp_path / "p" / "s.json").write_text(json.dumps({"TRAIN_SET": 5, "TEST_SET": ["001"]}))
    with pytest.raises(FewerError, match="TRAIN_SET is no list"):
        open_data(tmp_path / "p")


def test_a_folder_of_both_layouts_gives_all_sequences(tmp_path: Path) -> None:
    frames = np.full((3, 64, 64), 255, np.uint8)
    write_sequence(tmp_path, WALK, frames)
    np.savez(tmp_path / "loose.npz", silhouettes=frames)
    found = open_sequences(tmp_path)
    assert [str(walk) for walk in found.walks] == [str(WALK), "loose"]


def test_cubic_resampling_is_that_of_opencv() -> None:
    cv2 = pytest.importorskip("cv2", reason="needs the [video] extra")
    for shape, size in (((145, 97), (64, 42)), ((40, 30), (64, 48)), ((64, 64), (64, 64)), ((300, 200), (64, 43))):
        image = RNG.integers(0, 256, shape, dtype=np.uint8)
        theirs = cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC)
        assert np.abs(theirs.astype(int) - resize_cubic(image, *size)).max() <= 1
        assert (theirs != resize_cubic(image, *size)).mean() < 0.08  # processors without IPP round in integers
        assert platform.machine() != "x86_64" or (theirs != resize_cubic(image, *size)).mean() < 0.001


def test_a_frame_is_cut_around_the_middle_of_its_mass() -> None:
    found = treat_frame(figure())
    assert found is not None and found.shape == (64, 64)
    mass = found.sum(0, dtype=np.int64).cumsum()
    assert abs(int((mass > mass[-1] / 2).argmax()) - 32) <= 1 and found[0].any() and found[-1].any()
    near = treat_frame(figure(left=0))  # at the border, zeros are put in
    assert near is not None and near.shape == (64, 64)
    frames, empty = treat_frames([figure(), np.zeros((50, 50), np.uint8)])
    assert frames.shape == (1, 64, 64) and empty == 1


def test_folders_of_masks(tmp_path: Path) -> None:
    place = tmp_path / "7" / "nm-01" / "000"
    place.mkdir(parents=True)
    for i in range(3):
        Image.fromarray(figure(left=30 + i)).save(place / f"{i:03}.png")
    data = open_data(tmp_path)
    assert data.frames(data.walks[0]).shape == (3, 64, 64)


def test_a_video_becomes_silhouettes(tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="needs the [video] extra")
    place = tmp_path / "walk.avi"
    out = cv2.VideoWriter(str(place), cv2.VideoWriter_fourcc(*"MJPG"), 25, (240, 160))
    for t in range(40):
        frame = np.full((160, 240, 3), 60, np.uint8)
        frame[30:140, 10 + 3 * t : 50 + 3 * t] = 220
        out.write(frame)
    out.release()
    found = video_silhouettes(place)
    assert found.shape == (40, 64, 64)  # also those in which the person stands where it was first
    assert all((frame > 127).mean() > 0.9 * (found[20] > 127).mean() for frame in found)
    with pytest.raises(FewerError, match="does not exist"):
        video_silhouettes(tmp_path / "none.mp4")


def test_videos_without_opencv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(FewerError, match=r"\[video\]"):
        video_silhouettes(tmp_path / "walk.mp4")


def test_triplets_are_those_of_a_loop() -> None:
    x, labels = torch.randn(7, 5, 3, dtype=torch.float64), torch.tensor([0, 0, 1, 1, 1, 2, 0])
    totals, hard, valid = [], 0, 0
    for part in range(3):
        losses = []
        for a in range(7):
            for p in range(7):
                for n in range(7):
                    if a != p and labels[a] == labels[p] and labels[a] != labels[n]:
                        gap = (x[a, :, part] - x[p, :, part]).norm() - (x[a, :, part] - x[n, :, part]).norm() + 0.2
                        losses.append(max(0.0, float(gap)))
        some = [v for v in losses if v > 0]
        totals.append(sum(some) / len(some))
        hard, valid = hard + len(some), valid + len(losses)
    loss, share = triplet_loss(x, labels)
    assert float(loss) == pytest.approx(np.mean(totals)) and float(share) == pytest.approx(hard / valid)
    zero, _ = triplet_loss(torch.zeros(2, 3, 1), torch.tensor([0, 0]))
    assert zero == 0 and class_loss(torch.randn(4, 6, 3), torch.tensor([0, 1, 2, 3])) > 0


def test_batches_follow_from_the_step_and_are_in_order() -> None:
    walks = [Walk(f"{i // 3}", "nm-01", str(i)) for i in range(12)]
    sequences = [
        np.full((20 + i, 64, 44), i, np.uint8) + np.arange(20 + i, dtype=np.uint8)[:, None, None] for i in range(12)
    ]
    sampler = PersonSampler(walks, sequences, people=3, each=2, frames=16, seed=1)
    x, labels = sampler.batch(5)
    assert (
        x.shape == (6, 16, 64, 44) and torch.equal(x, sampler.batch(5)[0]) and not torch.equal(x, sampler.batch(6)[0])
    )
    assert len(set(labels.tolist())) == 3 and (x[:, :, 0, 0].diff(dim=1) > 0).all()
    for length in (1, 7, 16, 20, 90):
        found = choose_frames(np.random.default_rng(length), length, 16)
        assert len(found) == 16 and found.max() < length
        if length >= 16:
            assert (np.diff(found) > 0).all()
    with pytest.raises(FewerError, match="two persons"):
        PersonSampler(walks[:2], sequences[:2], people=2, each=2, frames=8)


def test_hidden_files_and_folders_are_no_part_of_a_set(tmp_path: Path) -> None:
    write_sequence(tmp_path, WALK, np.full((3, 64, 64), 255, np.uint8))
    write_sequence(tmp_path, Walk(".trash", "nm-01", "000"), np.full((3, 64, 64), 255, np.uint8))
    (tmp_path / "._partition.json").write_bytes(b"\0\5\26\7")
    assert open_data(tmp_path).walks == [WALK]


def test_a_sequence_without_a_person_is_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", silhouettes=np.zeros((3, 64, 64), np.uint8))
    with pytest.raises(FewerError, match="holds no person"):
        read_sequence(tmp_path / "a.npz")


def test_a_video_in_a_set_is_a_sequence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "001" / "nm-01" / "door"
    place.mkdir(parents=True)
    (place / "walk.MP4").write_bytes(b"video")
    monkeypatch.setattr("fewer.tasks.gait.data.dataset.video_silhouettes", lambda path: np.ones((4, 64, 64), np.uint8))
    data = open_data(tmp_path)
    assert data.walks == [Walk("001", "nm-01", "door")] and data.frames(data.walks[0]).shape == (4, 64, 64)
    np.savez(place / "walk.npz", silhouettes=np.full((9, 64, 64), 255, np.uint8))  # what was made of it goes first
    assert open_data(tmp_path).frames(data.walks[0]).shape == (9, 64, 64)


@pytest.mark.parametrize(("below", "told"), [("p0", "too high, such as p0"), ("x/train/000/nm-01/036", "too deep")])
def test_sequences_at_another_depth_are_told(below: str, told: str, tmp_path: Path) -> None:
    place = tmp_path / "set" / below
    place.mkdir(parents=True)
    Image.fromarray(np.full((64, 44), 255, np.uint8)).save(place / "0.png")
    with pytest.raises(FewerError, match=told) as error:
        open_data(tmp_path / "set")
    if "deep" in told:
        assert str(error.value).endswith(f": give {tmp_path / 'set' / 'x' / 'train'}")
        assert len(open_data(tmp_path / "set" / "x" / "train")) == 1


def test_small_masks_of_whole_pictures_are_cut_and_silhouettes_are_left(tmp_path: Path) -> None:
    small = np.zeros((4, 64, 64), np.uint8)
    small[:, 30:50, 5:12] = 255
    tall = np.zeros((4, 64, 64), np.uint8)
    tall[:, 1:63, 24:40] = 255
    tall[:, 1:20, 24:28] = 0  # its mass is not in the middle, which cutting it again would change
    for name, frames in (("small", small), ("tall", tall)):
        np.savez(tmp_path / f"{name}.npz", silhouettes=frames)
        (tmp_path / name).mkdir()
        for number, frame in enumerate(frames):
            Image.fromarray(frame).save(tmp_path / name / f"{number}.png")
        found = read_sequence(tmp_path / f"{name}.npz")
        assert found.shape == (4, 64, 64) and found[0, 2].any() and found[0, 61].any()
        assert np.array_equal(found, read_sequence(tmp_path / name))
        assert np.array_equal(found, frames) == (name == "tall")
