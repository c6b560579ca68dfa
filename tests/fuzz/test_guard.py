"""The fuzzer is held against products that misbehave on purpose: it must see each of them."""

from __future__ import annotations

import ctypes
import random
import sys
import tempfile
from pathlib import Path

import pytest

from tests.fuzz import run
from tests.fuzz.guard import Memory, restore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux tells it")


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    (folder / "run").mkdir(parents=True)
    (folder / "run" / "plan.json").write_text("{}")
    (folder / "photo.png").write_bytes(b"12345")
    return folder


def _product(text: str):
    """A function whose frames look like those of the product."""
    names: dict = {}
    exec(compile(text, f"{Path(__file__).parents[2]}/src/fewer/odd.py", "exec"), names)
    return names["act"]


def _found(monkeypatch, base, act, target="recipe"):
    def work(folder: Path, draw: random.Random) -> None:
        (folder / "run" / "plan.json").write_text("damaged")  # which is what a target may do
        act(folder)

    monkeypatch.setitem(run.TARGETS, target, work)
    return run.fuzz(1, seed=0, base=base, targets=[target])


ODD = {
    "writes into an input": "def act(w): (w / 'photo.png').write_bytes(b'54321')",
    "writes into a damaged input": "def act(w): (w / 'run/plan.json').write_text('x')",
    "removes an input": "def act(w): (w / 'photo.png').unlink()",
    "renames an input": "def act(w): (w / 'photo.png').rename(w / 'x')",
    "leaves a file": "def act(w): (w / 'new.txt').write_text('x')",
    "leaves a file beside": "def act(w): (w / '../new.txt').write_text('x')",
    "goes up by dots": "def act(w): (w / 'run/../../../fewer-odd-test.txt').write_text('x')",
    "writes elsewhere": "def act(w): open(f'{w}/../../fewer-odd-test.txt', 'w').close()",
    "follows a link": (
        "def act(w):\n (w / 'run/l').symlink_to(w.parent.parent)\n (w / 'run/l/fewer-odd-test.txt').write_text('x')"
    ),
    "changes the mode": "def act(w):\n (w / 'photo.png').chmod(0)\n (w / 'photo.png').chmod(0o644)",
    "writes by a thread": (
        "def act(w):\n import threading\n"
        " t = threading.Thread(target=(w / 'photo.png').write_bytes, args=(b'54321',))\n t.start(), t.join()"
    ),
    "takes memory": "def act(w): len(bytearray(b'x') * 1_200_000_000)",
    "raises something else": "def act(w): raise KeyError('x')",
    "says too much": "def act(w):\n from fewer import FewerError\n raise FewerError('x ' * 5000)",
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_what_may_not_be_done_is_found(monkeypatch, base, what):
    try:
        assert len(_found(monkeypatch, base, _product(ODD[what]))) >= 1
    finally:
        Path(tempfile.gettempdir(), "fewer-odd-test.txt").unlink(missing_ok=True)


def test_a_library_that_writes_without_python_is_found(monkeypatch, base):
    def act(folder):
        libc = ctypes.CDLL(None)
        handle = libc.open(bytes(folder / "photo.png"), 1)
        libc.write(handle, b"abcdefgh", 8)
        libc.close(handle)

    assert ["changed photo.png" in one for one in _found(monkeypatch, base, act)] == [True]


def test_what_may_be_done_is_no_finding(monkeypatch, base):
    act = _product("def act(w):\n (w / 'run/report.html').write_text('x')\n (w / 'run/plan.json').write_text('y')")
    assert _found(monkeypatch, base, act, "report") == []
    assert _found(monkeypatch, base, lambda folder: None) == []


def test_a_working_folder_is_made_whole_again(tmp_path, base):
    work = tmp_path / "work"
    restore(base, work)
    (work / "photo.png").unlink()
    (work / "run" / "plan.json").write_text("longer than before")
    (work / "more" / "deep").mkdir(parents=True)
    (work / "more" / "deep" / "x").symlink_to("nowhere")
    (work / "more").chmod(0o500)
    restore(base, work)
    assert sorted(p.relative_to(work).as_posix() for p in work.rglob("*")) == ["photo.png", "run", "run/plan.json"]
    assert (work / "photo.png").read_bytes() == b"12345" and (work / "run" / "plan.json").read_text() == "{}"


def test_memory_is_measured_for_each_mutation_by_itself():
    memory = Memory()
    memory.begin()
    held = bytearray(b"x") * 300_000_000
    assert 280e6 < memory.end() < 400e6
    del held
    memory.begin()
    assert memory.end() < 100e6
