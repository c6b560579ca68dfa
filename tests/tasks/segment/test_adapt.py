"""``fewer adapt`` from folder to folder: the guard of target labels, bad input, what other verbs make of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fewer.cli.main import main
from tests.adaptation.domains import SMALL, write_domains

pytest.importorskip("monai")

WORDS = [f"--{key.replace('_', '-')}={value}" for key, value in SMALL.items()]


def fewer(*words: object) -> int:
    return main([str(word) for word in words])


def test_the_run_is_read_by_other_verbs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = write_domains(tmp_path)
    _, labelled = write_domains(tmp_path / "test", 3, masks=True)
    out = tmp_path / "run"
    assert fewer("adapt", source, target, "--out", out, "--test", labelled, *WORDS) == 0
    page = json.loads((out / "report.json").read_text())
    assert page["data"]["method"] == "ours" and page["data"]["evaluation"]["cases"] == 3
    assert {section["name"] for section in page["sections"]} >= {"scores", "examples", "choice", "modules"}
    assert (out / "evaluation.csv").is_file() and not (out / ".scratch").exists()
    assert fewer("predict", out, target / "images", "--out", tmp_path / "masks") == 0
    assert len(list((tmp_path / "masks").glob("*.png"))) == 5
    assert fewer("eval", out, labelled) == 0
    capsys.readouterr()


def test_masks_of_the_target_are_ignored_and_that_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = write_domains(tmp_path, masks=True)
    assert fewer("adapt", source, target, "--out", tmp_path / "a", *WORDS) == 0
    assert "5 masks; they are ignored" in capsys.readouterr().err
    for path in (target / "masks").glob("*.png"):  # other masks give the very same weights
        Image.fromarray(255 - 255 * np.asarray(Image.open(path))).save(path)
    assert fewer("adapt", source, target, "--out", tmp_path / "b", *WORDS) == 0
    shutil.rmtree(target / "masks")
    assert fewer("adapt", source, target, "--out", tmp_path / "c", *WORDS) == 0
    one, *others = (load_file(tmp_path / name / "model.safetensors") for name in "abc")
    assert all(torch.equal(value, other[key]) for other in others for key, value in one.items())


def test_every_network_is_shown_and_the_test_folder_does_not_choose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fewer.adaptation.ours.SHORT", 0)
    monkeypatch.setattr("fewer.adaptation.ours.DOUBT", 0.0)
    source, target = write_domains(tmp_path)
    _, labelled = write_domains(tmp_path / "test", 3, masks=True)
    assert fewer("adapt", source, target, "--out", tmp_path / "a", "--test", labelled, *WORDS) == 0
    assert fewer("adapt", source, target, "--out", tmp_path / "b", *WORDS) == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    page = json.loads((tmp_path / "a" / "report.json").read_text())
    rows = page["data"]["members"]
    assert [row["member"] for row in rows][:2] == ["source-only", "curves"] and sum(row["kept"] for row in rows) == 1
    assert max(rows, key=lambda row: row["trust"])["trust"] == next(row["trust"] for row in rows if row["kept"])
    assert all(row["dice"] is not None for row in rows)
    table = (tmp_path / "a" / "members.csv").read_text().splitlines()
    assert table[0].startswith("member,steps,kept,trust") and len(table) == len(rows) + 1
    assert "members" in {section["name"] for section in page["sections"]}
    assert (tmp_path / "b" / "members.csv").read_text().splitlines()[1].endswith(",")  # no test, no Dice


@pytest.mark.parametrize(
    ("change", "told"), [(lambda grey: np.dstack([grey] * 3), "3 channels"), (None, "holds the value 3")]
)
def test_a_wrong_test_folder_is_told_before_the_training(
    change: Any, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write_domains(tmp_path)
    _, labelled = write_domains(tmp_path / "test", 3, masks=True)
    for path in (labelled / ("images" if change else "masks")).iterdir():
        values = np.asarray(Image.open(path))
        Image.fromarray(change(values) if change else 3 * values).save(path)
    words = [word for word in WORDS if not word.startswith("--steps")]
    assert fewer("adapt", source, target, "--out", tmp_path / "run", "--test", labelled, "--steps=100000", *words) == 2
    assert told in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_test_folder_of_volumes_for_images_is_told_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write_domains(tmp_path)
    _, labelled = write_domains(tmp_path / "test", 3, masks=True)
    for path in [*labelled.rglob("*.png")]:
        page = Image.open(path)
        page.save(path.with_suffix(".tif"), save_all=True, append_images=[page, page])
        path.unlink()
    words = [word for word in WORDS if not word.startswith("--steps")]
    assert fewer("adapt", source, target, "--out", tmp_path / "run", "--test", labelled, "--steps=100000", *words) == 2
    assert "c0 is 3-dimensional, the network 2-dimensional" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_time_is_refused_where_stages_share_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = write_domains(tmp_path)
    assert fewer("adapt", source, target, "--time", "5s", "--dry-run") == 2
    assert "stages that share --steps" in capsys.readouterr().err
    assert fewer("adapt", source, target, "--time", "5s", "--dry-run", "--method", "curves") == 0


@pytest.mark.parametrize("method", ["ms-mt", "le-uda"])
def test_papers_run_from_the_command_line_and_are_loaded_again(method: str, tmp_path: Path) -> None:
    from fewer.models.spec import load_model

    source, target = write_domains(tmp_path)
    out = tmp_path / "run"
    words = [w for w in WORDS if "translator-steps" not in w]
    few = ["--source-labels", 4, "--translator-steps", 3, "--method", method]
    assert fewer("adapt", source, target, "--out", out, *words, *few) == 0
    checks = json.loads((out / "translator.json").read_text())
    assert checks["structures"][0]["name"] == "foreground"
    loaded = load_model(str(out))
    assert loaded.model(torch.zeros(1, 1, 32, 32)).shape == (1, 2, 32, 32)


def _one_scan(root: Path) -> tuple[Path, Path]:
    source, target = write_domains(root)
    for path in sorted((target / "images").iterdir())[1:]:
        path.unlink()
    return source, target


def _colours(root: Path) -> tuple[Path, Path]:
    source, target = write_domains(root)
    for path in (target / "images").iterdir():
        Image.open(path).convert("RGB").save(path)
    return source, target


def _empty(root: Path) -> tuple[Path, Path]:
    source, target = write_domains(root)
    for path in (source / "masks").iterdir():
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    return source, target


def _missing(root: Path) -> tuple[Path, Path]:
    source, target = write_domains(root)
    (source / "classes.json").write_text('{"background": 0, "disc": 1, "nerve": 2}')
    return source, target


def _geometry(root: Path) -> tuple[Path, Path]:
    source, target = write_domains(root)
    path = next((source / "masks").iterdir())
    Image.fromarray(np.zeros((8, 32), np.uint8)).save(path)
    return source, target


def _spacing(root: Path) -> tuple[Path, Path]:
    source, target = write_domains(root)
    for path in (source / "images").iterdir():
        path.with_suffix(".json").write_text('{"spacing": [1.0, 1.0]}')
    return source, target


def _blank(root: Path) -> tuple[Path, Path]:
    source, target = write_domains(root)
    for path in (target / "images").iterdir():
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    return source, target


BAD = {
    "every target scan has one value everywhere": _blank,
    "needs two or more": _one_scan,
    "source images have 1 channels, target images 3": _colours,
    "are all empty": _empty,
    "have no nerve": _missing,
    "mask": _geometry,
    "gives no spacing": _spacing,
}


@pytest.mark.parametrize("told", BAD)
def test_bad_input_is_one_sentence(told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = BAD[told](tmp_path)
    assert fewer("adapt", source, target, "--out", tmp_path / "run", *WORDS) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("error: ") and told in said
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_scans_of_one_value_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = write_domains(tmp_path)
    path = min((target / "images").iterdir())
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(path)
    assert fewer("adapt", source, target, "--out", tmp_path / "run", *WORDS) == 0
    assert f"1 of 5 target scans have one value everywhere and teach nothing: {path.stem}" in capsys.readouterr().err


def test_wrong_names_are_told_with_the_nearest_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = write_domains(tmp_path)
    assert fewer("adapt", source, target, "--method", "ms_mt", "--dry-run") == 2
    assert "did you mean 'ms-mt'" in capsys.readouterr().err
    assert fewer("adapt", source, target, "--without", "edge", "--dry-run") == 2
    assert "did you mean 'edges'" in capsys.readouterr().err


def test_a_list_says_which_scans_are_labelled(tmp_path: Path) -> None:
    from fewer.tasks.segment.adapt_data import open_domains
    from fewer.tasks.segment.adapt_settings import AdaptSettings

    source, target = write_domains(tmp_path)
    queue = tmp_path / "queue.csv"
    queue.write_text("rank,name,why\n1,images/c3.png,x\n2,images/c1.png,y\n3,images/c0.png,z\n")
    settings = AdaptSettings(source_labels=2, source_list=str(queue))
    found = open_domains(source, target, settings)
    assert [case.name for case in found.source] == ["c3", "c1"] and found.held == found.source
    assert {case.name for case in found.unlabelled} == {"c0", "c2", "c4"}
    assert all(case.mask is None for case in (*found.unlabelled, *found.target))


def test_translated_volumes_keep_affine_and_spacing_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nibabel = pytest.importorskip("nibabel")
    from fewer.adaptation import ms_mt
    from fewer.adaptation.translate.slices import Translator
    from fewer.training.history import Fit
    from tests.tasks.segment.simulated import write_raw

    source, target = write_raw(tmp_path / "source"), write_raw(tmp_path / "target")
    shutil.rmtree(target / "labelsTr")
    (target / "dataset.json").unlink()
    negative = torch.nn.Conv2d(1, 1, 1)
    torch.nn.init.constant_(negative.weight, -1.0)
    monkeypatch.setattr(ms_mt, "train_cut", lambda *_: (Translator(negative), Fit()))
    out = tmp_path / "run"
    words = ["--method", "ms-mt", "--patch", "16,16,16", *WORDS]
    assert fewer("adapt", source, target, "--out", out, *words) == 0, capsys.readouterr().err
    made = sorted((out / "translated" / "imagesTr").glob("*.nii.gz"))
    assert made
    for path in made:
        one, two = nibabel.load(source / "imagesTr" / path.name), nibabel.load(path)
        assert np.array_equal(one.affine, two.affine) and one.shape == two.shape
        assert one.header.get_zooms() == two.header.get_zooms()
        mask = f"{path.name[:-12]}.nii.gz"
        labels = [nibabel.load(root / "labelsTr" / mask).get_fdata() for root in (source, out / "translated")]
        assert np.array_equal(*labels)


def test_the_adapted_net_goes_through_compress(tmp_path: Path) -> None:
    source, target = write_domains(tmp_path)
    _, labelled = write_domains(tmp_path / "test", 4, masks=True)
    assert fewer("adapt", source, target, "--out", tmp_path / "run", *WORDS) == 0
    words = ["--budget", "weights=70%", "--sensing", 2, "--calibration", 2, "--heldout", 2, "--search", 0]
    words += ["--additivity", 0, "--sparsities", "0.3,0.6"]
    small = tmp_path / "small"
    words += ["--labelled", labelled]
    assert fewer("compress", tmp_path / "run", "--images", labelled, "--out", small, *words) in (0, 3)
    assert "Dice" in (small / "report.json").read_text()


def test_rare_structures_are_drawn_as_often_as_others() -> None:
    from types import SimpleNamespace

    from fewer.tasks.segment.adapt_settings import AdaptSettings
    from fewer.tasks.segment.sampling import BalancedSampler, HeldStore, PatchSampler

    pairs = [(torch.zeros(1, 8, 8), torch.zeros(8, 8, dtype=torch.uint8)) for _ in range(20)]
    for index, (_, mask) in enumerate(pairs):
        mask[:4] = 1
        if index == 7:
            mask[6, 6] = 2
    store = HeldStore(pairs, SimpleNamespace(patch=(8, 8), dims=2, mirror=0))  # type: ignore[arg-type]
    settings = AdaptSettings(augment="none", batch=8)
    shares = []
    for kind in (PatchSampler, BalancedSampler):
        draws = [kind(store, settings).batch(step)[1] for step in range(40)]
        shares.append(float((torch.cat(draws) == 2).any(-1).any(-1).float().mean()))
        assert torch.equal(kind(store, settings).batch(3)[1], draws[3])
    assert shares[0] < 0.12 and 0.2 < shares[1] < 0.36  # 1 in 20; and 1 in 4, and half of that 1 in 20


def test_scans_that_lie_alike_are_mirrored_only() -> None:
    from fewer.tasks.segment.augment import augmentation

    mask = torch.arange(16, dtype=torch.uint8).view(1, 4, 4)
    found = {
        tuple(augmentation("upright", 2)(mask.float(), mask, np.random.default_rng(i))[1].flatten().tolist())
        for i in range(20)
    }
    assert found == {tuple(mask.flatten().tolist()), tuple(mask.flip(1).flatten().tolist())}


def test_the_augmentation_follows_the_images(tmp_path: Path) -> None:
    from fewer.tasks.segment.adapt import plan_adapt
    from fewer.tasks.segment.adapt_settings import AdaptSettings

    source, target = write_domains(tmp_path)
    assert plan_adapt(source, target, AdaptSettings()).settings.augment == "light"
    for folder in (source, target):
        for path in (folder / "images").iterdir():
            path.with_suffix(".json").write_text('{"spacing": [1.0, 1.0]}')
    assert plan_adapt(source, target, AdaptSettings()).settings.augment == "upright"


def test_a_trained_run_is_where_an_adaptation_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fewer.tasks.segment.adapt import plan_adapt
    from fewer.tasks.segment.adapt_settings import AdaptSettings

    source, target = write_domains(tmp_path)
    words = ["--network", "dynunet", "--width", 4, "--levels", 3, "--steps", 2, "--every", 2, "--fold", -1]
    assert fewer("train", source, "--out", tmp_path / "trained", "--task", "segment", *words) == 0
    capsys.readouterr()
    start = load_file(tmp_path / "trained" / "model.safetensors")
    plan = plan_adapt(source, target, AdaptSettings.of({**SMALL, "init": str(tmp_path / "trained")}))
    own = plan.network.model.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in start.items())
    assert any("--normalise zscore keeps what it knows" in line for line in plan.lines())
    # one step of a rate of next to nothing ends where it started: the weights are really used
    few = ["--steps=1", "--every=1", "--learning-rate=1e-12", "--method", "source-only", "--init", tmp_path / "trained"]
    words = [word for word in WORDS if not word.startswith(("--steps", "--every"))]
    assert fewer("adapt", source, target, "--out", tmp_path / "run", *words, *few) == 0
    found = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.allclose(value, found[key], atol=1e-5) for key, value in start.items())
    assert fewer("adapt", source, target, "--dry-run", "--init", tmp_path / "trained", "--width", 8) == 2
    assert "give --network dynunet --width 4 --levels 3" in capsys.readouterr().err


def test_settings_of_a_training_that_mean_nothing_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = write_domains(tmp_path)
    (tmp_path / "a.toml").write_text('fold = 2\nwarm_up = "restoration"\n')
    assert fewer("adapt", source, target, "--dry-run", "--config", tmp_path / "a.toml") == 2
    said = capsys.readouterr().err
    assert "no fold (the seed draws who judges)" in said and "no warm_up (warm a network up first" in said
    assert fewer("adapt", source, target, "--dry-run", "--fold", 1) == 2
    capsys.readouterr()


OWN = """
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
"""


def test_a_network_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, target = write_domains(tmp_path)
    (tmp_path / "own.py").write_text(OWN)
    own = f"{tmp_path / 'own.py'}:net"
    # what could not be saved at the end is told before the work
    assert fewer("adapt", source, target, "--dry-run", "--network", own, "--method", "le-uda") == 2
    assert "give --without translation" in capsys.readouterr().err
    more = ["--network", own, "--method", "le-uda", "--without", "translation"]
    assert fewer("adapt", source, target, "--out", tmp_path / "run", *WORDS, *more) == 0
    assert fewer("predict", tmp_path / "run", target, "--out", tmp_path / "masks", "--trust", tmp_path / "own.py") == 0
    capsys.readouterr()


@pytest.mark.parametrize(
    ("method", "told"), [("ms-mt", ["images have no"]), ("le-uda", ["images have no"]), ("curves", [])]
)
def test_slices_that_nobody_sees_are_told(method: str, told: list[str], tmp_path: Path) -> None:
    from fewer.tasks.segment.adapt import plan_adapt
    from fewer.tasks.segment.adapt_settings import AdaptSettings

    plan = plan_adapt(*write_domains(tmp_path), AdaptSettings(method=method, translator_slices=3))
    notes = [note for note in plan.domains.notes if "--translator-slices changes nothing" in note]
    assert [note[: len(start)] for note, start in zip(notes, told, strict=True)] == told
    assert plan.settings.translator_slices == (1 if told else 3)
