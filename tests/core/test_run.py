"""A run folder never holds half a file, never two writers, and never replaces what is not its own."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from core_curves import smooth_curves

from fewer.core import files
from fewer.core.allocation.allocate import allocate
from fewer.core.errors import FewerError
from fewer.core.files import atomic_write_bytes, atomic_write_text
from fewer.core.plan import Plan
from fewer.core.run import RunFolder
from fewer.core.toml import dump_toml, load_toml


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, code):
    path = atomic_write_text(tmp_path / "plan.json", "old")

    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(*((files.os, "fsync") if step == "fsync" else (Path, "replace")), fail)
    with pytest.raises(FewerError, match="no space left on the disk" if code == errno.ENOSPC else "cannot write"):
        atomic_write_text(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_an_interrupt_while_writing_leaves_nothing_either(tmp_path, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_bytes(tmp_path / "model.safetensors", b"x" * 1000)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
def test_a_disk_that_is_really_full_is_told(tmp_path):
    with RunFolder.create(tmp_path / "run") as run:
        run.file("log").symlink_to("/dev/full")
        with pytest.raises(FewerError, match="no space left on the disk while writing"):
            run.log("sensed")


def test_permissions_are_those_of_an_ordinary_file(tmp_path):
    (tmp_path / "plain").write_text("x")
    path = atomic_write_text(tmp_path / "atomic", "x")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_missing_folder(tmp_path):
    with pytest.raises(FewerError, match="its folder does not exist"):
        atomic_write_text(tmp_path / "none" / "a", "x")


def test_everything_comes_back(tmp_path):
    curves = smooth_curves(4, 5)
    plan = Plan.from_allocation(curves, "weights=50%", allocate(curves, "weights=50%"))
    config = {"model": 'a "quoted" näme\n', "seed": 3, "rate": 1e-5, "images": {"folder": "p", "sizes": [1, 2]}}
    with RunFolder.create(tmp_path / "a" / "run") as run:
        run.write_config(config)
        run.write_curves(curves)
        run.write_plan(plan)
        run.write_json("report_json", {"rows": [1, 2]})
        run.write_bytes("model", b"tensors")
        run.log("begin", units=4)
        run.log("end")
    run = RunFolder.open(tmp_path / "a" / "run")
    assert run.read_config() == config
    assert run.read_curves().hash() == curves.hash()
    assert run.read_plan() == plan
    assert run.read_json("report_json") == {"rows": [1, 2]}
    assert [line["event"] for line in run.read_log()] == ["begin", "end"]
    assert run.has("model") and not run.has("recipe")


def test_nan_is_not_written_as_json(tmp_path):
    with RunFolder.create(tmp_path / "run") as run, pytest.raises(FewerError, match=r"report\.json cannot be written"):
        run.write_json("report_json", {"a": float("nan")})


def test_an_existing_run_is_only_touched_when_asked(tmp_path):
    folder = tmp_path / "run"
    with RunFolder.create(folder) as run:
        pass
    with RunFolder.create(folder) as run:  # an empty one may be used
        run.write_text("config", "seed = 1\n")
    with pytest.raises(FewerError, match=r"already holds a run; give --resume .* --overwrite"):
        RunFolder.create(folder)
    with RunFolder.create(folder, resume=True) as run:
        assert run.read_config() == {"seed": 1}
    (folder / "notes.txt").write_text("mine")
    with RunFolder.create(folder, overwrite=True) as run:
        assert not run.has("config")
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(FewerError, match="overwritten and resumed at once"):
        RunFolder.create(folder, overwrite=True, resume=True)


@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}])
def test_what_is_not_a_run_is_never_touched(tmp_path, how):
    (tmp_path / "plan.json").write_text("someone else's")
    with pytest.raises(FewerError, match="was not made by fewer"):
        RunFolder.create(tmp_path, **how)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]
    with pytest.raises(FewerError, match="is a file, not a folder"):
        RunFolder.create(tmp_path / "plan.json", **how)


def test_opening(tmp_path):
    with pytest.raises(FewerError, match="does not exist"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(FewerError, match="is not a run of fewer"):
        RunFolder.open(tmp_path)


HOLD = """
import sys, time
from fewer.core.run import RunFolder
run = RunFolder.create(sys.argv[1], resume=True)
run.log("holding")
run.file("log").open("a").write('{"half a li')
(run.path / ".plan.json.1.ab.tmp").write_text("half")
print("ready", flush=True)
time.sleep(60)
"""


def test_two_processes_never_write_to_one_folder_and_a_killed_one_is_no_obstacle(tmp_path):
    folder = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert other.stdout is not None and other.stdout.readline() == "ready\n"
        with pytest.raises(FewerError, match=f"in use by process {other.pid} on"):
            RunFolder.create(folder, resume=True)
    finally:
        other.kill()
        other.wait()
    with RunFolder.create(folder, resume=True) as run:
        run.log("resumed")
        assert [line["event"] for line in run.read_log()] == ["holding", "resumed"]
    assert sorted(p.name for p in folder.iterdir()) == [".fewer-run", "log.jsonl"]


def test_the_lock_is_let_go_and_taken_again(tmp_path):
    first = RunFolder.create(tmp_path / "run")
    with pytest.raises(FewerError, match="in use by process"):
        RunFolder.create(tmp_path / "run")
    first.close()
    first.close()
    RunFolder.create(tmp_path / "run").close()


def test_only_one_of_many_gets_the_lock(tmp_path):
    won, lost = [], []

    def take():
        try:
            won.append(RunFolder.create(tmp_path / "run", resume=True))
        except FewerError:
            lost.append(1)

    threads = [threading.Thread(target=take) for _ in range(16)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert (len(won), len(lost)) == (1, 15)
    won[0].close()


def test_toml_round_trip():
    data = {
        "text": 'tab\t quote" back\\slash ünï \x00\x7f',
        "whole": np.int64(3),
        "number": np.float64(0.1),
        "tiny": 1e-12,
        "yes": True,
        "list": [1, 2.5, "a", [True]],
        "rows": [{"a": 1, "b c": "x"}],
        "none": None,
        "table": {"a.b": 1, "inner": {"x": -1.0}, "empty": {}},
    }
    back = load_toml(dump_toml(data))
    data.pop("none")
    assert back == data
    with pytest.raises(FewerError, match=r"'table\.x' is a object"):
        dump_toml({"table": {"x": object()}})
    with pytest.raises(FewerError, match=r"not valid TOML.*line 1"):
        load_toml("a = = 1")
