"""Ctrl-C and a disk that fills up while a real process works: nothing is lost, and the run goes on with --resume."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fewer.cli.main import AT_ONCE, main
from tests.cli.conftest import QUICK, Told

Fewer = Callable[..., Told]
SLOW = [
    "net.py:slow",
    "--images=photos",
    "--budget=weights=50%",
    *QUICK,
    "--estimator=measured",
    "--sparsities=0.3,0.6",
]


def test_ctrl_c_while_sensing_then_resume_gives_the_same_plan(fewer: Fewer) -> None:
    assert fewer("compress", *SLOW, "--out=whole").code == 0

    ledger = Path("run/.scratch/ledger.jsonl")
    Path("be-slow").touch()
    process = _start("compress", *SLOW, "--out=run")
    _wait_for(lambda: ledger.exists() and ledger.read_bytes().count(b"\n") >= 1, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert err == "interrupted; nothing is lost: run the same command with --resume\n"
    finished = len(ledger.read_text().splitlines())
    assert finished < 3
    assert not Path("run/plan.json").exists()

    Path("be-slow").unlink()
    told = fewer("compress", *SLOW, "--out=run", "--resume")
    assert told.code == 0, told.err
    assert Path("run/plan.json").read_text() == Path("whole/plan.json").read_text()
    assert not ledger.exists()


def test_ctrl_c_before_anything_was_done(fewer: Fewer, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fewer.models.spec.load_model", interrupted)
    told = fewer("compress", *SLOW, "--out=run")
    assert (told.code, told.out) == (130, "")
    assert told.err == "interrupted; nothing is lost: run the same command with --resume\n"


@pytest.mark.parametrize("verb", sorted(AT_ONCE))
def test_a_verb_that_begins_anew_names_no_flag(verb: str, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def interrupted(_words: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["fewer.cli.main"], "_run", interrupted)
    assert main([verb]) == 130
    assert capsys.readouterr().err == "interrupted; nothing is lost\n"


@pytest.mark.parametrize("verb", sorted(AT_ONCE))
def test_those_verbs_make_nothing_of_the_flag(verb: str) -> None:
    assert "shared.resume" not in inspect.getsource(importlib.import_module(f"fewer.cli.{verb}"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """``small_disk(64)`` is an empty folder on a file system of 64 kB; calling it again changes the size."""
    place = tmp_path / "disk"
    place.mkdir()

    def resize(kilobytes: int) -> Path:
        options = f"size={kilobytes}k" + (",remount" if os.path.ismount(place) else "")
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
        try:
            done = subprocess.run(mount, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no mount command here")
        if done.returncode:
            pytest.skip(f"a small file system needs the right to mount one: {done.stderr.strip()}")
        return place

    yield resize
    if os.path.ismount(place):
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("kilobytes", [4, 12, 28, 80])
def test_a_disk_that_is_really_full(kilobytes: int, fewer: Fewer, small_disk: Callable[[int], Path]) -> None:
    """The disk fills up at another moment for each size; what was written is whole, and --resume finishes the run."""
    words = ["compress", "net.py:net", "--images=photos", "--budget=weights=50%", *QUICK]
    run = small_disk(kilobytes) / "run"
    told = fewer(*words, f"--out={run}")
    assert told.code == 2, told
    assert told.err.count("\n") == 1, told.err
    assert "no space left" in told.err.lower(), told.err
    for path in run.rglob("*") if run.exists() else ():
        assert not path.name.endswith(".tmp"), path
        if path.suffix == ".json":
            json.loads(path.read_text())
    small_disk(4000)
    told = fewer(*words, f"--out={run}", "--resume")
    assert told.code == 0, told.err
    assert fewer(*words, "--out=whole").code == 0
    assert (run / "plan.json").read_text() == Path("whole/plan.json").read_text()


def _start(*words: str) -> subprocess.Popen[str]:
    # an interrupt of the whole process group would hit the tests too
    return subprocess.Popen(
        [sys.executable, "-m", "fewer", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell starts background jobs with Ctrl-C ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            pytest.fail(f"the process ended or hung before its work had begun: {process.communicate()}")
        time.sleep(0.02)
