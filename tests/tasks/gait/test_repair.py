"""What the doctor finds in whole folders, and the copy that is repaired."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fewer
from fewer.core.errors import FewerError
from fewer.tasks.gait.data.dataset import open_data, write_partition, write_sequence
from fewer.tasks.gait.doctor import checkup, look_at
from fewer.tasks.gait.protocols.records import Walk
from fewer.tasks.gait.repair import repair
from fewer.tasks.gait.simulator import Walkers


def walk_of(person: int, kind: str = "nm-01") -> np.ndarray:
    return Walkers(seed=4, noise=0.3).sequence(person, kind, "090", 20).frames


@pytest.fixture
def spoilt(tmp_path: Path) -> Path:
    root = tmp_path / "walks"
    for person in (1, 2, 3):
        for kind in ("nm-01", "nm-05"):
            write_sequence(root, Walk(f"{person:03}", kind, "090"), walk_of(person, kind))
    write_sequence(root, Walk("001", "nm-02", "090"), walk_of(1))  # once more the same
    write_sequence(root, Walk("003", "bg-01", "090"), walk_of(2, "nm-05"))  # somebody else's
    holes = walk_of(2, "nm-06")
    holes[3:6] = 0
    write_sequence(root, Walk("002", "nm-06", "090"), holes)
    (root / "003/nm-01/090/090.npz").write_bytes(b"nothing")
    np.savez(root / "001/loose.npz", silhouettes=walk_of(1))
    write_partition(root, ["001", "009"], ["002", "003"])
    return root


def test_what_is_safe_is_mended_and_the_rest_is_said(spoilt: Path, tmp_path: Path) -> None:
    found, done = fewer.doctor(spoilt, task="gait", fix=tmp_path / "copy")
    checks = {f.check: f for f in found.findings}
    assert {"unreadable", "duplicate", "empty", "layout", "partition"} <= set(checks)
    assert "loose.npz" in checks["layout"].text and not checks["layout"].fix
    left = {line.split(":")[0] for line in done.left_out}
    assert left == {"003/nm-01/090", "001/nm-02/090", "003/bg-01/090", "002/nm-05/090"}
    copy = open_data(tmp_path / "copy")
    assert done.kept == len(copy) == 5 and "3 empty frames" in " ".join(done.changed)
    assert len(copy.frames(Walk("002", "nm-06", "090"))) == 17
    assert copy.partition["train"] == ("001",)
    again = checkup(copy)
    assert not {f.check for f in again.findings if f.fix}
    assert json.loads((tmp_path / "copy/changes.json").read_text())["kept"] == 5
    assert (spoilt / "001/nm-02/090/090.npz").exists()  # the original stays
    with pytest.raises(FewerError, match="exists already"):
        fewer.doctor(spoilt, task="gait", fix=tmp_path / "copy")


def test_a_copy_with_names_that_are_no_utf8_can_be_read(tmp_path: Path) -> None:
    try:
        (tmp_path / "w" / "caf\udce9").mkdir(parents=True)
    except OSError:
        pytest.skip("the file system takes UTF-8 alone")
    for person in ("caf\udce9", "b"):
        write_sequence(tmp_path / "w", Walk(person, "nm-01", "090"), walk_of(1))
        write_sequence(tmp_path / "w", Walk(person, "nm-05", "090"), walk_of(2 if person == "b" else 3))
    _, done = fewer.doctor(tmp_path / "w", task="gait", fix=tmp_path / "copy")
    assert any("caf\\udce9" in line for line in done.to_dict()["left_out"])
    copy = checkup(tmp_path / "copy")
    assert copy.facts["people"] == 2 and "name" in {finding.check for finding in copy.findings}
    with pytest.raises(FewerError, match="no valid UTF-8"):
        fewer.train(tmp_path / "copy", task="gait")


def test_nothing_half_written_stays(tmp_path: Path, spoilt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    found = checkup(spoilt)
    monkeypatch.setattr("fewer.tasks.gait.repair.write_sequence", full)
    with pytest.raises(FewerError, match="no space"):
        fewer.doctor(spoilt, task="gait", fix=tmp_path / "copy")
    assert [p.name for p in tmp_path.iterdir()] == ["walks"] and not found.healthy


def test_bright_background_is_found() -> None:
    assert [f.check for f in look_at(255 - walk_of(1), "a")] == ["inverted"]
    assert [f.check for f in look_at(np.zeros((20, 64, 64), np.uint8), "a")] == ["unreadable"]


def test_the_doctor_names_who_cannot_be_found(tmp_path: Path) -> None:
    frames = Walkers(seed=0).sequence(0, "nm-01", "090", 20).frames
    walks = {
        "own": [("a", "monday", "x"), ("a", "friday", "x"), ("b", "monday", "x")],
        "ou": [("a", "00", "000"), ("a", "01", "000"), ("b", "00", "000"), ("b", "00", "090")],
        "listed": [("a", "1", "x"), ("a", "2", "x"), ("b", "1", "x"), ("probe", "03", "v1")],
    }
    for name, some in walks.items():
        for number, (person, kind, view) in enumerate(some):
            write_sequence(tmp_path / name, Walk(person, kind, view), np.roll(frames, number + 1, 0))
        listed = ["a-1-x", "b-1-x", "c-1-x"] if name == "listed" else []
        write_partition(tmp_path / name, [], ["a", "b"], listed)
        found = checkup(tmp_path / name)
        assert [f.case for f in found.findings if f.check == "no-gallery"] == ["b"], name
        assert [f.case for f in found.findings if f.check == "partition"] == listed[2:]
    mended = repair(found, tmp_path / "mended")
    assert "the partition no longer names c-1-x" in mended.changed
    assert open_data(tmp_path / "mended").partition["probes"] == ("a-1-x", "b-1-x")
