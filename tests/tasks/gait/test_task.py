"""The whole way: doctor, training, scores, matches with pictures, bad input in one sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import fewer
from fewer.core.errors import FewerError
from fewer.tasks import open_task
from fewer.tasks.gait.data import open_data, write_sequence
from fewer.tasks.gait.doctor import checkup, look_at
from fewer.tasks.gait.embed import embed
from fewer.tasks.gait.loaded import open_run
from fewer.tasks.gait.protocols.records import Walk
from fewer.tasks.gait.settings import TrainSettings
from fewer.tasks.gait.simulator import Walkers
from fewer.tasks.gait.training import plan_training

KINDS = ("nm-01", "nm-02", "nm-05", "bg-01")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A set of six persons and a run on three of them."""
    root = tmp_path_factory.mktemp("gait")
    Walkers(seed=2, noise=0.3).write(root / "walks", 6, train=3, kinds=KINDS, views=("054", "090"), frames=20)
    settings = {"size": "tiny", "steps": 6, "every": 3, "batch": 6, "each": 2, "frames": 8, "network": "gaitbase"}
    fewer.train(root / "walks", task="gait", out=root / "run", **settings)
    return root / "walks", root / "run"


def test_pages_show_what_was_found(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    scores = fewer.evaluate(run, data, out=tmp_path / "scores")
    assert set(scores.numbers) == {"rank-1", "NM", "BG"} and scores.protocol == "casia-b"
    page = (tmp_path / "scores/evaluation.html").read_text()
    assert "Period and phase" in page and "heat" not in page and page.count("data:image/png") >= 4
    rows = (tmp_path / "scores/evaluation.csv").read_text().splitlines()
    assert rows[0] == "condition,probe_view,gallery_view,rank1" and len(rows) == 1 + 2 * 4
    wrong = [m.right for m in scores.matches]
    assert wrong == sorted(wrong)
    other = fewer.evaluate(run, data, protocol="cross-view", all_data=True)
    assert "mAP" in other.numbers


def test_matches_against_a_gallery(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    probe = tmp_path / "probe"
    write_sequence(probe, Walk("x", "nm-05", "090"), open_data(data).frames(Walk("005", "nm-01", "090")))
    done = fewer.predict(run, probe, out=tmp_path / "out", gallery=str(data), top=3)
    first = done.to_dict()["matches"][0]["matches"]
    assert len(first) == 3 and first[0]["person"] == "005" and first[0]["distance"] < 1e-3
    assert "data:image/png" in (tmp_path / "out/matches.html").read_text()
    assert np.load(tmp_path / "out/embeddings.npz")["embeddings"].shape[0] == 1
    again = fewer.predict(run, data / "005", out=tmp_path / "out", gallery=str(data), overwrite=True)
    assert all(one["sequence"] not in [m["sequence"] for m in one["matches"]] for one in again.to_dict()["matches"])
    lone = probe / "x/nm-05/090/090.npz"
    with pytest.raises(FewerError, match="nothing but the sequence"):
        fewer.predict(run, lone, out=tmp_path / "out2", gallery=str(probe))
    with pytest.raises(FewerError, match="--gallery"):
        fewer.predict(run, lone, out=tmp_path / "out2")


def test_one_sequence_is_embedded(made: tuple[Path, Path]) -> None:
    data, run = made
    walk = open_data(data).walks[0]
    found = embed(run, open_data(data).places[walk])
    again = embed(open_run(run).model, open_data(data).frames(walk))
    assert found.shape == (16, 16) and np.array_equal(found, again)
    with pytest.raises(FewerError, match="frames, height, width"):
        embed(run, np.zeros((64, 64), np.uint8))
    frames = open_data(data).frames(walk)
    black_and_white = np.where(frames > 127, 255, 0).astype(np.uint8)
    for same in (
        frames > 127,
        (frames > 127).astype(np.uint8),
        (frames > 127).astype(float),
        frames[:, :, 10:54] > 127,
    ):
        assert np.array_equal(embed(run, same), embed(run, black_and_white))
    with pytest.raises(FewerError, match="no person"):
        embed(run, np.zeros((3, 64, 64), np.uint8))
    with pytest.raises(FewerError, match="the sequence: the background is bright"):
        embed(run, 255 - frames)


def test_a_single_frame_and_one_person(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    frames = open_data(data).frames(Walk("005", "nm-01", "090"))
    for person in ("a", "b"):
        write_sequence(tmp_path / "one", Walk(person, "nm-01", "090"), frames[:1])
        write_sequence(tmp_path / "one", Walk(person, "nm-05", "054"), frames[:1])
    assert fewer.evaluate(run, tmp_path / "one").numbers["rank-1"] >= 0  # a frame is a sequence
    write_sequence(tmp_path / "alone", Walk("a", "nm-01", "090"), frames)
    for act, told in (
        (lambda: fewer.train(tmp_path / "alone", task="gait"), "1 person"),
        (lambda: fewer.evaluate(run, tmp_path / "alone"), "only one person"),
        (lambda: open_task("gait").quality(open_run(run), tmp_path / "alone"), "two persons"),
    ):
        with pytest.raises(FewerError, match=told) as error:
            act()
        assert "\n" not in str(error.value)
    for person in ("a", "b"):
        write_sequence(tmp_path / "none", Walk(person, "cl-01", "090"), frames)
    with pytest.raises(FewerError, match="needs a gallery"):
        fewer.evaluate(run, tmp_path / "none")


def test_the_doctor_finds_it(tmp_path: Path) -> None:
    walkers = Walkers(seed=0, noise=0.3)
    clean = walkers.sequence(0, "nm-01", "090", 40).frames
    assert look_at(clean, "a") == []
    shuffled = clean[np.random.default_rng(0).permutation(40)]
    assert [f.check for f in look_at(shuffled, "a")] == ["order"]
    lines = np.random.default_rng(4)  # from the front: legs that hardly move, and edges that flicker
    front = np.zeros((40, 64, 64), np.uint8)
    for t, frame in enumerate(front):
        frame[:, 24:40], low = 255, np.sin(2 * np.pi * t / 14)
        frame[40:, 24:32] = np.where(np.arange(24)[:, None] > 12 + 4 * low, 0, 255)
        frame[lines.random((64, 64)) < 0.04] ^= 255
    assert [f.check for f in look_at(front, "a")] == []
    mixed = front[np.random.default_rng(1).permutation(40)]
    assert [f.check for f in look_at(mixed, "a")] == ["order"]
    two = clean.copy()
    two[:, :30, 2:10] = 255
    two[:, :30, 10:16] = 0
    assert "two" in [f.check for f in look_at(two, "a")]
    empty = clean.copy()
    empty[5:9] = 0
    assert "empty" in [f.check for f in look_at(empty, "a")]
    assert [f.check for f in look_at(clean[:8], "a")] == ["short"]
    write_sequence(tmp_path, Walk("001", "nm-01", "090"), clean)
    for view in ("090", "054"):
        write_sequence(tmp_path, Walk("002", "cl-01", view), clean)
    (tmp_path / "002/cl-01/090/090.npz").write_bytes(b"nothing")
    (tmp_path / "003/nm-01/090").mkdir(parents=True)
    found = checkup(tmp_path)
    assert [f.case for f in found.findings if f.check == "nothing"] == ["003"]
    checks = {f.check for f in found.findings}
    assert not found.healthy and {"unreadable", "no-gallery", "duplicate"} <= checks
    assert found.findings[0].level == "error" and found.lines()
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_simulated_set_is_healthy(made: tuple[Path, Path]) -> None:
    assert checkup(made[0]).healthy


def test_its_data_are_recognised_by_names(made: tuple[Path, Path], tmp_path: Path) -> None:
    task = open_task("gait")
    assert task.recognises(made[0]) and not task.recognises(tmp_path) and not task.recognises(made[1])
    write_sequence(tmp_path, Walk("0001train", "camid0_videoid1", "seq0"), np.full((3, 64, 64), 255, np.uint8))
    assert not task.recognises(tmp_path)
    (tmp_path / "Gait3D.json").write_text('{"TRAIN_SET": ["0001train"], "TEST_SET": []}')
    assert task.recognises(tmp_path)


def test_a_training_that_nobody_can_choose_in_goes_to_its_end(tmp_path: Path) -> None:
    frames = Walkers(seed=3).sequence(0, "nm-01", "090", 10).frames
    for person in range(20):  # one sequence of each: no protocol can score them
        write_sequence(tmp_path / "w", Walk(f"{person:03}", "nm-01", "090"), frames)
    settings = {"size": "tiny", "steps": 2, "every": 1, "batch": 4, "each": 2, "frames": 6}
    assert "nobody can choose" in " ".join(plan_training(tmp_path / "w", TrainSettings(**settings)).lines())
    done = fewer.train(tmp_path / "w", task="gait", **settings)
    assert done.scores is None and "not judged" in done.lines()[1]
    with pytest.raises(FewerError, match="order unordered"):
        fewer.train(tmp_path / "w", task="gait", tpa="phase", order="unordered")


def test_masks_with_a_bright_background_do_not_train_and_match_nobody(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    for person in "abcd":
        for kind in ("nm-01", "nm-02"):
            frames = open_data(data).frames(Walk("001", kind, "090"))
            write_sequence(tmp_path / "w", Walk(person, kind, "090"), 255 - frames)
    with pytest.raises(FewerError, match=r"such as a/nm-01/090: the background is bright .* invert the masks"):
        fewer.train(tmp_path / "w", task="gait", size="tiny", steps=2, batch=4, each=2, frames=6)
    with pytest.raises(FewerError, match=r"no sequence .* can be used; the first: the background is bright"):
        fewer.predict(run, tmp_path / "w", out=tmp_path / "out", gallery=str(data))


def test_one_camera_and_own_names_train_and_are_judged(tmp_path: Path) -> None:
    walkers = Walkers(seed=3)
    for person in range(14):
        for day in ("monday", "tuesday"):
            frames = walkers.sequence(person, "nm-01" if day == "monday" else "nm-02", "090", 10).frames
            write_sequence(tmp_path / "w", Walk(f"p{person}", day, "door"), frames)
    done = fewer.train(tmp_path / "w", task="gait", size="tiny", steps=2, every=1, batch=4, each=2, frames=6)
    assert done.plan.val and done.scores is not None and done.scores.protocol == "one-gallery"


def test_what_was_left_out_is_told(made: tuple[Path, Path], tmp_path: Path) -> None:
    data, run = made
    for walk in open_data(data).walks:
        write_sequence(tmp_path / "w", walk, open_data(data).frames(walk))
    (tmp_path / "w/005/bg-01/090/090.npz").write_bytes(b"nothing")
    scores = fewer.evaluate(run, tmp_path / "w")
    assert any("1 sequence could not be used" in note and "005/bg-01/090" in note for note in scores.lines())
    (tmp_path / "w/001/bg-01/090/090.npz").write_bytes(b"nothing")
    with pytest.raises(FewerError, match=r"090\.npz.*fewer doctor"):
        fewer.train(tmp_path / "w", task="gait", size="tiny", steps=1, validate_share=0.0)


def test_a_gallery_that_takes_long_to_read_is_read_once(
    made: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewer.tasks.gait.data.dataset import GaitData
    from fewer.tasks.gait.pages import matches_page
    from fewer.tasks.gait.protocols.scores import Match

    data, seen = open_data(made[0]), []
    frames = GaitData.frames
    monkeypatch.setattr(GaitData, "frames", lambda self, walk: seen.append(walk) or frames(self, walk))
    first, *others = data.walks[:4]
    matches_page("a", [[Match(other, first, 1.0)] for other in others], data, data)
    assert seen.count(first) == 1 and len(seen) == 4
