"""Silhouettes that do not fit into memory are read again, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fewer
from fewer.core.errors import FewerError
from fewer.tasks.gait import training
from fewer.tasks.gait.data import dataset
from fewer.tasks.gait.data.dataset import open_data
from fewer.tasks.gait.data.store import Sequences, prepared_once
from fewer.tasks.gait.sampling import PersonSampler
from fewer.tasks.gait.simulator import Walkers

HOW: dict[str, Any] = {
    "task": "gait", "size": "tiny", "steps": 6, "every": 2, "batch": 4, "each": 2, "frames": 8, "validate_share": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def walks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten persons with two sequences of 12 frames each."""
    root = tmp_path_factory.mktemp("store") / "walks"
    Walkers(seed=1, noise=0.3).write(root, 10, train=8, kinds=("nm-01", "nm-05"), views=("054", "090"), frames=12)
    return root


def weights(done: Any) -> dict[str, torch.Tensor]:
    return done.model.state_dict()


def as_pictures(walks: Path, root: Path) -> Path:
    """The same set as folders of mask images."""
    data = open_data(walks)
    for walk in data.walks:
        place = root / walk.person / walk.kind / walk.view
        place.mkdir(parents=True)
        for number, frame in enumerate(data.frames(walk)):
            Image.fromarray(frame).save(place / f"{number}.png")
    (root / "partition.json").write_text((walks / "partition.json").read_text())
    return root


def test_no_more_than_the_limit_stays_in_memory(walks: Path) -> None:
    data = open_data(walks)
    names = data.part("train")
    one = 12 * 64 * 44
    stored = Sequences(data, names, 5.5 * one)
    for _ in range(2):
        for index in np.random.default_rng(0).permutation(len(names)):
            assert np.array_equal(stored[int(index)], data.frames(names[index])[:, :, 10:54])
            assert stored.used <= 5.5 * one
    assert stored.used == 5 * one and len(stored[3:5]) == 2 and np.array_equal(stored[-1], stored[len(names) - 1])
    with pytest.raises(IndexError):
        stored[len(names)]


def test_a_training_larger_than_memory_gives_the_same_network_also_when_it_was_killed(
    walks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fewer.train(walks, out=tmp_path / "whole", **HOW)
    small = fewer.train(walks, out=tmp_path / "small", cache=1e-4, **HOW)
    assert whole.history == small.history
    batch = PersonSampler.batch

    def stop(self: PersonSampler, step: int) -> Any:
        if step == 4:
            raise KeyboardInterrupt
        return batch(self, step)

    monkeypatch.setattr(PersonSampler, "batch", stop)
    with pytest.raises(KeyboardInterrupt):
        fewer.train(walks, out=tmp_path / "cut", cache=0.0, **HOW)
    monkeypatch.setattr(PersonSampler, "batch", batch)
    resumed = fewer.train(walks, out=tmp_path / "cut", cache=1.0, resume=True, **HOW)
    assert resumed.history == whole.history
    for other in (small, resumed):
        assert all(torch.equal(weights(whole)[name], value) for name, value in weights(other).items())


def test_pictures_are_prepared_once_and_nothing_of_it_stays(
    walks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, seen = as_pictures(walks, tmp_path / "pictures"), []
    read = dataset._from_pictures
    monkeypatch.setattr(dataset, "_from_pictures", lambda folder: seen.append(folder) or read(folder))
    plan = training.plan_training(pictures, training.TrainSettings(**{k: v for k, v in HOW.items() if k != "task"}))
    left = tmp_path / "scratch" / "prepared-of-a-training-that-was-killed"
    left.mkdir(parents=True)
    done = training.train_planned(
        plan, training.TrainSettings(cache=0.0, **{k: v for k, v in HOW.items() if k != "task"}), tmp_path / "scratch"
    )
    asked = [data_place for data_place in seen if data_place.parents[1].name not in {w.person for w in plan.test}]
    assert len(asked) == len(set(asked)) == len(plan.train + plan.val) > 0
    assert [p.name for p in (tmp_path / "scratch").iterdir()] == ["checkpoint.safetensors"]
    same = fewer.train(walks, **HOW)
    assert all(torch.equal(weights(same)[name], value) for name, value in weights(done).items())


def test_what_cannot_be_prepared_is_told_by_whoever_reads_it(walks: Path, tmp_path: Path) -> None:
    pictures = as_pictures(walks, tmp_path / "pictures")
    data = open_data(pictures)
    walk = data.part("train")[0]
    for path in data.places[walk].iterdir():
        path.write_bytes(b"no picture")
    ready = prepared_once(data, data.walks, tmp_path / "ready")
    assert ready.places[walk] == data.places[walk] and ready.root == data.root
    assert all(np.array_equal(ready.frames(w), data.frames(w)) for w in data.walks if w != walk)
    with pytest.raises(FewerError, match=r"fewer doctor .*pictures"):
        Sequences(ready, data.part("train"), 0).check()
    assert prepared_once(open_data(walks), data.walks, tmp_path / "none").places == open_data(walks).places
