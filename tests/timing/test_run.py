"""The course of a bench, with timing processes that are made up."""

from __future__ import annotations

import itertools
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.timing import Extra, run
from fewer.verbs.bench import bench
from tests.timing.subjects import tiny_net

X = torch.ones(2, 3, 8, 8)


class Fake:
    """A handle whose times are scripted: name -> milliseconds per round, cycled."""

    isolated = True
    script: ClassVar[dict[str, list[float]]] = {}
    log: ClassVar[list[str]] = []
    loaded: ClassVar[list[tuple[str, int]]] = []
    broken: ClassVar[dict[str, str]] = {}

    def __init__(self, job, log, pin):
        self.name = f"{job.runtime}-{job.precision}"
        if self.name in self.broken:
            raise RuntimeError(self.broken[self.name])
        self.times = itertools.cycle(self.script.get(self.name, [10.0]))
        self.loaded.append((self.name, job.threads))

    def about(self, folder):
        value = 1.1 if self.name.endswith("int8") else 1.0
        return {"load_s": 0.1, "load_memory": 2, "note": ""}, [np.full((2, 5), value, np.float32)]

    def ask(self, op, **values):
        return {"warm": {"estimate_ms": 10.0}, "memory": {"memory": 7}}[op]

    def time(self, repeats, lead):
        self.log.append(self.name)
        value = next(self.times)
        return value, value / 2

    def close(self):
        self.log.append(f"close {self.name}")


@pytest.fixture
def fake(monkeypatch):
    for name, empty in (("script", {}), ("log", []), ("loaded", []), ("broken", {})):
        monkeypatch.setattr(Fake, name, empty)
    monkeypatch.setattr(run, "load_handle", Fake)
    monkeypatch.setattr(run, "usable_cores", lambda: 4)
    return Fake


def test_each_thread_setting_is_loaded_interleaved_and_closed_by_itself(fake):
    result = bench(tiny_net(), X, vs="torch,compile-fp32", threads=[1, 4], rounds=2)
    one = ["torch-fp32", "torch-bf16", "compile-fp32"]
    assert fake.loaded == [(name, 1) for name in one] + [(name, 4) for name in one]
    assert fake.log == (one * 2 + [f"close {name}" for name in reversed(one)]) * 2
    assert result.threads == [1, 4] and result.rounds == 2 and result.repeated == []
    assert result.row("torch-fp32", 4).memory_bytes == 7
    assert result.row("torch-fp32").cpu_ms == [5.0, 5.0]


def test_a_noisy_machine_is_measured_once_more_and_the_quieter_half_counts(fake):
    fake.script["torch-fp32"] = [10.0, 10.0, 20.0, 20.0, 10.0, 10.1, 10.0, 10.1]
    result = bench(tiny_net(), X, vs="torch-fp32", threads=[1], rounds=4)
    assert result.repeated == [1]
    assert result.row("torch-fp32").wall_ms == [10.0, 10.1, 10.0, 10.1]
    assert not result.noisy_rows()


def test_a_machine_that_stays_noisy_is_said_to_be(fake):
    fake.script["torch-fp32"] = [10.0, 10.0, 20.0, 20.0, 10.0, 10.0, 90.0, 90.0]
    result = bench(tiny_net(), X, vs="torch-fp32", threads=[1], rounds=4)
    assert result.repeated == [1] and fake.log.count("torch-fp32") == 8  # once, not for ever
    assert result.row("torch-fp32").wall_ms == [10.0, 10.0, 20.0, 20.0]
    assert [row.name for row in result.noisy_rows()] == ["torch-fp32"]


def test_a_peer_that_fails_is_a_row_with_the_reason(fake):
    fake.broken["torch-bf16"] = "no bf16 here"
    result = bench(tiny_net(), X, vs="torch", threads=[1], rounds=2)
    assert (result.row("torch-bf16").status, result.row("torch-bf16").reason) == ("failed", "no bf16 here")
    assert result.row("torch-fp32").status == "ok"


def test_the_reference_must_run(fake):
    fake.broken["torch-fp32"] = "ValueError: wrong shape"
    with pytest.raises(FewerError, match="does not run on this input in torch: ValueError: wrong shape"):
        bench(tiny_net(), X, threads=[1], rounds=2)


def test_missing_packages_are_skipped_rows(fake, monkeypatch):
    monkeypatch.setattr(
        "fewer.timing.prepare.missing_extra", lambda p: "pip install fewer[deploy]" if p.needs else None
    )
    result = bench(tiny_net(), X, vs="openvino,torch-fp32", threads=[1], rounds=2)
    for name in ("openvino-fp32", "openvino-bf16", "openvino-int8"):
        assert (result.row(name).status, result.row(name).reason) == ("skipped", "pip install fewer[deploy]")
    assert len(fake.loaded) == 1


def test_ctrl_c_after_some_rounds_gives_the_result_so_far(fake, monkeypatch):
    calls = itertools.count(1)

    def time(self, repeats, lead):
        if next(calls) > 8:
            raise KeyboardInterrupt
        return 10.0, 10.0

    monkeypatch.setattr(Fake, "time", time)
    result = bench(tiny_net(), X, vs="torch", threads=[1, 2], rounds=20)
    assert result.rounds == 4 and result.threads == [1]
    assert any("Stopped early" in note for note in result.notes)


def test_ctrl_c_too_early_is_ctrl_c_and_all_processes_are_closed(fake, monkeypatch):
    def time(self, repeats, lead):
        raise KeyboardInterrupt

    monkeypatch.setattr(Fake, "time", time)
    with pytest.raises(KeyboardInterrupt):
        bench(tiny_net(), X, vs="torch", threads=[1], rounds=20)
    assert fake.log == ["close torch-bf16", "close torch-fp32"]


def test_extras_are_timed_last_with_their_precision(fake):
    class Sparse(nn.Linear):
        precision = "int8"

    extra = {"lambda": lambda x: x, "sparse": Sparse(4, 4), "declared": Extra(nn.ReLU(), "bf16", note="by hand")}
    result = bench(tiny_net(), X, vs="torch-fp32", threads=[1], rounds=2, extra=extra)
    assert [(row.name, row.precision, row.kind) for row in result.rows[1:]] == [
        ("lambda", "fp32", "extra"),
        ("sparse", "int8", "extra"),
        ("declared", "bf16", "extra"),
    ]
    assert result.row("declared").note == "by hand"
    assert result.row("sparse").relative_error == pytest.approx(0.1)


def test_the_model_keeps_its_training_flags(fake, monkeypatch):
    model = tiny_net().train()
    model[1].eval()
    seen = []
    extra = {"probe": Extra(model, note="the same object")}
    monkeypatch.setattr(Fake, "time", lambda self, repeats, lead: (seen.append(model.training), (1.0, 1.0))[1])
    bench(model, X, vs="torch-fp32", threads=[1], rounds=2, extra=extra)
    assert seen == [False] * 4  # timed in evaluation mode
    assert model.training and model[0].training and not model[1].training


def test_progress_never_goes_back_and_ends_at_one(fake):
    seen = []
    bench(tiny_net(), X, vs="torch", threads=[1, 2], rounds=3, progress=lambda text, share: seen.append((text, share)))
    shares = [share for _, share in seen]
    assert shares == sorted(shares) and shares[-1] == 1.0
    assert any("2 threads: round 3 of 3" in text for text, _ in seen)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vs": "openvinoo"}, "did you mean 'openvino'"),
        ({"threads": [0]}, "from 1 to 4"),
        ({"threads": [5]}, "may use 4 CPUs"),
        ({"rounds": 0}, "at least 1; got 0"),
        ({"example": torch.ones(0, 3, 8, 8)}, "batch above 0"),
        ({"example": "photo"}, "must be a tensor"),
        ({"example": None, "deploy_batch": 0}, "at least 1; got 0"),
        ({"example": None}, "input size of Sequential is not known"),
        ({"model": "fewer/mobilnet-v2", "example": None}, "mobilenet-v2"),
        ({"model": "runs/none/"}, "does not exist"),
        ({"extra": {"torch-fp32": nn.ReLU()}}, "name of a peer"),
        ({"extra": {"mine": Extra(nn.ReLU(), "fp8")}}, "unknown precision 'fp8'"),
    ],
)
def test_bad_input_is_one_sentence(fake, arguments, words):
    given = {"model": tiny_net(), "example": X, "threads": [1], "rounds": 2} | arguments
    with pytest.raises(FewerError, match=words) as caught:
        bench(given.pop("model"), given.pop("example"), **given)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_no_run_says_so(fake, tmp_path):
    with pytest.raises(FewerError, match="holds no recipe"):
        bench(tmp_path, X)
