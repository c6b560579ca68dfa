"""Each verb does what its help says, on a tiny model: sense, plan, apply, report, info, list, demo, dry runs, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fewer as library
from tests.cli.conftest import QUICK, Told

Fewer = Callable[..., Told]


def _weights(path: str) -> float:
    plan = json.loads(Path(path).read_text())
    return plan["cost"]["weights"] / plan["dense"]["weights"]


@pytest.fixture
def sensed(fewer: Fewer) -> None:
    told = fewer("sense", "net.py:net", "--images=photos", "--out=run", *QUICK)
    assert told.code == 0, told.err
    assert "3 layers" in told.out


@pytest.mark.usefixtures("sensed")
def test_sense_plan_apply_step_by_step(fewer: Fewer) -> None:
    told = fewer("plan", "run", "--budget=weights=50%")
    assert told.code == 0, told.err
    assert _weights("run/plan.json") <= 0.5
    assert "planned from curves alone; fewer compress would also measure the plans of lamp, erk and uniform" in told.out
    told = fewer("plan", "run", "--budget=weights=50%", "--allocator=auto")
    assert told.code == 2 and "a plan has only curves; use fewer compress" in told.err

    told = fewer("apply", "run")
    assert told.code == 0, told.err
    assert "budget met" in told.out
    model = library.load("run")
    kept = sum(int((m.weight != 0).sum()) for m in model.modules() if hasattr(m, "weight"))
    assert kept <= 0.5 * sum(m.weight.numel() for m in model.modules() if hasattr(m, "weight"))

    # another plan is only shown, unless --out keeps it; and it does not touch the model that is there
    before = Path("run/plan.json").read_text()
    told = fewer("plan", "run", "--budget=weights=30%")
    assert "nothing was written" in told.out
    assert "layers change" in told.out
    assert Path("run/plan.json").read_text() == before
    assert fewer("plan", "run", "--budget=weights=30%", "--out=less.json").code == 0
    told = fewer("apply", "run", "--plan=less.json")
    assert (told.code, "--out" in told.err, "--overwrite" in told.err) == (2, True, True)
    assert fewer("apply", "run", "--plan=less.json", "--out=less").code == 0
    assert Path("run/plan.json").read_text() == before
    assert _weights("less/plan.json") <= 0.3
    assert not torch.equal(library.load("less")[0].weight, model[0].weight)


def test_the_help_of_a_verb_is_its_whole_docstring(fewer: Fewer) -> None:
    told = fewer("plan", "--help")
    assert told.code == 0
    shown = " ".join(told.out.split())
    assert "Plan another budget from the curves of a run" in shown and "the contest of allocators that fewer" in shown
    assert "----" not in shown
    assert "When labels are back: fewer select --continue" in " ".join(fewer("select", "-h").out.split())


def test_a_plan_names_the_winner_of_the_runs_contest() -> None:
    from fewer.cli.plan import contest_note

    assert "in this run's contest uniform was better than dp: try --allocator uniform" in contest_note("auto:uniform")
    assert "alone" in contest_note("dp") and "alone" in contest_note("")


@pytest.mark.usefixtures("sensed")
def test_planning_needs_no_torch() -> None:
    code = """
import sys
from fewer.cli import main
assert main(["plan", "run", "--budget=weights=50%"]) == 0
assert main(["list", "allocators"]) == 0
assert "torch" not in sys.modules
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True)


def test_compress_equals_its_own_config_run_again(fewer: Fewer, compress: Fewer) -> None:
    assert compress("net.py:net", "--budget=weights=60%", "--pattern=2:4", "--seed=3").code == 0
    told = fewer("compress", "--config=run/config.toml", "--out=again")
    assert told.code == 0, told.err
    for name in ("plan.json", "recipe.json", "model.safetensors"):
        assert Path("run", name).read_bytes() == Path("again", name).read_bytes(), name


def test_the_report_has_the_command_and_is_written_again(fewer: Fewer, compress: Fewer) -> None:
    compress("net.py:net", "--budget=weights=50%")
    data = json.loads(Path("run/report.json").read_text())
    assert data["command"].startswith("fewer compress net.py:net --budget=weights=50% --images=photos --out=run")
    Path("run/report.html").unlink()
    told = fewer("report", "run")
    assert told.code == 0, told.err
    assert "<html" in Path("run/report.html").read_text()
    assert "run/report.html" in told.out


def test_info_of_a_run_and_of_a_model(fewer: Fewer, compress: Fewer) -> None:
    compress("net.py:net", "--budget=weights=50%")
    told = fewer("info", "run")
    assert "budget met" in told.out
    assert "unstructured@" in told.out
    told = fewer("info", "net.py:net", "--exclude=6")
    assert "2 layers can be cut, 1 is left alone" in told.out
    assert "excluded by the user" in told.out


@pytest.mark.parametrize(
    "words",
    [
        ["compress", "net.py:net", "--images=photos", "--budget=weights=50%", "--out=new", *QUICK],
        ["compress", "net.py:net", "--images=photos", "--budget=weights=50%", "--out=other", "--dry-run", *QUICK],
        ["plan", "run", "--budget=weights=30%"],
        ["info", "run"],
        ["info", "net.py:net"],
        ["report", "run"],
        ["list"],
        ["list", "presets"],
        ["apply", "run", "--dry-run"],
        ["bench", "net.py:net", "--vs=torch-fp32", "--dry-run"],
        ["demo", "gait", "--dry-run"],
        ["export", "run", "--dry-run"],
        ["private", "compile", "net.py:net", "--images=photos", "--out=circuit", "--dry-run"],
        ["private", "keys", "circuit/public.json", "--out=keys", "--dry-run"],
        ["profile", "net.py:net", "--dry-run"],
        ["recover", "run", "--dry-run"],
        ["select", "photos", "--budget=labels=2", "--dry-run"],
        ["sense", "net.py:net", "--images=photos", "--out=other", "--dry-run", *QUICK],
        ["study", "new", "asked", "--images=photos", "--dry-run"],
    ],
    ids=lambda words: " ".join(words[:2]) + (" dry" if "--dry-run" in words else ""),
)
def test_json_is_all_that_is_printed(words: list[str], fewer: Fewer, compress: Fewer) -> None:
    compress("net.py:net", "--budget=weights=50%")
    told = fewer(*words, "--json")
    assert (told.code, told.err) == (0, "")
    assert json.loads(told.out)


def test_a_dry_run_writes_nothing(fewer: Fewer) -> None:
    before = sorted(Path().rglob("*"))
    for verb in ("compress", "sense"):
        budget = ["--budget=weights=50%"] if verb == "compress" else []
        told = fewer(verb, "net.py:net", "--images=photos", *budget, "--dry-run")
        assert told.code == 0, told.err
        assert "3 layers can be cut" in told.out
        assert "photos (6 files)" in told.out
        assert "nothing is written" in told.out
    assert [path for path in sorted(Path().rglob("*")) if "__pycache__" not in path.parts] == before


@pytest.mark.parametrize(
    "words",
    [
        ["demo", "private"],
        ["private", "compile", "net.py:net", "--images=photos", "--out=new"],
        ["private", "keys", "new/public.json", "--out=new"],
        ["study", "export", "new"],
        ["profile", "net.py:net", "--out=new"],
        ["bench", "net.py:net", "--out=new"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_dry_run_of_other_verbs_writes_nothing(words: list[str], fewer: Fewer) -> None:
    before = sorted(Path().rglob("*"))
    told = fewer(*words, "--dry-run")
    assert (told.code, told.err) == (0, "") and "nothing is written" in told.out
    assert [path for path in sorted(Path().rglob("*")) if "__pycache__" not in path.parts] == before


@pytest.mark.parametrize("words", [["list"], ["info", "net.py:net"]], ids=lambda words: words[0])
def test_a_verb_that_only_tells_has_no_place_to_write_to(words: list[str], fewer: Fewer) -> None:
    told = fewer(*words, "--out=somewhere")
    assert told.code == 2 and "writes nothing" in told.err and not Path("somewhere").exists()


def test_a_dry_run_still_finds_mistakes(fewer: Fewer) -> None:
    assert (
        "did you mean 'photos'?"
        in fewer("compress", "net.py:net", "--images=fotos", "--budget=weights=50%", "--dry-run").err
    )


@pytest.mark.parametrize("what", ["models", "presets", "patterns", "allocators"])
def test_lists(what: str, fewer: Fewer) -> None:
    told = fewer("list", what)
    assert told.code == 0
    assert {"models": "fewer/dinov2-small", "presets": "rd-prune", "patterns": "block:16x4", "allocators": "lamp"}[
        what
    ] in told.out


def test_demo_replaces_a_finished_demo_and_goes_on_with_an_interrupted_one(
    fewer: Fewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fewer.data.photos import Photo

    photos = [Photo(path, "test") for path in sorted(Path("photos").iterdir())]
    monkeypatch.setattr("fewer.data.photos.real_photos", lambda: photos)
    for _ in range(2):
        told = fewer("demo", "net.py:net", *QUICK)
        assert told.code == 0, told.err
        assert "demo-run/report.html" in told.out
    Path("demo-run/report.json").unlink()
    assert fewer("demo", "net.py:net", *QUICK).code == 0


def test_words_that_are_no_command(fewer: Fewer) -> None:
    for words, hint in {
        ("compres",): "did you mean 'compress'?",
        ("--hlep",): "did you mean '--help'?",
        ("list", "modles"): "did you mean 'models'?",
        ("plan",): "needs a RUN",
        ("info", "a", "b"): "too many words",
    }.items():
        told = fewer(*words)
        assert (told.code, told.out, told.err.count("\n")) == (2, "", 1)
        assert hint in told.err


def test_a_defect_is_told_in_one_sentence_and_debug_shows_it(fewer: Fewer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("fewer.core.run.RunFolder.open", broken)
    told = fewer("info", "photos")
    assert (told.code, told.err.count("\n")) == (1, 1)
    assert "internal error: ZeroDivisionError: two lines" in told.err
    assert "--debug" in told.err
    with pytest.raises(ZeroDivisionError):
        fewer("info", "photos", "--debug")


def test_nobody_reads_the_output() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    words = [sys.executable, "-m", "fewer", "list", "presets", "--json"]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, env=env, check=False)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 141
