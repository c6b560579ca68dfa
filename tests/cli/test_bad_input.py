"""Whatever is wrong with the input: exit code 2, one sentence on the error stream, and nothing half-written."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewer.cli.main import main
from tests.cli.conftest import QUICK, Told, furnish

Fewer = Callable[..., Told]
GOOD = ["--budget=weights=50%", "--out=run", *QUICK]
FINISHED = {
    *("config.toml", "plan.json", "curves.npz", "model.safetensors", "recipe.json"),
    *("report.html", "report.json", "log.jsonl"),
}


def assert_one_sentence(told: Told, *words: str) -> None:
    assert told.code == 2, told
    assert told.out == ""
    # a step that takes long (on a busy machine, any) tells how far it is; the error comes after it, and alone
    error = re.sub(r"\A(\w+: (done in|\d+ of) .*\n)*", "", told.err)
    assert error.startswith("error: "), told.err
    assert error.endswith("\n")
    assert error.count("\n") == 1, told.err
    assert "Traceback" not in error
    for word in words:
        assert word in error, told.err


def assert_nothing_half_written(folder: Path = Path("run")) -> None:
    """No folder at all, or one without any file that a finished run has."""
    left = {path.name for path in folder.rglob("*")} if folder.exists() else set()
    assert not [name for name in left if name.endswith(".tmp")], left
    assert not left & (FINISHED - {"log.jsonl", "config.toml"}), left


def _empty_folder() -> list[str]:
    shutil.rmtree("photos")
    Path("photos").mkdir()
    Path("photos/readme.txt").write_text("no image")
    return ["net.py:net", "--images=photos", *GOOD]


def _no_folder() -> list[str]:
    return ["net.py:net", "--images=fotos", *GOOD]


def _a_file() -> list[str]:
    return ["net.py:net", "--images=photos/0.png", *GOOD]


def _all_broken() -> list[str]:
    for path in Path("photos").iterdir():
        path.write_bytes(path.read_bytes()[:40])
    return ["net.py:net", "--images=photos", *GOOD]


def _model(name: str) -> Callable[[], list[str]]:
    return lambda: [name, "--images=photos", *GOOD]


def _budget(text: str) -> Callable[[], list[str]]:
    return lambda: ["net.py:net", "--images=photos", "--out=run", *QUICK, f"--budget={text}"]


def _more(*words: str) -> Callable[[], list[str]]:
    return lambda: ["net.py:net", "--images=photos", *GOOD, *words]


def _toml(text: str) -> Callable[[], list[str]]:
    def make() -> list[str]:
        Path("run.toml").write_text(text)
        return ["net.py:net", "--images=photos", *GOOD, "--config=run.toml"]

    return make


def _someone_elses_folder() -> list[str]:
    Path("run").mkdir()
    Path("run/thesis.tex").write_text("...")
    return ["net.py:net", "--images=photos", *GOOD, "--overwrite"]


CASES: dict[str, tuple[Callable[[], list[str]], tuple[str, ...]]] = {
    "folder without images": (_empty_folder, ("photos", "1 of .txt")),
    "folder that does not exist": (_no_folder, ("fotos", "did you mean 'photos'?")),
    "file in place of a folder": (_a_file, ("photos/0.png", "folder")),
    "only broken images": (_all_broken, ("photos", "none of the", ".png")),
    "no images at all": (lambda: ["net.py:net", *GOOD], ("--images",)),
    "model file that raises": (
        _model("net.py:raising"),
        ("net.py, line", "RuntimeError", "the checkpoint is not here"),
    ),
    "model whose forward raises": (_model("net.py:crashing"), ("ZeroDivisionError",)),
    "model file without that function": (_model("net.py:nett"), ("did you mean 'net'?",)),
    "model file that does not exist": (_model("nett.py:net"), ("nett.py", "does not exist")),
    "function that returns no module": (_model("net.py:nothing"), ("nn.Module", "int")),
    "built-in model with a typing mistake": (_model("fewer/mobilnet-v2"), ("fewer/mobilenet-v2",)),
    "model of no known kind": (_model("resnet50"), ("resnet50", "FILE.py:FUNCTION")),
    "no model": (lambda: ["--images=photos", *GOOD], ("which model?",)),
    "model without layers to cut": (_model("net.py:plain"), ("layer",)),
    "weights that are not numbers": (_model("net.py:broken"), ("'2.weight'", "NaN")),
    "budget of nothing": (_budget("weights=0%"), ("weights=0%", "more than 0")),
    "budget above the dense model": (_budget("weights=101%"), ("101 %", "100%")),
    "budget that is no amount": (_budget("size=banana"), ("banana", "size=8MB")),
    "budget of an unknown metric": (_budget("wieghts=50%"), ("did you mean 'weights'?",)),
    "budget without a unit": (_budget("weights=0.5"), ("weights=0.5x",)),
    "budget that cannot be met": (_budget("weights=0.1%"), ("cannot be met", "smallest reachable")),
    "budget of bytes that cannot be met": (_budget("size=10B"), ("cannot be met", "smallest reachable")),
    "budget not measured yet": (_budget("latency=0.5x"), ("latency",)),
    "no budget": (lambda: ["net.py:net", "--images=photos", "--out=run"], ("--budget",)),
    "unknown pattern": (_more("--pattern=bloc:16x4"), ("bloc:16x4", "block:16x4")),
    "unknown estimator": (_more("--estimator=tailor"), ("tailor", "taylor")),
    "sparsity that is no number": (_more("--sparsities=0.5,half"), ("half", "0.3,0.5,0.9")),
    "layer to leave alone that does not exist": (_more("--exclude=haed"), ("haed",)),
    "unknown flag": (_more("--serch=3"), ("--serch", "--search")),
    "flag that is no number": (_more("--seed=abc"), ("--seed", "abc")),
    "device that does not exist": (_more("--device=tpu"), ("tpu",)),
    "profile that does not exist": (_more("--profile=nowhere.json"), ("nowhere.json", "does not exist")),
    "tokens where there are none": (_more("--tokens"), ("tokens cannot be merged", "transformer block")),
    "unknown preset": (_more("--preset=rd-prun"), ("did you mean 'rd-prune'?",)),
    "config that does not exist": (_more("--config=no.toml"), ("no.toml",)),
    "config that is not TOML": (_toml("seed = = 3"), ("run.toml", "TOML")),
    "config with an unknown name": (_toml('patern = "2:4"'), ("run.toml", "did you mean 'pattern'?")),
    "config with a bad value": (_toml('seed = "three"'), ("run.toml", "seed")),
    "folder that was not made by us": (_someone_elses_folder, ("run", "not made by fewer")),
}


@pytest.mark.parametrize("case", CASES)
def test_one_clear_sentence(case: str, fewer: Fewer) -> None:
    make, words = CASES[case]
    argv = make()
    before = sorted(Path("run").rglob("*"))
    told = fewer("compress", *argv)
    assert_one_sentence(told, *words)
    if before:
        assert sorted(Path("run").rglob("*")) == before
    assert_nothing_half_written()


def test_the_same_command_works_once_the_input_is_right(fewer: Fewer) -> None:
    """A mistake must not leave a folder behind that the next try stumbles over."""
    assert fewer("compress", *_model("net.py:broken")()).code == 2
    told = fewer("compress", *_model("net.py:net")())
    assert told.code == 0, told.err


def test_a_truncated_image_among_many_is_skipped_and_named(fewer: Fewer) -> None:
    broken = Path("photos/3.png")
    broken.write_bytes(broken.read_bytes()[:200])
    told = fewer("compress", *_model("net.py:net")())
    assert told.code == 0, told.err
    assert "1 unreadable image" in told.out
    assert "3.png" in told.out


def test_an_existing_run_is_not_overwritten_unless_asked(compress: Fewer) -> None:
    assert compress("net.py:net", "--budget=weights=50%").code == 0
    before = {path.name: path.read_bytes() for path in Path("run").iterdir()}
    told = compress("net.py:net", "--budget=weights=30%")
    assert_one_sentence(told, "run already holds a run", "--overwrite", "--resume")
    assert {path.name: path.read_bytes() for path in Path("run").iterdir()} == before
    assert compress("net.py:net", "--budget=weights=30%", "--overwrite").code == 0
    assert Path("run/plan.json").read_bytes() != before["plan.json"]


def test_a_run_folder_of_another_model(compress: Fewer, fewer: Fewer) -> None:
    compress("net.py:net", "--budget=weights=50%", out="one")
    compress("net.py:wider", "--budget=weights=50%", out="two")
    told = fewer("apply", "one", "--plan=two/plan.json", "--out=three")
    assert_one_sentence(told)
    assert_nothing_half_written(Path("three"))


def test_a_budget_that_cannot_be_met_keeps_what_was_sensed_and_says_so(fewer: Fewer) -> None:
    told = fewer("compress", "net.py:net", "--images=photos", "--out=run", "--budget=weights=0.1%", *QUICK)
    assert_one_sentence(told, "cannot be met", "what was done so far is kept in run: go on with --resume")
    told = fewer("compress", "net.py:net", "--images=photos", *GOOD, "--resume")
    assert told.code == 0, told.err
    assert "budget met" in told.out


OTHERS = {
    "plan with a contest": ("plan run --budget=weights=30% --allocator=auto", "fewer compress"),
    "plan of a metric that was not measured": ("plan run --budget=latency=0.5x", "do not measure 'latency'"),
    "apply on a device that is not there": ("apply run --out=new --device=cuda:77", "cannot be used"),
    "recover on a device that is not there": ("recover run --time=5s --out=new --device=cuda:77", "cannot be used"),
    "recover for no time": ("recover run --time=banana --out=new", "cannot read the time 'banana'"),
    "export on a device that is not there": ("export run --device=cuda:77", "cannot be used"),
    "export into no folder": ("export run --out=nodir/x.onnx", "the folder nodir does not exist"),
    "profile on a GPU": ("profile net.py:net --device=cuda", "works on the CPU"),
    "report elsewhere": ("report run --out=new", "leave --out out"),
    "bench for no time": ("bench run --time=-3s", "the time must be more than 0"),
    "bench beside nobody": ("bench run --vs=banana", "unknown peer 'banana'; known are"),
    "select among broken images": ("select broken --budget=labels=1 --out=new --features=net.py:net", "none of the 2"),
    "select by features that are not there": ("select photos --budget=labels=2 --features=no.npy --out=new", "no.npy"),
    "plan of a queue": ("plan queue --budget=weights=30%", "queue is a queue of fewer select"),
}


@pytest.fixture(scope="module")
def a_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, beside a queue and broken images; the cases below may not change a byte of it."""
    from fewer.cli import main

    place = tmp_path_factory.mktemp("others")
    furnish(place)
    for folder in ("broken", "queue"):
        (place / folder).mkdir()
    for name in ("a.png", "b.png"):
        (place / "broken" / name).write_bytes(b"\x89PNG nonsense")
    (place / "queue" / ".fewer-queue").write_text("This folder was made by fewer select.\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        assert main(["compress", "net.py:net", "--images=photos", *GOOD]) == 0
    return place


@pytest.mark.parametrize("case", OTHERS)
def test_the_other_verbs(case: str, a_run: Path, fewer: Fewer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(a_run)

    def everything() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in Path().rglob("*") if p.is_file() and "__pycache__" not in p.parts}

    line, words = OTHERS[case]
    before = everything()
    assert_one_sentence(fewer(*line.split()), words)
    assert everything() == before
    assert not Path("new").exists()


@pytest.mark.parametrize("verb", ["plan", "apply", "report"])
def test_verbs_on_something_that_is_no_run(verb: str, fewer: Fewer) -> None:
    more = ["--budget=weights=50%"] if verb == "plan" else []
    assert_one_sentence(fewer(verb, "photos", *more), "photos")
    assert_one_sentence(fewer(verb, "nowhere", *more), "nowhere", "does not exist")


def test_a_full_disk(compress: Fewer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every write of the run fails in turn, as on a full disk; the sentence says so and no file is left in part."""
    real = os.fsync
    for allowed in range(0, 6, 2):
        shutil.rmtree("run", ignore_errors=True)
        count = 0

        def full(handle: int, allowed: int = allowed) -> Any:
            nonlocal count
            count += 1
            if count > allowed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(handle)

        monkeypatch.setattr(os, "fsync", full)
        told = compress("net.py:net", "--budget=weights=50%")
        monkeypatch.setattr(os, "fsync", real)
        assert_one_sentence(told, "no space left", "free some space")
        assert_nothing_half_written()


def test_a_null_character_is_told(capsys):
    from fewer.cli.main import main

    assert main(["plan", "run", "--budget=weights=50%", "--out=a\0b"]) == 2
    assert capsys.readouterr().err.startswith("error: a word of the command holds a null character")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["compress", "fewer/mobilenet-v2", "--images", "", "--budget", "weights=50%"], "--images is empty"),
        (["compress", "fewer/mobilenet-v2", "--out=", "--budget", "weights=50%"], "--out is empty"),
        (["info", " "], "a word of the command is empty"),
        (["predict", "run", "images", "--out", ""], "--out is empty"),
    ],
)
def test_an_empty_word_is_told_and_is_no_name_of_this_folder(capsys, words, what):
    assert main(words) == 2
    told = capsys.readouterr().err
    assert what in told and told.count("\n") == 1
