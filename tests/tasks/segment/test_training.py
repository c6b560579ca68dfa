"""Training learns, a resumed training is the same, warm-up starts it, and masks come back onto their own voxels."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

import fewer
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.core.progress import Silent
from fewer.cost import profile
from fewer.engine import deploy as deploying
from fewer.engine import runtimes
from fewer.kernels import native
from fewer.models.spec import load_model
from fewer.tasks.segment import training
from fewer.tasks.segment.dataset import Case, SegmentData, Split
from fewer.tasks.segment.evaluate import quality
from fewer.tasks.segment.files import read_picture
from fewer.tasks.segment.inputs import images
from fewer.tasks.segment.loaded import preparation_of
from fewer.tasks.segment.predict import predict
from fewer.tasks.segment.settings import PredictSettings, TrainSettings
from fewer.tasks.segment.training import train
from tests.fake_device import FakeWatch
from tests.tasks.segment.simulated import write_folder, write_raw

pytest.importorskip("monai", reason="needs the [medical] extra")

TINY = {"width": 4, "levels": 3, "patch_voxels": 1024, "batch": 4, "steps": 6, "every": 2, "learning_rate": 4e-3}


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("discs") / "data", 8, (32, 36))


@pytest.fixture(scope="module")
def trained(discs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    settings = TrainSettings(**TINY | {"width": 8, "steps": 80, "every": 40})
    train(discs, out=out, settings=settings)
    return out


class Stop(Silent):
    """Interrupts a training once so many steps are done."""

    def __init__(self, name: str, after: int) -> None:
        self.name, self.after, self.done = name, after, 0

    @contextmanager
    def stage(self, name, total=None):
        outer = self

        class Stage:
            def advance(self, n: float = 1, note: str = "") -> None:
                outer.done += n if name == outer.name else 0
                if outer.done >= outer.after:
                    raise KeyboardInterrupt

        yield Stage()


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(str(folder)).model.state_dict()


def test_it_learns_and_says_so(trained: Path) -> None:
    facts = json.loads((trained / "report.json").read_text())["data"]
    assert facts["evaluation"]["overall"]["dice_all"] > 0.85
    assert facts["history"][-1]["loss"] < 0.8 * facts["history"][0]["loss"]
    page = (trained / "report.html").read_text()
    assert "Learning curve" in page
    assert "missed" in page
    assert "data:image/png;base64," in page
    assert not list(trained.glob(".scratch"))
    assert not [p for p in trained.rglob("*") if p.suffix in (".pt", ".pkl", ".pth")]


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_resumed_equals_uninterrupted(discs: Path, tmp_path: Path, optimiser: str) -> None:
    settings = TrainSettings(
        **TINY, optimiser=optimiser, dropout=0.2, augment="full", warm_up="restoration", warm_up_steps=4
    )
    whole = train(discs, out=tmp_path / "whole", settings=settings)
    out = tmp_path / "cut"
    for stop in (Stop("warm-up", 3), Stop("train", 5)):
        with pytest.raises(KeyboardInterrupt):
            train(discs, out=out, settings=settings, resume=out.exists(), progress=stop)
    assert (out / ".scratch/checkpoint.safetensors").exists()
    again = train(discs, out=out, settings=settings, resume=True)
    assert again.history == whole.history
    first, second = _weights(tmp_path / "whole"), _weights(out)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_resume_with_other_settings_is_refused(discs: Path, tmp_path: Path) -> None:
    settings = TrainSettings(**TINY)
    with pytest.raises(KeyboardInterrupt):
        train(discs, out=tmp_path / "run", settings=settings, progress=Stop("train", 3))
    with pytest.raises(FewerError, match="other settings"):
        train(discs, out=tmp_path / "run", settings=settings.model_copy(update={"batch": 2}), resume=True)


def test_a_seed_decides_everything(discs: Path) -> None:
    runs = [train(discs, settings=TrainSettings(**TINY, seed=seed)) for seed in (1, 1, 2)]
    states = [run.model.state_dict() for run in runs]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert runs[0].history != runs[2].history


def test_volumes_are_predicted_in_their_own_place(tmp_path: Path) -> None:
    pytest.importorskip("nibabel", reason="needs the [medical] extra")
    root = write_raw(tmp_path / "Dataset003_Balls")
    settings = TrainSettings(
        **TINY | {"steps": 2}, network="dynunet", deep_supervision=2, spacing=(1.0, 1.0, 2.0), augment="full"
    )
    run = train(root, out=tmp_path / "run", settings=settings)
    assert run.preparation.dims == 3
    assert run.evaluation is not None
    assert run.evaluation.unit == "mm"
    done = predict(tmp_path / "run", root / "imagesTr", out=tmp_path / "masks")
    assert [path.name for path in done.masks] == [f"c{i}.nii.gz" for i in range(4)]
    image, mask = read_picture(root / "imagesTr/c0_0000.nii.gz"), read_picture(done.masks[0])
    assert mask.space == image.space
    assert np.allclose(mask.affine, image.affine)  # type: ignore[arg-type]


def test_masks_hold_the_numbers_of_the_training(trained: Path, discs: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    for index in range(2):
        (tmp_path / f"new/{index}.png").write_bytes((discs / f"images/case{index}.png").read_bytes())
    (tmp_path / "new/broken.png").write_bytes(b"no picture")
    done = predict(trained, tmp_path / "new", out=tmp_path / "masks", settings=PredictSettings(overlay=True))
    assert [path.name for path, _ in done.skipped] == ["broken.png"]
    assert set(np.unique(read_picture(done.masks[0]).array)) == {0, 255}
    assert read_picture(tmp_path / "masks/overlays/0.png").array.shape[0] == 3
    with pytest.raises(FewerError, match="exists already"):
        predict(trained, tmp_path / "new", out=tmp_path / "masks")
    assert len(predict(trained, tmp_path / "new", out=tmp_path / "masks", resume=True).masks) == 2


def test_a_run_is_judged_on_what_it_has_not_seen(trained: Path, discs: Path, tmp_path: Path) -> None:
    trained_on = json.loads((trained / "report.json").read_text())["data"]["train"]
    result = fewer.evaluate(trained, discs)
    assert not {score.case for score in result.scores} & set(trained_on)
    assert fewer.evaluate(trained, discs, all_data=True).cases == 8
    done = predict(trained, discs, out=tmp_path / "masks")
    assert len(done.masks) == 8
    assert fewer.evaluate(tmp_path / "masks", discs).scores == fewer.evaluate(trained, discs, all_data=True).scores


def test_the_halves_meet(trained: Path, discs: Path, tmp_path: Path) -> None:
    """A trained run goes through compress unchanged, with its Dice before and after, and is a run of the task again."""
    settings = fewer.Settings(calibration=8, sensing=4, heldout=4, additivity=0, baselines=("uniform",), workers=1)
    run = fewer.compress(
        str(trained), str(discs), "weights=50%", out=tmp_path / "small", settings=settings, quality=str(discs)
    )
    assert run.plan.cost["weights"] <= 0.5 * run.plan.dense["weights"]
    shown = {entry.name: entry for entry in run.report.verdict.quality}
    before, after = shown["Dice, all"].dense, shown["Dice, all"].value
    assert before == pytest.approx(fewer.evaluate(trained, discs).overall.dice_all)
    assert after == pytest.approx(fewer.evaluate(tmp_path / "small", discs).overall.dice_all)
    assert after > before - 0.1
    assert not shown["missed structures"].higher_is_better
    assert all("Dice, all" in row.quality for row in run.report.baselines)
    assert fewer.plan(tmp_path / "small", "flops=0.6x").cost["flops"] <= 0.6 * run.plan.dense["flops"]


@pytest.mark.skipif(not native.available(), reason="the native library is not built")
def test_the_halves_meet_under_a_budget_in_time(
    trained: Path, discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same for ``latency=0.5x``; the times are made up, so that the test says nothing about this machine."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(profile, "Stopwatch", FakeWatch)
    monkeypatch.setattr(deploying, "Stopwatch", FakeWatch)
    monkeypatch.setattr(runtimes, "missing", lambda name: "left out here")  # the fake device has kernels only
    monkeypatch.setattr(FakeWatch, "fast", 14.0)  # about as predicted
    settings = fewer.Settings(
        calibration=8, sensing=4, heldout=4, additivity=0, baselines=("uniform",), workers=1,
        sparsities=(0.5, 0.75), precisions=("fp32", "int8"), pattern="block:16x4",
    )  # fmt: skip
    run = fewer.compress(
        str(trained), str(discs), "latency=0.5x", out=tmp_path / "small", settings=settings, quality=str(discs)
    )
    assert run.report.verdict.met and run.report.verdict.budgets[0].metric == "latency"
    assert any(option != Option() for option in run.plan.options().values())
    shown = {entry.name: entry for entry in run.report.verdict.quality}["Dice, all"]
    assert shown.dense == pytest.approx(fewer.evaluate(trained, discs).overall.dice_all)
    # the values in the file are those that the kernels multiply with
    assert shown.value == pytest.approx(fewer.evaluate(tmp_path / "small", discs).overall.dice_all)
    fast = fewer.load(tmp_path / "small", accelerated=True)
    image = torch.randn(1, 1, *preparation_of(load_model(str(trained))).patch)
    plain = fewer.load(tmp_path / "small")(image)
    assert float((fast(image) - plain).norm() / plain.norm()) < 0.05


@pytest.mark.skipif(not native.available(), reason="the native library is not built")
def test_a_net_that_loses_channels_meets_half_the_time(
    discs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DynUNet keeps its blocks under two names each; its inner channels go all the same. Times are made up."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(profile, "Stopwatch", FakeWatch)
    monkeypatch.setattr(deploying, "Stopwatch", FakeWatch)
    monkeypatch.setattr(runtimes, "missing", lambda name: "left out here")  # the fake device has kernels only
    monkeypatch.setattr(FakeWatch, "fast", 14.0)
    train(discs, out=tmp_path / "run", settings=TrainSettings(**TINY | {"network": "dynunet", "width": 8, "steps": 40}))
    settings = fewer.Settings(
        calibration=8, sensing=2, heldout=4, additivity=0, baselines=(), workers=1,
        sparsities=(0.5,), precisions=("fp32", "int8"), pattern="columns",
    )  # fmt: skip
    small = fewer.compress(
        str(tmp_path / "run"), str(discs), "latency=0.2x", out=tmp_path / "small", settings=settings, quality=str(discs)
    )
    assert small.plan.cost["latency"] <= 0.2 * small.plan.dense["latency"]
    assert small.shrunk is not None and small.shrunk.removals and not small.shrunk.refused
    shown = {entry.name: entry for entry in small.report.verdict.quality}["Dice, all"]
    assert shown.dense == pytest.approx(fewer.evaluate(tmp_path / "run", discs).overall.dice_all)
    # what is shown was measured with the kernels, which round the input of int8 layers: a few pixels differ
    assert shown.value == pytest.approx(fewer.evaluate(tmp_path / "small", discs).overall.dice_all, abs=0.02)
    again, before = fewer.load(tmp_path / "small"), load_model(str(tmp_path / "run")).model
    for removal in small.shrunk.removals:
        name = removal.link.consumer
        kept = len(removal.kept) * removal.link.size
        assert again.get_submodule(name).in_channels == kept < before.get_submodule(name).in_channels  # type: ignore[operator]
    won = fewer.recover(tmp_path / "small", steps=2, out=tmp_path / "better")
    assert won is not None and fewer.evaluate(tmp_path / "better", discs).overall.dice_all > 0


def test_any_function_can_judge_a_compression(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    settings = fewer.Settings(additivity=0, baselines=(), search=0)
    run = fewer.compress(net, torch.randn(16, 8), settings=settings, quality=lambda model: {"zeros": _zeros(model)})
    entry = run.report.verdict.quality[-1]
    assert (entry.name, entry.dense) == ("zeros", 0.0)
    assert entry.value > 50
    with pytest.raises(FewerError, match="somewhere does not exist"):
        fewer.compress(net, torch.randn(16, 8), settings=settings, quality="somewhere")
    with pytest.raises(FewerError, match=r"no task can judge .* in Python, give quality= a function"):
        fewer.compress(net, torch.randn(16, 8), settings=settings, quality=tmp_path)


def _zeros(model: torch.nn.Module) -> float:
    return float(sum(int((p == 0).sum()) for p in model.parameters()))


def test_calibration_and_heldout_patches_share_no_image(trained: Path, discs: Path, tmp_path: Path) -> None:
    loaded = load_model(str(trained))
    first = images(loaded, discs, 10, part="calibration", seed=0)
    second = images(loaded, discs, 5, part="heldout", seed=0)
    assert (len(first), len(first.files), len(second)) == (10, 10, 5)
    assert len(set(first.files)) == 6  # all that trained
    assert len(set(second.files)) == 2
    assert not set(first.files) & set(second.files)
    assert first.files == sorted(first.files)
    assert torch.equal(images(loaded, discs, 10, part="calibration", seed=0).tensor, first.tensor)
    pool = tmp_path / "pool"  # images alone, one of them broken
    pool.mkdir()
    for path in (discs / "images").iterdir():
        (pool / path.name).write_bytes(path.read_bytes())
    (pool / "case3.png").write_bytes(b"no picture")
    found = [images(loaded, pool, 20, part=part, seed=0) for part in ("calibration", "heldout")]
    assert [path.name for one in found for path, _ in one.skipped] == ["case3.png"]
    assert not set(found[0].files) & set(found[1].files)


def test_quality_leaves_out_what_trained(trained: Path, discs: Path) -> None:
    loaded = load_model(str(trained))
    assert quality(loaded, discs).note == "on 2 annotated cases"
    assert preparation_of(loaded).values == (0, 255)


def test_training_may_start_from_a_run(trained: Path, discs: Path) -> None:
    settings = TrainSettings(**TINY | {"width": 8, "steps": 1, "learning_rate": 1e-9}, init=str(trained))
    run = train(discs, settings=settings)
    for name, tensor in _weights(trained).items():
        assert torch.allclose(run.model.state_dict()[name], tensor, atol=1e-5)
    with pytest.raises(FewerError, match="another network"):
        train(discs, settings=TrainSettings(**TINY, init=str(trained)))


def test_a_run_that_has_seen_every_case_is_not_judged_on_them(discs: Path, tmp_path: Path) -> None:
    run = train(discs, out=tmp_path / "run", settings=TrainSettings(**TINY | {"steps": 2}, fold=-1))
    assert run.evaluation is None
    assert "None" not in (tmp_path / "run/report.html").read_text()
    with pytest.raises(FewerError, match=r"every case .* has trained"):
        fewer.evaluate(tmp_path / "run", discs)
    with pytest.raises(FewerError, match="not trained on"):
        quality(load_model(str(tmp_path / "run")), discs)
    assert fewer.evaluate(tmp_path / "run", discs, all_data=True).cases == 8
    assert len(images(load_model(str(tmp_path / "run")), discs, 4, part="heldout", seed=0)) == 4


def test_few_labels_are_a_split(discs: Path) -> None:
    run = train(discs, settings=TrainSettings(**TINY), split=Split(("case1",), ("case2", "case3")))
    assert run.evaluation is not None
    assert {score.case for score in run.evaluation.scores} == {"case2", "case3"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"patch": (10, 16)}, "multiple of 4"),
        ({"patch": (16, 16, 16)}, "the images have 2 axes"),
        ({"fold": 9}, "no fold 9"),
        ({"device": "cuda"}, "no CUDA device"),
    ],
)
def test_what_cannot_be_trained_is_told(discs: Path, changes: dict, words: str) -> None:
    if "device" in changes and torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(FewerError, match=words):
        train(discs, settings=TrainSettings(**TINY | changes))


def test_a_loss_that_explodes_is_told(discs: Path, tmp_path: Path) -> None:
    settings = TrainSettings(**TINY | {"learning_rate": 1e30})
    with pytest.raises(FewerError, match="lower --learning-rate"):
        train(discs, out=tmp_path / "run", settings=settings)
    assert not (tmp_path / "run/model.safetensors").exists()


def test_empty_masks_teach_nothing(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", 3)
    for path in (root / "masks").iterdir():
        Image.new("L", (40, 48)).save(path)
    with pytest.raises(FewerError, match="all empty"):
        train(root, settings=TrainSettings(**TINY))
    empty = SegmentData(tmp_path, "folder", (), (Case("a", ()),))
    with pytest.raises(FewerError, match="no annotated case"):
        train(empty, settings=TrainSettings(**TINY))


def test_a_run_on_volumes_is_no_start_for_images_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"input_size": [1, 8, 8, 8], "segment": {"settings": {"network": "dynunet", "width": 4, "levels": 3}}}
    start = SimpleNamespace(model=torch.nn.Conv3d(1, 2, 3), meta=facts)
    monkeypatch.setattr(training, "load_model", lambda _: start)
    flat = SimpleNamespace(patch=(8, 8))
    with pytest.raises(FewerError, match="volumes was trained on 3-D images, and these are 2-D"):
        training.start_from(torch.nn.Conv2d(1, 2, 3), TrainSettings(init="volumes"), cast(Any, flat))
