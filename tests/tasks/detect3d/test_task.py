"""The task as verbs use it: train, evaluate, predict, compress and what is told about bad input."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
import torch

import fewer
from fewer.cli import main
from fewer.core.errors import FewerError
from fewer.engine.felt import places_of
from fewer.engine.prepare import prepare
from fewer.engine.settings import Settings
from fewer.models.choices import choose_freely, remember_choices
from fewer.models.inputs import row_count
from fewer.models.spec import load_model
from fewer.tasks import open_task, task_for
from fewer.tasks.detect3d.dataset import open_data
from fewer.tasks.detect3d.networks import build_network, small_config
from fewer.tasks.detect3d.settings import TrainSettings
from fewer.tasks.detect3d.simulator import SENSORS, Streets
from fewer.tasks.detect3d.training import save_detector

SENSOR = SENSORS["hdl-64"].ahead(30).thinned(4)
QUICK = Settings(
    calibration=3, sensing=2, heldout=2, batch=2, estimator="taylor", probes=1, sparsities=(0.5, 0.8), allocator="dp",
    search=0, additivity=0, baselines=(),
)  # fmt: skip


@pytest.fixture(scope="module")
def kitti(tmp_path_factory) -> Path:
    return Streets(SENSOR, seed=5).write(tmp_path_factory.mktemp("task") / "kitti", 6, val=0.34)


@pytest.fixture(scope="module")
def run(kitti) -> Path:
    settings = TrainSettings(steps=2, every=1, batch=1, classes=("Car",), judges=1, set_in=2)
    done = open_task("detect3d").train(kitti, out=kitti.parent / "run", settings=settings)
    assert done.scores.scans == 2 and len(done.history) == 2 and done.lines()
    return kitti.parent / "run"


def test_a_run_is_found_again(kitti, run):
    assert task_for(None, data=kitti).name == "detect3d" and task_for(None, run=run).name == "detect3d"
    loaded = load_model(str(run))
    assert loaded.task == "detect3d" and loaded.meta["detect3d"]["split"]["val"] == ["000004", "000005"]
    assert "From above" in (run / "report.html").read_text()
    with pytest.raises(FewerError, match="is finished"):
        open_task("detect3d").train(kitti, out=run, resume=True)


def test_evaluate_and_predict(kitti, run, tmp_path):
    task = open_task("detect3d")
    result = task.evaluate(run, kitti, out=tmp_path / "scores")
    assert result.scans == 2 and json.loads((tmp_path / "scores/evaluation.json").read_text())["scans"] == 2
    assert "Not known to the network" in result.note
    bad = tmp_path / "bad"
    shutil.copytree(kitti, bad)
    (bad / "training/velodyne/000000.bin").write_bytes(b"\0" * 31)
    far = torch.full((5, 4), 500.0).numpy()
    (bad / "training/velodyne/000001.bin").write_bytes(far.tobytes())
    done = task.predict(run, bad, out=tmp_path / "boxes", settings=task.predict_settings(confidence=0.0, pictures=True))
    assert len(done.files) == 4 and [name for name, _ in done.skipped] == ["000000", "000001"]
    assert "in the reach" in done.skipped[1][1]
    assert (tmp_path / "boxes/pictures/000002.png").exists()
    with pytest.raises(FewerError, match="exists already"):
        task.predict(run, bad, out=tmp_path / "boxes")


def _with_intensities(kitti: Path, place: Path, factor: float) -> Path:
    shutil.copytree(kitti, place)
    for path in place.rglob("velodyne/*.bin"):
        points = np.fromfile(path, "<f4").reshape(-1, 4)
        points[:, 3] *= factor
        points.tofile(path)
    return place


def test_intensities_of_another_kind_are_told(kitti, run, tmp_path):
    """A detector of 0 to 1 that met 0 to 4000, or the other way round, gave poor boxes without a word."""
    task, least = open_task("detect3d"), open_task("detect3d").predict_settings(confidence=0.0)
    recipe = json.loads((run / "recipe.json").read_text())
    assert 0 < recipe["meta"]["detect3d"]["bright"] <= 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task.predict(run, kitti, out=tmp_path / "same", settings=least)
        bytes_ = _with_intensities(kitti, tmp_path / "bytes", 255)  # are brought to 0 to 1
        task.predict(run, bytes_, out=tmp_path / "boxes", settings=least)
    wide = _with_intensities(kitti, tmp_path / "wide", 4000)
    for use in (
        lambda: task.predict(run, wide, out=tmp_path / "poor", settings=least),
        lambda: task.evaluate(run, wide),
        lambda: task.images(load_model(str(run)), wide, 2, part="calibration", seed=0),
    ):
        with pytest.warns(UserWarning, match="fewer: bright points of .*, and those that trained .*run had"):
            use()
    for bright, told in ((100.0, "and those that trained"), (None, "does not say on which")):
        other = tmp_path / f"run {bright}"
        shutil.copytree(run, other)
        recipe["meta"]["detect3d"]["bright"] = bright
        (other / "recipe.json").write_text(json.dumps(recipe))
        with pytest.warns(UserWarning, match=told):
            task.evaluate(other, bytes_)


def test_two_runs_stand_side_by_side(kitti, run, tmp_path):
    task = open_task("detect3d")
    beside = task.evaluate_settings(dense=str(run), confidence=0.0)
    task.evaluate(run, kitti, out=tmp_path / "scores", settings=beside)
    page = (tmp_path / "scores/evaluation.html").read_text()
    assert "by the dense network; orange: by the compressed one" in page and "mAP dense" in page
    torch.manual_seed(0)
    (tmp_path / "other").mkdir()
    save_detector(tmp_path / "other", build_network(small_config("pointpillars", ("Van",))), None)
    with pytest.raises(FewerError, match="cannot stand side by side"):
        task.evaluate(run, kitti, settings=task.evaluate_settings(dense=str(tmp_path / "other")))
    with pytest.raises(FewerError, match="--dense stands beside a run folder alone"):
        task.evaluate(tmp_path / "scores", kitti, settings=beside)


def test_a_detector_is_compressed(kitti, run, tmp_path):
    done = fewer.compress(
        str(run), str(kitti), "flops=0.6x", out=tmp_path / "cheap", settings=QUICK, quality=str(kitti)
    )
    assert done.plan.cost["flops"] <= 0.6 * done.plan.dense["flops"] * (1 + 1e-6)
    names = {unit.name for unit in done.curves.units}
    assert {"vfe.pfn_layers.0.linear", "backbone_2d.deblocks.1.0", "dense_head.conv_cls"} <= names
    again = load_model(str(tmp_path / "cheap"))
    scan = torch.rand(200, 4) * torch.tensor([20, 20, 2, 1])
    with torch.no_grad():
        assert torch.allclose(again.model(scan)["cls_preds"], done.model(scan)["cls_preds"], atol=1e-5)
    assert any(entry.name == "mAP" for entry in done.report.verdict.quality)


@pytest.mark.parametrize("network", ["second", "centerpoint"])
def test_sparse_detectors_are_compressed(kitti, tmp_path, network):
    torch.manual_seed(0)
    config = small_config(network, ("Car",)).model_copy(update={"reach": (0, -11.52, -3, 23.04, 11.52, 1)})
    (tmp_path / "run").mkdir()
    save_detector(tmp_path / "run", build_network(config), None)
    done = fewer.compress(
        str(tmp_path / "run"), str(kitti), "flops=0.5x", settings=QUICK.model_copy(update={"compensation": "obs"})
    )
    sparse = [unit for unit in done.curves.units if unit.name.startswith("backbone_3d")]
    assert len(sparse) >= 11 and all(unit.kind == "conv3d" for unit in sparse)
    assert done.plan.cost["flops"] <= 0.5 * done.plan.dense["flops"] * (1 + 1e-6)


def tiny(network: str):
    """A sparse detector with random weights, on a field of 23 x 12 metres."""
    torch.manual_seed(0)
    small = {"reach": (0, -5.76, -3, 23.04, 5.76, 1), "keypoints": 64, "proposals": 12, "roi_grid": 2}
    return build_network(small_config(network, ("Car",)).model_copy(update=small))


def test_copies_look_into_the_proposals_of_the_first_one(kitti):
    data = open_data(kitti)
    scan = torch.from_numpy(data.points(data.names[0]))
    dense = tiny("pv-rcnn")
    with torch.no_grad():
        dense.dense_head.conv_cls.bias.copy_(torch.tensor([1.0, 0.0]))  # lengthwise priors are the sure ones
        free = dense(scan)["rcnn_cls"] != 0
        remember_choices(dense)
        assert torch.equal(dense(scan)["rcnn_cls"] != 0, free)
        cut = copy.deepcopy(dense)
        cut.dense_head.conv_cls.bias.copy_(torch.tensor([0.0, 1.0]))  # now those that are turned
        assert torch.equal(cut(scan)["rcnn_cls"] != 0, free)
        found = cut.detect(scan, score=0.0)[0]  # what is detected follows from its own
        assert not torch.equal(choose_freely(cut)(scan)["rcnn_cls"] != 0, free)
        assert np.array_equal(found.boxes, cut.detect(scan, score=0.0)[0].boxes)


def test_a_detector_of_two_stages_is_compressed(kitti, tmp_path):
    """Rows behind the proposals are compared and repaired one by one, though the cut moves the proposals."""
    save_detector(tmp_path / "run", tiny("pv-rcnn"), None)
    quick = QUICK.model_copy(update={"allocator": "uniform", "batch": 1, "calibration": 2, "sensing": 1})
    done = fewer.compress(str(tmp_path / "run"), str(kitti), "flops=0.3x", out=tmp_path / "cheap", settings=quick)
    names = {unit.name for unit in done.curves.units}
    assert {"pfe.SA_layers.0.mlps.0.0", "point_head.cls_layers.0", "roi_head.shared_fc_layer.0"} <= names
    assert done.model.choices is None  # what users call looks into its own proposals
    again, scan = load_model(str(tmp_path / "cheap")).model, done.prepared.calibration.items[0]
    with torch.no_grad():
        kept, now = again(scan), done.model(scan)
    assert all(torch.allclose(now[key].float(), kept[key].float(), atol=1e-4) for key in now)


@pytest.mark.parametrize("network", ["centerpoint", "pv-rcnn"])
def test_a_sparse_detector_is_recovered(kitti, tmp_path, network):
    save_detector(tmp_path / "run", tiny(network), None)
    quick = QUICK.model_copy(update={"compensation": "none", "score": "magnitude", "allocator": "uniform", "batch": 1})
    fewer.compress(str(tmp_path / "run"), str(kitti), "weights=60%", out=tmp_path / "cheap", settings=quick)
    done = fewer.recover(tmp_path / "cheap", steps=3, batch=1, views=0, bf16=True, validations=1)
    errors = [error for _, error in done.report.recovery.points]
    assert len(errors) > 1 and np.isfinite(errors).all()
    assert done.model.choices is None
    kept = sum(int(m.sum()) for m in done.masks.values()) / sum(m.numel() for m in done.masks.values())
    assert kept < 0.7


def test_preset_of_the_paper(kitti, run):
    from fewer.cli.config import resolve

    values = QUICK.model_dump(include={"calibration", "sensing", "heldout", "batch", "probes", "sparsities"})
    settings, _ = resolve(values, preset="dm3d")
    assert settings.distance == "plain" and settings.compensation == "none"
    done = fewer.compress(str(run), str(kitti), "flops=0.6x", settings=settings)
    assert not any(unit.name.startswith("dense_head") for unit in done.curves.units)
    # of a centre head the last layers alone stay dense: the others are much of the work
    head = [name for name, part in tiny("centerpoint").named_modules() if isinstance(part, torch.nn.Conv2d)]
    kept = {name for name in head if any(fnmatch(name, pattern) for pattern in settings.exclude)}
    assert kept == {f"dense_head.heads_list.0.{branch}.1" for branch in ("center", "center_z", "dim", "rot", "hm")}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["eval", "{run}", "{empty}"], "holds no scan"),
        (["predict", "{run}", "{empty}", "--out", "{out}"], "holds no scan"),
        (["train", "{kitti}", "--task", "detect3d", "--classes", "Boat", "--out", "{out}"], "none of the classes Boat"),
        (["eval", "{kitti}", "{kitti}", "--task", "detect3d"], "has no detections"),
        (["eval", "{run}", "{bare}"], "has no labelled scan; fewer predict writes"),
        (["eval", "{boats}", "{kitti}", "--task", "detect3d"], "Boat alone: there is nothing to score; rename"),
        (["compress", "{run}", "--images", "{bare}", "--budget", "flops=0.5x", "--out", "{out}"], "holds one scan"),
        (
            [
                "compress",
                "{run}",
                "--images",
                "{kitti}",
                "--labelled",
                "{bare}",
                "--budget",
                "flops=0.5x",
                "--out",
                "{out}",
            ],
            "has no labelled scan, by which",
        ),
    ],
)
def test_command_line_errors(kitti, run, tmp_path, words, told, capsys):
    for name in ("empty", "bare/velodyne", "boats"):
        (tmp_path / name).mkdir(parents=True)
    shutil.copy(kitti / "training/velodyne/000000.bin", tmp_path / "bare/velodyne")
    for label in (kitti / "training/label_2").glob("*.txt"):
        (tmp_path / "boats" / label.name).write_text("Boat 0 0 0 1 2 30 40 1.5 2 4 0 1.7 20 0 0.9\n")
    places = {"run": run, "kitti": kitti} | {name: tmp_path / name for name in ("empty", "bare", "boats", "out")}
    assert main([word.format(**places) for word in words]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def _replace(folder: Path, pattern: str, make) -> None:
    for path in sorted((folder / "training").glob(pattern)):
        path.write_bytes(make(path))


BAD = {
    "cut off": ("velodyne/*.bin", lambda p: p.read_bytes()[:31], "no whole number of points", 3),
    "no point": ("velodyne/*.bin", lambda p: b"", "holds no point", 3),
    "out of reach": (
        "velodyne/*.bin", lambda p: np.array([[500, 500, 500, 0.5]] * 5, "<f4").tobytes(), "in the reach of this", 3,
    ),
    "14 columns": ("label_2/*.txt", lambda p: b"Car 0 0 0 1 2 3 4 1 1 1 0 0 9\n", "14 columns", 3),
    "no calibration": (
        "calib/*.txt", lambda p: p.read_bytes().replace(b"Tr_velo_to_cam", b"Tr"), "no Tr_velo_to_cam", 3,
    ),
    "other classes": (
        "label_2/*.txt", lambda p: p.read_bytes().replace(b"Car", b"Boat"), "knows Car alone: there is nothing", 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", list(BAD))
def test_bad_data_ends_in_one_sentence_and_code_2(kitti, run, tmp_path, what, capsys):
    pattern, make, told, ill = BAD[what]
    bad = tmp_path / "bad"
    shutil.copytree(kitti, bad)
    if what == "other classes":
        for label in (bad / "training/label_2").glob("*.txt"):
            label.write_text("".join(line for line in label.read_text().splitlines(True) if line.startswith("Car")))
    _replace(bad, pattern, make)
    before = {path: path.read_bytes() for path in sorted(bad.rglob("*")) if path.is_file()}
    assert main(["eval", str(run), str(bad), "--all-data", "--out", str(tmp_path / "out")]) == 2
    heard = capsys.readouterr().err
    assert told in heard and "Traceback" not in heard and len(heard.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
    assert main(["doctor", str(bad), "--task", "detect3d"]) == ill
    assert before == {path: path.read_bytes() for path in sorted(bad.rglob("*")) if path.is_file()}


def test_a_checkpoint_of_another_grid(run, tmp_path):
    shutil.copytree(run, tmp_path / "other")
    recipe = json.loads((tmp_path / "other/recipe.json").read_text())
    recipe["source"]["args"]["pillar"] = 48
    (tmp_path / "other/recipe.json").write_text(json.dumps(recipe))
    with pytest.raises(FewerError, match="of another model"):
        load_model(str(tmp_path / "other"))


@pytest.mark.parametrize("network", ["pointpillars", "centerpoint", "second", "pv-rcnn"])
def test_every_layer_knows_the_places_that_its_output_is_felt_at(kitti, tmp_path, network):
    """One weight for each row of every layer's input, whatever the layer: pillars, sites, cells, points."""
    torch.manual_seed(0)
    config = small_config(network, ("Car",)).model_copy(update={"reach": (0, -5.76, -3, 23.04, 5.76, 1)})
    save_detector(tmp_path / "run", build_network(config), None)
    prepared = prepare(str(tmp_path / "run"), str(kitti), QUICK)
    batches = prepared.calibration.split(2)
    found = places_of(prepared, QUICK, range(len(prepared.calibration)), batches)
    seen = {}
    for name, layer in prepared.layers.items():
        module = layer.users[0]
        module.register_forward_pre_hook(lambda m, x, name=name: seen.update({name: row_count(m, x[0])}))
    with torch.no_grad():
        prepared.model(*batches[0].batch())
    assert found and len(found) > 0.8 * len(prepared.layers)
    assert all(len(each[0]) == seen[name] for name, each in found.items())


@pytest.mark.parametrize("network", ["pointpillars", "centerpoint", "second", "pv-rcnn"])
def test_mixed_precision_reaches_the_layers(kitti, network):
    """The loss is no forward pass: left alone, ``--precision bf16`` changed nothing."""
    kinds = set()
    handle = torch.nn.modules.module.register_module_forward_hook(
        lambda module, args, out: kinds.add(out.dtype) if isinstance(module, torch.nn.Conv2d) else None
    )
    how = {"steps": 1, "batch": 1, "classes": ("Car",), "judges": 1, "set_in": 1}
    try:
        open_task("detect3d").train(kitti, settings=TrainSettings(network=network, precision="bf16", **how))
    finally:
        handle.remove()
    assert torch.bfloat16 in kinds
