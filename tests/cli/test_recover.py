"""``fewer recover`` and ``compress --recover``: one sentence when it cannot be, and Ctrl-C costs nothing."""

from __future__ import annotations

import json
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import QUICK, Told
from tests.cli.test_bad_input import assert_one_sentence
from tests.cli.test_interrupted import _start, _wait_for

Fewer = Callable[..., Told]
TRUST = "--trust=net.py"  # a run names the file that builds its model; only the user can say that it may be run
STEPS = ["--steps=6", TRUST]


def snapshot(folder: str = "run") -> dict[str, bytes]:
    return {
        p.name: p.read_bytes() for p in Path(folder).iterdir() if p.is_file() and p.name not in (".lock", "log.jsonl")
    }


_MADE: list[Path] = []


@pytest.fixture
def run(compress: Fewer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A compressed run in the working folder; made once, as the photos and the model file are always the same."""
    if not _MADE:
        assert compress("net.py:net", "--budget=weights=40%").code == 0
        _MADE.append(Path(shutil.copytree("run", tmp_path_factory.mktemp("made") / "run")))
    else:
        shutil.copytree(_MADE[0], "run")
    recipe = Path("run/recipe.json")  # a copy names the model file of the folder that it was made in
    recipe.write_text(re.sub(r'"[^"]*net\.py"', json.dumps(str(Path("net.py").resolve())), recipe.read_text()))
    return "run"


def test_recover_shows_what_was_won_and_all_other_verbs_go_on(run: str, fewer: Fewer) -> None:
    told = fewer("recover", run, *STEPS)
    assert told.code == 0, told.err
    assert "recovery" in told.out and "fewer.load" in told.out
    assert fewer("report", run).code == 0 and fewer("info", run).code == 0
    shown = json.loads(fewer("info", run, "--json").out)
    assert shown["report"]["recovery"]["steps"] == 6
    assert "fewer recover run --steps=6" in shown["report"]["recovery"]["command"]
    assert json.loads(fewer("recover", run, *STEPS, "--json").out)["folder"] == run
    assert fewer("export", run, "--to=torch", TRUST).code == 0


def test_out_and_dry_run(run: str, fewer: Fewer) -> None:
    before = snapshot()
    told = fewer("recover", run, "--time=9min", TRUST, "--out=better", "--dry-run")
    assert told.code == 0 and "9min" in told.out and not Path("better").exists()
    assert fewer("recover", run, *STEPS, "--out=better").code == 0
    assert snapshot() == before and set(snapshot("better")) == {*before, "history-recover.csv"}


def _no_run() -> list[str]:
    Path("run").rename("elsewhere")
    return ["recover", "run", *STEPS]


def _vanished() -> list[str]:
    shutil.rmtree("photos")
    return ["recover", "run", *STEPS]


def _few() -> list[str]:
    for path in sorted(Path("photos").iterdir())[3:]:
        path.unlink()
    return ["recover", "run", *STEPS]


def _other_model() -> list[str]:
    Path("net.py").write_text(Path("net.py").read_text().replace("manual_seed(0)", "manual_seed(1)"))
    return ["recover", "run", *STEPS]


def _without_images() -> list[str]:
    config = Path("run/config.toml")
    lines = [line for line in config.read_text().splitlines() if not line.startswith("images")]
    config.write_text("\n".join(lines) + "\n")
    return ["recover", "run", *STEPS]


def _damaged() -> list[str]:
    place = Path("run/model.safetensors")
    place.write_bytes(place.read_bytes()[:50])
    return ["recover", "run", *STEPS]


def _sensed_only() -> list[str]:
    for name in ("model.safetensors", "recipe.json", "report.json", "report.html"):
        Path("run", name).unlink()
    return ["recover", "run", *STEPS]


CASES: dict[str, tuple[Callable[[], list[str]], tuple[str, ...]]] = {
    "time that is none": (lambda: ["recover", "run", "--time=banana"], ("banana", "10min")),
    "no time at all": (lambda: ["recover", "run", "--time=0s"], ("more than 0",)),
    "time without a unit": (lambda: ["recover", "run", "--time=10"], ("unit of measure",)),
    "time that is too short": (lambda: ["recover", "run", "--time=0.5s", TRUST], ("give at least --time",)),
    "time and steps": (lambda: ["recover", "run", "--time=9s", "--steps=3"], ("--time or --steps",)),
    "no steps": (lambda: ["recover", "run", "--steps=0"], ("at least 1",)),
    "a rate of nothing": (lambda: ["recover", "run", *STEPS, "--learning-rate=0"], ("learning rate",)),
    "folder that does not exist": (_no_run, ("run", "does not exist")),
    "folder that is no run": (lambda: ["recover", "photos", *STEPS], ("photos", "not a run")),
    "run without a model": (_sensed_only, ("fewer apply run",)),
    "images that vanished": (_vanished, ("photos", "does not exist")),
    "other images that do not exist": (
        lambda: ["recover", "run", *STEPS, "--images=fotos"],
        ("did you mean 'photos'",),
    ),
    "too few images": (_few, ("3 images", "too few")),
    "a run that knows no images": (_without_images, ("--images",)),
    "another model": (_other_model, ("is not the one",)),
    "a damaged model": (_damaged, ("model.safetensors",)),
    "compress with a bad time": (
        lambda: ["compress", "net.py:net", "--images=photos", "--budget=weights=50%", "--out=new", "--recover=soon"],
        ("'soon'",),
    ),
    "compress without images": (
        lambda: ["compress", "net.py:net", "--data-free=noise", "--budget=weights=50%", "--out=new", "--recover=9s"],
        ("--images",),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_sentence_and_the_run_as_it_was(case: str, run: str, fewer: Fewer) -> None:
    make, words = CASES[case]
    argv = make()
    before = snapshot() if Path("run").exists() else {}
    assert_one_sentence(fewer(*argv), *words)
    assert (snapshot() if Path("run").exists() else {}) == before
    assert not list(Path().rglob("*.tmp")) and not Path("new").exists()


def test_compress_and_recover_in_one_command(fewer: Fewer, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["compress", "net.py:net", "--images=photos", "--budget=weights=40%", *QUICK, "--out=run", "--recover=5s"]
    from fewer.distillation import recover as loop

    train_student = loop.train_student

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fewer.verbs.recover.train_student", stop)
    assert fewer(*words).code == 130
    monkeypatch.setattr("fewer.verbs.recover.train_student", train_student)
    before = Path("run/curves.npz").stat().st_mtime_ns
    told = fewer(*words, "--resume")
    assert told.code == 0, told.err
    assert "recovery" in told.out
    assert Path("run/curves.npz").stat().st_mtime_ns == before, "the compression was over and is not done again"
    assert json.loads(Path("run/report.json").read_text())["recovery"]["steps"] > 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_in_a_real_process_then_resume(run: str, fewer: Fewer) -> None:
    before = snapshot()
    process = _start("recover", "run", "--time=1h", TRUST)
    _wait_for(lambda: "recovering" in Path("run/log.jsonl").read_text(), process, 150)
    _wait_for(lambda: Path("run/.scratch").exists(), process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == "" and err == "interrupted; nothing is lost: run the same command with --resume\n"
    assert snapshot() == before
    told = fewer("recover", "run", "--time=10s", TRUST, "--resume")
    assert told.code == 0, told.err
    assert not Path("run/.scratch").exists()
