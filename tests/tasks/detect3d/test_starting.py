"""Trainings that go on from a trained detector, or from a checkpoint of OpenPCDet."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fewer
from fewer.cli import main
from fewer.core.errors import FewerError
from fewer.engine.settings import Settings
from fewer.models.spec import load_model
from fewer.tasks.detect3d.networks import build_network, published_state, small_config
from fewer.tasks.detect3d.settings import TrainSettings
from fewer.tasks.detect3d.simulator import SENSORS, Streets
from fewer.tasks.detect3d.training import plan_training, save_detector, train

SENSOR = SENSORS["hdl-64"].ahead(30).thinned(4)
REACH = (0.0, -5.76, -3.0, 23.04, 5.76, 1.0)
STILL = {"steps": 1, "every": 1, "batch": 1, "judges": 1, "set_in": 0, "learning_rate": 1e-9, "weight_decay": 0.0}


@pytest.fixture(scope="module")
def kitti(tmp_path_factory) -> Path:
    return Streets(SENSOR, seed=5).write(tmp_path_factory.mktemp("start") / "kitti", 4, val=0.5)


@pytest.fixture(scope="module")
def run(kitti) -> Path:
    torch.manual_seed(3)
    config = small_config("pointpillars", ("Car",)).model_copy(update={"reach": REACH})
    save_detector(kitti.parent / "run", build_network(config), None)
    return kitti.parent / "run"


def weights(model) -> dict[str, torch.Tensor]:
    return {name: p for name, p in model.named_parameters()}


def test_a_training_goes_on_from_a_run(kitti, run):
    plan = plan_training(kitti, TrainSettings(init=str(run)))
    assert plan.config.reach == REACH and plan.config.classes == ("Car",)
    assert f"starts from the weights of {run}" in plan.lines()
    done = train(kitti, out=kitti.parent / "further", settings=TrainSettings(init=str(run), **STILL))
    assert (kitti.parent / "further/report.html").exists() and done.history[0]["step"] == 0
    before = weights(load_model(str(run)).model)
    assert all(torch.allclose(p, before[name], atol=1e-6) for name, p in weights(done.model).items())
    # another field, with the same weights
    wide = plan_training(kitti, TrainSettings(init=str(run), reach=(0, -11.52, -3, 23.04, 11.52, 1)))
    assert wide.config.grid == (64, 64, 1) and wide.config.anchors == plan.config.anchors


def test_what_came_trained_is_kept_where_steps_make_it_no_better(kitti, run, monkeypatch):
    from fewer.tasks.detect3d import training

    scores = iter([0.5, 0.1, 0.1])
    real = training.score_detector

    class Scored:
        def __init__(self, value):
            self.value = value

        def measures(self):
            return {"mAP": self.value}

    monkeypatch.setattr(
        training,
        "score_detector",
        lambda *a, **k: real(*a, **k) if "progress" in k else (Scored(next(scores, 0.1)), {}),
    )
    settings = TrainSettings(init=str(run), **{**STILL, "learning_rate": 0.05, "steps": 2})
    done = train(kitti, settings=settings)
    before = weights(load_model(str(run)).model)
    assert done.best_step == 0 and all(torch.equal(p, before[name]) for name, p in weights(done.model).items())


def test_a_checkpoint_of_openpcdet_is_gone_on_from(kitti, tmp_path):
    torch.manual_seed(4)
    net = build_network(small_config("pointpillars", ("Car",)))
    file = tmp_path / "checkpoint.pth"
    torch.save({"model_state": published_state(net), "epoch": 80, "version": "pcdet+0.6.0"}, file)
    done = train(kitti, settings=TrainSettings(init=str(file), classes=("Car",), **STILL))
    assert all(torch.allclose(p, weights(net)[name], atol=1e-6) for name, p in weights(done.model).items())
    with pytest.raises(FewerError, match="another grid, width or list of classes"):
        train(kitti, settings=TrainSettings(init=str(file), **STILL))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--init", "nowhere"], "neither a run folder nor a file"),
        (["--init", "RUN", "--network", "second"], "holds pointpillars, not second"),
        (["--init", "RUN", "--classes", "Car,Pedestrian"], "knows Car, not Car, Pedestrian"),
        (["--init", "FILE"], "holds more than weights, or is damaged"),
        (["--init", "OTHER", "--size", "published", "--network", "second"], "other.pth: it holds no network that is"),
        (["--init", "OTHER", "--network", "second"], "other.pth: the checkpoint lacks"),
    ],
)
def test_what_cannot_be_gone_on_from(kitti, run, tmp_path, words, told, capsys):
    (tmp_path / "file.pth").write_bytes(b"no weights")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "other.pth")
    places = {"RUN": str(run), "FILE": str(tmp_path / "file.pth"), "OTHER": str(tmp_path / "other.pth")}
    words = [places.get(word, word) for word in words]
    command = ["train", str(kitti), "--task", "detect3d", "--out", str(tmp_path / "new"), "--steps", "1", *words]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error


def test_a_compressed_run_is_refused(kitti, run, tmp_path):
    settings = Settings(
        calibration=1, sensing=1, heldout=1, batch=1, sparsities=(0.5,), allocator="uniform", compensation="none",
        score="magnitude", search=0, additivity=0, baselines=(), estimator="taylor", probes=1,
    )  # fmt: skip
    fewer.compress(str(run), str(kitti), "weights=60%", out=tmp_path / "cheap", settings=settings)
    with pytest.raises(FewerError, match="is compressed, and a training would lose what was cut"):
        plan_training(kitti, TrainSettings(init=str(tmp_path / "cheap")))
