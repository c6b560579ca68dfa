"""The verbs as a user types them: doctor, train, eval, predict, compress; exit codes, JSON and one-sentence errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
from PIL import Image

from fewer.cli.config import preset_names, preset_note, resolve_as
from fewer.cli.flags import flags_of
from fewer.core.errors import FewerError
from fewer.tasks.segment.settings import TrainSettings
from tests.tasks.segment.simulated import write_folder

QUICK = ["--preset=ci", "--steps=4", "--every=2", "--width=4", "--patch-voxels=1024"]


@dataclass
class Told:
    code: int
    out: str
    err: str


@pytest.fixture
def fewer(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Told]:
    import warnings

    from fewer.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    write_folder(Path("data"), 6, (32, 32))

    def call(*words: str) -> Told:
        capsys.readouterr()
        code = main(words)
        told = capsys.readouterr()
        return Told(code, told.out, told.err)

    return call


def test_the_whole_way(fewer: Callable[..., Told]) -> None:
    pytest.importorskip("monai", reason="needs the [medical] extra")
    told = fewer("doctor", "data")
    assert (told.code, "nothing is wrong" in told.out) == (0, True)
    told = fewer("train", "data", "--dry-run", *QUICK)
    assert told.code == 0
    assert "training needs about" in told.out
    assert not Path("run").exists()
    told = fewer("train", "data", "--task", "segment", "--out", "run", *QUICK)
    assert told.code == 0, told.err
    assert "missed" in told.out
    assert "training needs about" in told.err
    told = fewer("train", "data", "--out", "run", *QUICK)
    assert told.code == 2
    assert "already holds a run" in told.err
    told = fewer("eval", "run", "data", "--json", "--out", "scores")
    values = json.loads(told.out)
    assert values["overall"]["references"] == len(values["scores"]) == 2
    assert {p.name for p in Path("scores").iterdir()} == {"evaluation.json", "evaluation.csv", "evaluation.html"}
    assert fewer("eval", "run", "data", "--out", "scores").code == 2
    told = fewer("predict", "run", "data/images", "--out", "masks", "--overlay")
    assert "6 masks" in told.out
    assert Image.open("masks/case0.png").size == (32, 32)
    assert fewer("eval", "masks", "data").code == 0
    told = fewer("info", "run")
    assert told.code == 0
    assert "missed" in told.out
    Path("run/report.html").unlink()
    assert fewer("report", "run").code == 0
    assert Path("run/report.html").exists()
    quick = ["--calibration=8", "--sensing=4", "--heldout=4", "--additivity=0", "--baselines=none", "--workers=1"]
    told = fewer("compress", "run", "--images=data", "--labelled=data", "--budget=flops=0.5x", "--out=small", *quick)
    assert told.code == 0, told.err
    assert "Dice, all" in told.out
    assert "dense model" in told.out
    assert fewer("eval", "small", "data").code == 0
    assert fewer("predict", "small", "data/images/case1.png", "--out", "one").code == 0


def test_the_run_can_be_described_by_its_own_file(fewer: Callable[..., Told]) -> None:
    pytest.importorskip("monai", reason="needs the [medical] extra")
    fewer("train", "data", "--out", "run", *QUICK)
    told = fewer("train", "--config", "run/config.toml", "--out", "again")
    assert told.code == 0, told.err
    assert Path("run/model.safetensors").read_bytes() == Path("again/model.safetensors").read_bytes()


def test_errors_of_the_data_decide_the_exit_code(fewer: Callable[..., Told]) -> None:
    Image.new("L", (5, 5)).save("data/masks/case1.png")
    told = fewer("doctor", "data", "--json")
    assert told.code == 3
    values = json.loads(told.out)
    assert not values["healthy"]
    assert {finding["check"] for finding in values["findings"]} >= {"shape"}
    told = fewer("doctor", "data", "--fix", "--out", "fixed")
    assert told.code == 3  # what was looked at is still ill
    assert "left out: case1" in told.out
    assert fewer("doctor", "fixed").code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("train", "dat"), "dat does not exist"),
        (("train",), "which data?"),
        (("train", "data", "--task", "segmnt"), "did you mean 'segment'"),
        (("train", "data", "--preset", "cpuu"), "did you mean 'cpu'"),
        (("train", "data", "--loss", "dicee"), "loss cannot be 'dicee'; did you mean 'dice'?"),
        (("train", "data", "--patch", "a,b"), "write numbers with commas"),
        (("train", "data", "--widht", "4"), "--widht"),
        (("doctor", "data", "--fix"), "--fix --out FOLDER"),
        (("doctor", "data", "--out", "copy"), "which is made with --fix: --fix --out copy"),
        (("doctor", "data/images"), "segment needs a folder with images/ and masks/"),
        (("predict", "data", "data", "--out", "x"), "no run folder with a model"),
        (("predict", "run", "data"), "--out"),
        (("eval", "nothing", "data"), "nothing does not exist"),
        (("eval", "data/images", "data"), "is no class of the data set"),
    ],
)
def test_bad_input_is_one_sentence(fewer: Callable[..., Told], words: tuple[str, ...], told: str) -> None:
    if words[0] == "train" and "--loss" in words:
        pytest.importorskip("monai", reason="needs the [medical] extra")
    found = fewer(*words)
    assert found.code == 2, found
    assert found.err.startswith("error: ")
    assert found.err.count("\n") == 1
    assert told in found.err
    assert not Path("x").exists()


@pytest.mark.parametrize("name", preset_names("segment"))
def test_presets_are_valid_and_explained(name: str) -> None:
    settings, _ = resolve_as(TrainSettings, {}, name, environ={}, folder="segment")
    assert settings != TrainSettings()
    assert preset_note(name, "segment")


def test_every_setting_has_a_flag_and_precedence_goes_by_kind(tmp_path: Path) -> None:
    flags = {field.name for field in fields(flags_of(TrainSettings, "TrainFlags"))}
    assert flags | {"seed", "device"} == set(TrainSettings.model_fields)
    file = tmp_path / "train.toml"
    file.write_text('data = "lesions"\nwidth = 10\npatch = [64, 64]\n[settings]\nbatch = 3\n')
    found, inputs = resolve_as(
        TrainSettings, {"levels": 5}, "cpu", file, {"FEWER_BATCH": "7", "FEWER_PATCH": "32,48"},
        folder="segment", names=("data",),
    )  # fmt: skip
    assert inputs == {"data": "lesions"}
    assert (found.width, found.batch, found.patch, found.levels, found.steps) == (10, 7, (32, 48), 5, 400)
    with pytest.raises(FewerError, match="did you mean 'width'"):
        TrainSettings.of({"widht": 3})
    with pytest.raises(FewerError, match="not from both"):
        TrainSettings.of({"init": "run", "warm_up": "restoration"})
    assert TrainSettings.of({"deep_supervision": "0.5,0.4,0.05,0.05"}).scale_weights[1] == pytest.approx(0.4)
