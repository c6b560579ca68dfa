"""Simulated walkers: known periods, persons that differ, views that agree, and nothing that depends on order."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from fewer.core.errors import FewerError
from fewer.tasks.gait.networks.network import leg_width
from fewer.tasks.gait.simulator import Walkers, casia_kinds
from fewer.tasks.gait.simulator.body import joints_of
from fewer.tasks.gait.simulator.guards import shape_embedding
from fewer.tasks.gait.simulator.motion import harmonic_gait, recorded_gaits
from fewer.tasks.gait.simulator.noise import lose_frames, segmented
from fewer.tasks.gait.tpa.spectrum import find_rhythm
from tests.support.shared_data import shared_data


def test_a_sequence_follows_from_its_names_alone() -> None:
    walkers = Walkers(seed=3)
    first = walkers.sequence(2, "bg-01", "036", 10)
    both = walkers.views(2, "bg-01", ("090", "036"), 10)
    assert np.array_equal(first.frames, both["036"].frames) and first.period == both["090"].period
    assert not np.array_equal(first.frames, walkers.sequence(2, "bg-02", "036", 10).frames)
    assert first.frames.dtype == np.uint8 and set(np.unique(first.frames)) <= {0, 255}


def test_the_period_is_the_one_that_was_simulated() -> None:
    errors = []
    for person in range(4):
        seen = Walkers(seed=0, noise=0.5).sequence(person, "nm-01", "090", 75)
        x = torch.from_numpy(seen.frames[:, :, 10:54]).float()[None] / 255
        found = find_rhythm(leg_width(x), torch.tensor([75])).period.item()
        # legs stand wide once a step, which is half a stride
        errors.append(abs(2 * found - seen.period) / seen.period)
    assert max(errors) < 0.06


def test_people_differ_more_than_walks_of_one() -> None:
    walkers = Walkers(seed=0, noise=0.5)
    shapes = np.stack(
        [[shape_embedding(walkers.sequence(p, k, "090", 30).frames) for k in ("nm-01", "nm-02")] for p in range(5)]
    )
    gaps = np.abs(shapes[:, None, 0] - shapes[None, :, 1]).mean((2, 3))
    assert (gaps.argmin(1) == np.arange(5)).mean() >= 0.8
    coat = shape_embedding(walkers.sequence(0, "cl-01", "090", 30).frames)
    assert coat.sum() > 1.05 * shapes[0, 0].sum()


def test_one_body_and_one_gait_are_guards() -> None:
    one = Walkers(seed=0, bodies="one")
    assert one.person(0)[0].lengths == one.person(5)[0].lengths
    assert not np.array_equal(one.person(0)[1].series, one.person(5)[1].series)
    same = Walkers(seed=0, gaits="one")
    assert np.array_equal(same.person(0)[1].series, same.person(5)[1].series)


def test_noise_is_correlated_and_can_be_off() -> None:
    frames = Walkers(seed=0, noise=0).sequence(0, "nm-01", "090", 20).frames
    assert segmented(frames, np.random.default_rng(0), 0) is frames
    wrong = segmented(frames, np.random.default_rng(0), 1) != frames
    share = wrong.mean()
    assert 0.002 < share < 0.06
    assert (wrong[1:] & wrong[:-1]).mean() > 3 * share**2
    assert 1 <= len(lose_frames(frames, np.random.default_rng(0), 0.5)) < 20


def test_it_is_fast() -> None:
    walkers = Walkers(seed=0)
    walkers.views(0, "nm-01", ("090",), 40)
    began = time.process_time()
    walkers.views(1, "nm-01", ("000", "036", "090", "144"), 40)
    # 80,000 frames in 20 minutes of two cores are 30 ms a frame
    assert (time.process_time() - began) / 160 < 0.03


def test_a_folder_is_written(tmp_path) -> None:
    from fewer.tasks.gait.data import open_data

    root = Walkers(seed=0).write(tmp_path / "w", 3, kinds=casia_kinds(1, 1, 0), views=("000", "090"), frames=8)
    data = open_data(root)
    assert len(data) == 12 and data.partition["train"] == ("001", "002")


def test_recorded_gaits() -> None:
    gaits = recorded_gaits(shared_data("gait_mocap/walkers.npz"))
    assert len(gaits) >= 9 and all(0.8 < gait.stride < 1.4 for gait in gaits.values())
    model = harmonic_gait().directions(np.linspace(0, 6, 20))
    for gait in gaits.values():
        found = gait.directions(np.linspace(0, 6, 20))
        # bones point where those of the model point, left and right, up and down
        assert (found * model).sum(2).mean() > 0.8
    frames = Walkers(motion=shared_data("gait_mocap/walkers.npz")).sequence(0, "nm-01", "090", 10).frames
    assert 0.1 < (frames > 0).mean() < 0.5


def test_what_is_no_recording_is_told(tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros(3))
    with pytest.raises(FewerError, match="motion capture"):
        recorded_gaits(tmp_path / "a.npz")


def recording(path, **changed) -> str:
    """Three strides of the model of joint angles, as a recording of one's own names, in millimetres."""
    walkers = Walkers()
    body, _ = walkers.person(0)
    stride, rate = 1.1, 60.0
    phase = 2 * np.pi * np.arange(200) / rate / stride
    found = joints_of(body, harmonic_gait(stride).directions(phase))
    names = sorted(found)
    values = 1000 * np.stack([found[name] for name in names], 1)
    values[:, :, 0] += 1200 * np.arange(200)[:, None] / rate
    facts = {"joint_names": names, "rate_hz": rate, "anna_maria_straight_joints": values} | changed
    np.savez(path, **{key: value for key, value in facts.items() if value is not None})
    return str(path)


def test_a_recording_with_names_of_its_own(tmp_path) -> None:
    gaits = recorded_gaits(recording(tmp_path / "own.npz"))
    assert list(gaits) == ["anna_maria"] and gaits["anna_maria"].stride == pytest.approx(1.1, abs=0.02)
    phase = np.linspace(0, 6, 20)
    assert (gaits["anna_maria"].directions(phase) * harmonic_gait().directions(phase)).sum(2).mean() > 0.98


def test_what_a_recording_lacks_is_told(tmp_path) -> None:
    with np.load(recording(tmp_path / "own.npz")) as file:
        names, values = file["joint_names"], file["anna_maria_straight_joints"]
    for changed, told in (
        ({"joint_names": np.where(names == "l_toe", "toe", names)}, "lacks the joint l_toe"),
        ({"anna_maria_straight_joints": values[:, :, [0, 2, 1]]}, "of anna_maria, the trunk does not stand upright"),
        ({"anna_maria_straight_joints": values[:10]}, "of anna_maria, too few frames"),
        ({"anna_maria_straight_joints": values[:, :, :2]}, "not \\(frames, joints, 3\\)"),
        ({"anna_maria_straight_joints": None, "anna": values}, "SUBJECT_straight_joints"),
        ({"rate_hz": 0.0}, "must be more than 0"),
    ):
        with pytest.raises(FewerError, match=told) as error:
            recorded_gaits(recording(tmp_path / "own.npz", **changed))
        assert "\n" not in str(error.value)
