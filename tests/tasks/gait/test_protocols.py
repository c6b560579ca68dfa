"""Protocols against matrices done by hand and against brute force."""

from __future__ import annotations

import numpy as np
import pytest

from fewer.core.errors import FewerError
from fewer.tasks.gait.protocols import (
    Walk,
    Walks,
    nearest,
    open_protocol,
    part_distances,
    protocol_for,
    ranks_of_positives,
)
from fewer.tasks.gait.protocols.casia_b import CasiaB
from fewer.tasks.gait.protocols.grew import Grew, submission
from fewer.tasks.gait.protocols.oumvlp import OuMvlp
from fewer.tasks.gait.protocols.ranked import CrossView, Gait3D, OneGallery
from fewer.tasks.gait.protocols.scores import rank_measures

RNG = np.random.default_rng(0)


def line(*entries: tuple[str, str, str, float]) -> Walks:
    return Walks([Walk(*e[:3]) for e in entries], np.array([[e[3]] for e in entries]))


def test_distances_are_those_of_a_loop() -> None:
    a, b = RNG.normal(5, 1, (7, 6, 3)), RNG.normal(5, 1, (9, 6, 3))
    b[4] = a[2]
    loop = [[np.mean([np.linalg.norm(x[:, p] - y[:, p]) for p in range(3)]) for y in b] for x in a]
    assert np.allclose(part_distances(a, b), loop, atol=1e-5)


def test_blocks_give_what_all_at_once_gives() -> None:
    probes, gallery = RNG.normal(size=(300, 4, 2)), RNG.normal(size=(1000, 4, 2))
    whole = np.argsort(part_distances(probes, gallery), 1, kind="stable")[:, :7]
    rows, distances = nearest(probes, gallery, 7, block=64)
    assert (rows == whole).mean() > 0.999 and (np.diff(distances, axis=1) >= 0).all()


def test_ranks_of_positives_against_sorting() -> None:
    probes, gallery = RNG.normal(size=(40, 2)), RNG.normal(size=(90, 2))
    gallery[7] = gallery[60]  # equal rows: the earlier one comes first
    people, owners = RNG.integers(0, 9, 40).astype(str), RNG.integers(0, 9, 90).astype(str)
    views = RNG.integers(0, 3, 130).astype(str)
    for ignore in (None, views):
        found = ranks_of_positives(probes, people, gallery, owners, ignore=ignore, block=16)
        for i, ranks in enumerate(found):
            keep = np.ones(90, bool)
            if ignore is not None:
                keep = ~((owners == people[i]) & (views[40:] == views[i]))
            order = np.flatnonzero(keep)[np.argsort(part_distances(probes[i : i + 1], gallery)[0][keep], kind="stable")]
            assert (np.flatnonzero(owners[order] == people[i]) + 1).tolist() == ranks.tolist()


def test_a_large_gallery_is_streamed(tmp_path) -> None:
    import tracemalloc

    place = np.lib.format.open_memmap(tmp_path / "g.npy", "w+", np.float32, (60_000, 8))
    place[:] = RNG.normal(size=place.shape)
    place.flush()
    gallery = np.load(tmp_path / "g.npy", mmap_mode="r")
    probes = np.array(gallery[::20_000])
    tracemalloc.start()
    rows, _ = nearest(probes, gallery, 3, block=1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows[:, 0].tolist() == [0, 20_000, 40_000] and peak < 2e6


def test_casia_b_by_hand() -> None:
    # two persons, two views; person a is at 0, b at 10. The only nm probe of view 000 of b stands by a.
    walks = line(
        ("a", "nm-01", "000", 0.0), ("a", "nm-01", "090", 1.0), ("b", "nm-01", "000", 10.0), ("b", "nm-01", "090", 9.0),
        ("a", "nm-05", "000", 0.5), ("b", "nm-05", "000", 2.0), ("a", "nm-05", "090", 0.5), ("b", "nm-05", "090", 9.5),
        ("a", "cl-01", "000", 9.9), ("b", "cl-01", "000", 9.9),
    )  # fmt: skip
    scores = CasiaB()(walks)
    # NM: view 000 against 090: a right, b (2.0) nearer to 1.0 of a: wrong -> 1/2; view 090 against 000: both right
    # CL: view 000 against 090 only: a wrong, b right
    assert scores.numbers["NM"] == pytest.approx(75.0) and scores.numbers["CL"] == pytest.approx(50.0)
    assert scores.numbers["rank-1"] == pytest.approx(62.5)
    assert [str(m.probe) for m in scores.matches if not m.right] == ["a/cl-01/000", "b/nm-05/000"]
    assert "no probe of the condition BG" in scores.notes
    # the identical view stands in the table but in no mean
    assert scores.tables[0].values[0].tolist() == [0.5, 0.5]
    assert "nm,000,090,0.500000" in scores.to_csv()


def test_both_conventions_of_ou_mvlp() -> None:
    walks = line(
        ("a", "01", "000", 0.0), ("a", "01", "090", 0.0), ("b", "01", "000", 5.0),
        ("a", "00", "000", 0.1), ("b", "00", "000", 5.1), ("a", "00", "090", 0.1), ("b", "00", "090", 5.1),
    )  # fmt: skip
    # b has no gallery in view 090: counted, its probe of view 000 is wrong there
    counted, removed = OuMvlp()(walks), OuMvlp("remove")(walks)
    assert counted.headline == pytest.approx(75.0) and removed.headline == pytest.approx(100.0)
    assert "counted" in counted.protocol and "removed" in removed.protocol and counted.notes


def test_gait3d_measures_by_hand() -> None:
    walks = line(
        ("a", "1", "x", 0.0), ("a", "2", "x", 1.0), ("a", "3", "x", 4.0), ("b", "1", "x", 2.0), ("b", "2", "x", 2.5),
    )  # fmt: skip
    scores = Gait3D({"a-1-x"})(walks)
    # positives at ranks 1 and 4
    assert scores.numbers == pytest.approx({"rank-1": 100, "rank-5": 100, "rank-10": 100, "mAP": 75, "mINP": 50})
    assert rank_measures([np.array([2, 3])])["mAP"] == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)


def test_listed_probes_that_are_not_there_are_told() -> None:
    walks = line(("a", "1", "x", 0.0), ("a", "2", "x", 1.0), ("b", "1", "x", 4.0))
    assert Gait3D({"a-1-x"})(walks).notes == []
    assert (
        "1 of 2 listed probes are not among these sequences; they are left out"
        in Gait3D(["a/1/x", "c-1-x"])(walks).notes
    )


def test_the_match_of_a_probe_is_told_however_often_its_person_was_seen_from_there() -> None:
    mine = [("a", f"k{i:02}", "000", i / 100) for i in range(40)]
    walks = line(*mine, ("a", "k00", "090", 3.0), ("a", "k01", "090", 3.1), ("b", "k00", "090", 9.0))
    probe = [m for m in CrossView()(walks).matches if m.probe == Walk("a", "k00", "000")]
    assert [m.found for m in probe] == [Walk("a", "k01", "090")]


def test_grew_writes_twenty_columns() -> None:
    walks = line(("1", "s", "v", 0.0), ("2", "s", "v", 1.0), ("probe", "p1", "v", 0.9), ("1", "t", "v", 0.4))
    head, row = submission(walks).splitlines()
    assert head.startswith("videoId,rank1,") and head.endswith("rank20")
    assert row.split(",")[:4] == ["p1", "2", "1", "1"] and len(row.split(",")) == 21
    assert Grew()(walks).headline == 100.0


def test_cross_view_leaves_the_own_view_out() -> None:
    walks = line(
        ("a", "nm-01", "000", 0.0), ("b", "nm-01", "000", 5.0),
        ("a", "nm-02", "000", 0.0), ("a", "nm-02", "090", 3.0), ("b", "nm-02", "000", 2.0), ("b", "nm-02", "090", 5.0),
    )  # fmt: skip
    # a: its own view (0.0) is out, b at 2.0 comes before a at 3.0 -> rank 2; b is found at once
    scores = CrossView()(walks)
    assert scores.numbers["rank-1"] == 50.0 and scores.numbers["mAP"] == pytest.approx(75.0)
    assert not scores.matches[0].right and scores.matches[0].found.view == "000"


def test_cross_view_has_the_walks_of_all_conditions_in_one_gallery() -> None:
    walks = line(
        ("a", "nm-01", "000", 0.0), ("a", "nm-02", "090", 1.0), ("b", "nm-02", "090", 5.0), ("b", "bg-02", "090", 0.5),
        ("b", "bg-01", "000", 5.1), ("b", "bg-01", "090", 9.0), ("a", "cl-02", "000", 9.5),
    )  # fmt: skip
    # nm: b with a bag (0.5) comes before a (1.0). bg: 000 finds b at 5.0; of 090, b has no other view and is left out
    scores = CrossView()(walks)
    assert (scores.numbers["NM"], scores.numbers["BG"], scores.numbers["rank-1"]) == (0.0, 100.0, 50.0)
    assert any("BG: 1 probes" in note for note in scores.notes) and "CL" not in scores.numbers


def test_every_probe_view_counts_alike() -> None:
    gallery = [(p, "nm-02", "090", x) for p, x in (("a", 0.0), ("b", 1.0), ("c", 2.0))]
    probes = [("a", "nm-01", "000", 0.1), ("b", "nm-01", "000", 1.1), ("c", "nm-01", "018", 0.2)]
    assert CrossView()(line(*gallery, *probes)).numbers["rank-1"] == 50.0  # both of one view right, the other's wrong


def test_what_is_missing_is_told() -> None:
    with pytest.raises(FewerError, match="needs a gallery"):
        CasiaB()(line(("a", "nm-05", "000", 0.0)))
    with pytest.raises(FewerError, match="only one"):
        CasiaB()(line(("a", "nm-01", "000", 0.0), ("a", "nm-05", "000", 0.0)))
    with pytest.raises(FewerError, match="did you mean"):
        open_protocol("gait3")
    with pytest.raises(FewerError, match="same network"):
        part_distances(np.zeros((1, 2)), np.zeros((1, 3)))
    assert protocol_for(line(("a", "nm-01", "0", 0.0))).name == "casia-b"
    assert protocol_for(line(("a", "x", "0", 0.0), ("a", "x", "1", 0.0))).name == "cross-view"


def test_recordings_of_one_camera_are_scored() -> None:
    own = line(
        ("a", "mon", "door", 0.0), ("a", "tue", "door", 0.4), ("b", "mon", "door", 0.3), ("b", "tue", "door", 9.0)
    )
    assert protocol_for(own).name == "one-gallery"
    # the probes are a at 0.0, whose nearest is a at 0.4, and b at 0.3, whose nearest is a at 0.4 before b at 9.0
    assert protocol_for(own)(own).numbers["rank-1"] == 50.0
    named = line(
        ("a", "nm-01", "090", 0.0), ("b", "nm-01", "090", 5.0), ("a", "nm-05", "090", 1.0), ("b", "bg-01", "090", 1.0),
    )  # fmt: skip
    scores = protocol_for(named)(named)
    assert scores.numbers["NM"] == 100.0 and scores.numbers["BG"] == 0.0 and scores.numbers["rank-1"] == 50.0
    with pytest.raises(FewerError, match="two sequences"):
        OneGallery()(line(("a", "x", "0", 0.0), ("b", "x", "0", 0.0)))


def test_sets_whose_views_are_no_cameras_are_scored() -> None:
    grew = line(*((f"{p:05}train", f"s{i}", f"s{i}", 5.0 * p + 0.1 * i) for p in range(3) for i in range(2)))
    assert protocol_for(grew)(grew).headline == 100.0
    listed = line(
        ("t", "c1", "seq0", 0.0), ("t", "c2", "seq0", 0.1), ("u", "c1", "seq0", 4.0), ("u", "c2", "seq0", 4.1)
    )
    # the list of probes names persons that judge alone; those that choose the best state have none
    chosen = protocol_for(listed, ["9-c1-seq0"])
    assert chosen.name == "gait3d" and chosen(listed).headline == 100.0
    assert protocol_for(listed, ["t-c2-seq0"])(listed).headline == 100.0


def test_views_without_a_second_walk_are_looked_for_in_each_other() -> None:
    walks = line(("a", "w", "000", 0.0), ("a", "w", "090", 1.0), ("b", "w", "000", 5.0), ("b", "w", "090", 5.5))
    assert protocol_for(walks).name == "cross-view" and protocol_for(walks)(walks).headline == 100.0
    dates = line(("a", "2026-05", "0", 0.0), ("a", "2026-06", "1", 1.0), ("b", "2026-05", "0", 5.0))
    assert CrossView()(dates).headline == 100.0
