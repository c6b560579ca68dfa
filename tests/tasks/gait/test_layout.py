"""Where sequences lie, in the layouts of public sets and of people who just have some videos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fewer
from fewer.core.errors import FewerError
from fewer.tasks.gait.data import open_data, write_sequence
from fewer.tasks.gait.data.dataset import read_sequence
from fewer.tasks.gait.data.loose import open_sequences
from fewer.tasks.gait.doctor import checkup
from fewer.tasks.gait.protocols.records import Walk
from fewer.tasks.gait.simulator import Walkers
from tests.tasks.gait.test_files import saved

FRAMES = np.zeros((3, 64, 64), np.uint8)
FRAMES[:, :, 24:40] = 255


def pictures(place: Path) -> None:
    place.mkdir(parents=True)
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(place / f"{number:03}.png")


def array(place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    np.savez(place, silhouettes=FRAMES)


def test_persons_with_their_videos_are_a_set(tmp_path: Path) -> None:
    pictures(tmp_path / "alice" / "monday")
    array(tmp_path / "alice" / "friday.npz")
    array(tmp_path / "bob" / "friday" / "left.npz")
    array(tmp_path / "bob" / "friday" / "right.npz")
    array(tmp_path / "carol" / "nm-01" / "090" / "090.npz")
    data = open_data(tmp_path)
    assert [str(walk) for walk in data.walks] == [
        "alice/friday/000", "alice/monday/000", "bob/friday/left", "bob/friday/right", "carol/nm-01/090",
    ]  # fmt: skip
    assert all(np.array_equal(data.frames(walk), FRAMES) for walk in data.walks)
    assert open_sequences(tmp_path).places == data.places
    assert "layout" not in {finding.check for finding in checkup(tmp_path).findings}


def test_files_that_nobody_reads_are_named(tmp_path: Path) -> None:
    array(tmp_path / "alice" / "nm-01" / "090" / "a-sils.npz")
    array(tmp_path / "alice" / "nm-01" / "090" / "b-depth.npz")
    array(tmp_path / "bob" / "nm-01" / "090" / "a.npz")
    pictures(tmp_path / "bob" / "extra")
    told = [finding.text for finding in checkup(tmp_path).findings if finding.check == "layout"]
    assert len(told) == 2 and "3 files, such as bob/extra/000.png" in told[0]
    assert "1 files, such as alice/nm-01/090/b-depth.npz, lie beside the one" in told[1]


def test_results_within_a_set_are_no_person(tmp_path: Path) -> None:
    for person in ("alice", "bob"):
        array(tmp_path / "set" / person / "nm-01" / "090" / "090.npz")
    run, _ = saved(tmp_path / "run", "gaitset")
    fewer.predict(run, tmp_path / "set", out=tmp_path / "set" / "found", gallery=str(tmp_path / "set"))
    assert (tmp_path / "set" / "found" / "embeddings.npz").is_file()
    assert open_data(tmp_path / "set").people == ["alice", "bob"]


def test_the_raw_folders_of_oumvlp(tmp_path: Path) -> None:
    for view in ("000", "015"):
        for kind in ("00", "01"):
            pictures(tmp_path / f"Silhouette_{view}-{kind}" / "00001")
    assert set(open_data(tmp_path).walks) == {Walk("00001", k, v) for k in ("00", "01") for v in ("000", "015")}


@pytest.mark.parametrize("form", [array, pictures])
def test_persons_of_a_gallery_are_no_kinds_of_its_folder(tmp_path: Path, form) -> None:
    for person in ("alice", "bob"):
        form(tmp_path / "gallery" / person / ("walk1.npz" if form is array else "walk1"))
    assert {walk.person for walk in open_sequences(tmp_path / "gallery").walks} == {"alice", "bob"}


@pytest.mark.parametrize("form", [array, pictures])
def test_a_person_of_a_set_is_one_and_no_set_of_kinds(tmp_path: Path, form) -> None:
    names = [Walk("alice", kind, view) for kind in ("nm-01", "cl-01") for view in ("000", "090")]
    for walk in names:
        place = tmp_path / walk.person / walk.kind / walk.view
        form(place / f"{walk.view}.npz" if form is array else place)
    assert set(open_sequences(tmp_path / "alice").walks) == set(names)
    assert set(open_sequences(tmp_path / "alice" / "cl-01").walks) == set(names[2:])
    with pytest.raises(FewerError, match=f"one person of a set, such as .*: give {tmp_path}"):
        open_data(tmp_path / "alice")


def test_own_names_below_a_partition(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps({"TRAIN_SET": [], "TEST_SET": ["0001"]}))
    write_sequence(tmp_path, Walk("0001", "camid0_videoid1", "seq0"), FRAMES)
    for below in ("0001", "0001/camid0_videoid1"):
        assert open_sequences(tmp_path / below).walks == [Walk("0001", "camid0_videoid1", "seq0")]


@pytest.mark.parametrize("probes", ["probe/03", "probe"])
def test_grew_as_opengait_lays_it_out(tmp_path: Path, probes: str) -> None:
    walkers = Walkers(seed=0)
    for person in range(2):
        for kind in ("01", "02"):
            frames = walkers.sequence(person, "nm-01", "090", 6).frames
            write_sequence(tmp_path / "g", Walk(f"0000{person + 1}", kind, f"v{person}{kind}"), frames)
    for name in ("etaGVnWf", "eT1EXpgZ"):
        array(tmp_path / "g" / probes / name / f"{name}.npz")
    run, _ = saved(tmp_path / "run", "gaitbase")
    scores = fewer.evaluate(run, tmp_path / "g", out=tmp_path / "out")
    assert "grew" in scores.protocol
    rows = (tmp_path / "out" / "submission.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == ["eT1EXpgZ", "etaGVnWf"]
    assert all(set(row.split(",")[1:]) == {"1", "2"} and len(row.split(",")) == 21 for row in rows)


def test_a_folder_without_masks_is_no_sequence(tmp_path: Path) -> None:
    with pytest.raises(FewerError, match="holds no mask images"):
        read_sequence(tmp_path)
    array(tmp_path / "a.npz")
    with pytest.raises(FewerError, match=r"too high, such as a\.npz: .* such as PERSON/a\.npz$"):
        open_data(tmp_path)
