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
from tests.support.kill import killed_at

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


def test_a_full_disk_is_told_when_a_line_is_added(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "full")

    with RunFolder.create(tmp_path / "run") as run:
        monkeypatch.setattr(files.os, "write", full)
        with pytest.raises(FewerError, match="no space left on the disk while writing"):
            run.log("sensed")
        monkeypatch.undo()


@pytest.mark.parametrize("name", [".lock", "log.jsonl", ".scratch", "plan.json", ".next"])
@pytest.mark.parametrize("how", ["overwrite", "resume", "edit"])
def test_links_in_a_run_folder_are_not_followed(tmp_path, name, how):
    with RunFolder.create(tmp_path / "run") as run:
        run.write_text("config", "seed = 1\n")
        run.log("begin")
    precious = tmp_path / "precious"
    if name in (".scratch", ".next"):
        precious.mkdir()
        (precious / "mine.txt").write_text("mine")
    else:
        precious.write_text("mine")
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "run" / name).symlink_to(precious)
    with pytest.raises(FewerError, match="symbolic link"):
        RunFolder.edit(tmp_path / "run") if how == "edit" else RunFolder.create(tmp_path / "run", **{how: True})
    assert (precious / "mine.txt" if precious.is_dir() else precious).read_text() == "mine"


@pytest.mark.parametrize("name", [".lock", "log.jsonl"])
def test_a_file_with_a_second_name_stays_as_it_is(tmp_path, name):
    with RunFolder.create(tmp_path / "run") as run:
        run.log("begin")
    (tmp_path / "run" / name).unlink(missing_ok=True)
    (tmp_path / "precious").write_text("mine\n")
    (tmp_path / "run" / name).hardlink_to(tmp_path / "precious")
    try:
        with RunFolder.edit(tmp_path / "run") as run:
            run.log("end")
    except FewerError as error:
        assert "lock" in str(error)
    assert (tmp_path / "precious").read_text() == "mine\n"


@pytest.mark.parametrize("left", [[".lock"], [".lock", "..fewer-run.12.0123abcd.tmp"], []])
@pytest.mark.parametrize("how", [{}, {"overwrite": True}, {"resume": True}, {"overwrite": True, "resume": True}])
def test_a_kill_before_the_mark_leaves_a_usable_folder(tmp_path, left, how):
    (tmp_path / "run").mkdir()
    for name in left:
        (tmp_path / "run" / name).touch()
    with RunFolder.create(tmp_path / "run", **how) as run:
        run.write_text("config", "seed = 1\n")
    assert RunFolder.open(tmp_path / "run").read_config() == {"seed": 1}


def old_run(folder):
    with RunFolder.create(folder) as run:
        run.write_text("config", "seed = 1\n")
        run.write_text("plan", "old plan")
    (folder / "notes.txt").write_text("mine")


def test_the_old_run_stays_until_the_new_one_is_complete(tmp_path):
    folder = tmp_path / "run"
    old_run(folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != ".lock"}

    def now():
        return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and p.name != ".lock"}

    with pytest.raises(FewerError, match=r"^no such images$"), RunFolder.create(folder, overwrite=True) as run:
        run.write_text("config", "seed = 2\n")
        run.log("started")
        raise FewerError("no such images")
    assert now() == before and not (folder / ".next").exists()
    with pytest.raises(KeyboardInterrupt), RunFolder.create(folder, overwrite=True) as run:
        run.write_text("config", "seed = 2\n")
        (run.path / ".scratch").mkdir()
        (run.path / ".scratch" / "ledger.jsonl").write_text("sensed")
        raise KeyboardInterrupt
    assert now() == before
    for how in ({"resume": True}, {"resume": True, "overwrite": True}):
        with pytest.raises(KeyboardInterrupt), RunFolder.create(folder, **how) as run:
            assert (run.path / ".scratch" / "ledger.jsonl").read_text() == "sensed"
            raise KeyboardInterrupt
    with RunFolder.create(folder, resume=True) as run:
        run.write_text("report_json", "{}")
    assert run.read_config() == {"seed": 2} and not run.has("plan") and run.has("report_json")
    assert (folder / "notes.txt").read_text() == "mine" and not (folder / ".next").exists()


def _make_anew(folder):
    with RunFolder.create(folder, overwrite=True) as run:
        run.write_text("config", "seed = 2\n")
        run.write_text("report_json", "{}")


def test_a_kill_at_any_moment_of_the_exchange_leaves_the_old_or_the_new_run(tmp_path):
    seen = set()
    for count in range(1, 60):
        folder = tmp_path / f"run{count}"
        old_run(folder)
        code = killed_at(count, folder, _make_anew, folder)
        run = RunFolder.open(folder)
        state = (run.read_config()["seed"], run.has("plan"), run.has("report_json"))
        assert state in ((1, True, False), (2, False, True))
        assert (folder / "notes.txt").read_text() == "mine"
        with RunFolder.create(folder, overwrite=True) as again:
            again.write_text("config", "seed = 3\n")
        assert again.read_config() == {"seed": 3} and not (folder / ".next").exists()
        seen.add(state)
        if code == 0:
            break
    assert code == 0 and len(seen) == 2


def test_files_that_belong_together_come_together(tmp_path):
    old_run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt), RunFolder.edit(tmp_path / "run") as run, run.together():
        run.write_text("plan", "new plan")
        raise KeyboardInterrupt
    assert (tmp_path / "run" / "plan.json").read_text() == "old plan"
    with RunFolder.edit(tmp_path / "run") as run, run.together():
        run.write_text("plan", "new plan")
    assert (tmp_path / "run" / "plan.json").read_text() == "new plan"
    assert (tmp_path / "run" / "config.toml").exists()


def test_a_note_that_fewer_did_not_write_moves_nothing(tmp_path):
    old_run(tmp_path / "run")
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "run" / ".next").mkdir()
    for note in ('{"new": [], "replaced": ["../victim"]}', '{"new": ["a/../../victim"], "replaced": []}', "[" * 9999):
        (tmp_path / "run" / ".next" / ".commit").write_text(note)
        with pytest.raises(FewerError):
            RunFolder.create(tmp_path / "run", resume=True)
    assert (tmp_path / "victim").read_text() == "mine"


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
