"""The whole way of a classifier: train, evaluate, predict, doctor, compress with accuracy before and after."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import fewer
from fewer.core.errors import FewerError
from fewer.data.preprocess import Preprocess
from fewer.engine.settings import Settings
from fewer.models.spec import LoadedModel
from fewer.tasks.classify.doctor import checkup
from fewer.tasks.classify.model import map_classes, open_classifier
from fewer.tasks.classify.readers import open_data
from fewer.tasks.classify.settings import TrainSettings
from fewer.tasks.classify.training import prepare
from tests.tasks.classify.shapes import CLASSES, write_folders

STEPS = {"steps": 30, "every": 15, "batch": 16, "learning_rate": 0.01, "augment": "none"}
NET = """
from torch import nn


def net():
    layers = [nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(4)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 3)), {"input_size": (3, 32, 32), "crop": 1.0}
"""
QUICK = Settings(calibration=8, sensing=4, heldout=4, additivity=0, baselines=("uniform",), workers=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folders(tmp_path_factory.mktemp("classify") / "photos", each=16)


@pytest.fixture(scope="module")
def run(photos: Path) -> Path:
    place = photos.parent / "run"
    (photos.parent / "net.py").write_text(NET)
    done = fewer.train(photos, out=place, network=f"{photos.parent}/net.py:net", **STEPS)
    assert done.evaluation is not None and done.evaluation.top1 > 0.6  # of three classes
    return place


def test_scores_are_of_images_that_did_not_train(run: Path, photos: Path, tmp_path: Path) -> None:
    held = json.loads((run / "recipe.json").read_text())["meta"]["classify"]["held"]["names"]
    result = fewer.evaluate(run, photos, out=tmp_path / "scores")
    assert set(result.names) == set(held) and len(held) == 9
    assert fewer.evaluate(run, photos, part="all").names == tuple(open_data(photos).names)
    assert {p.name for p in (tmp_path / "scores").iterdir()} == {f"evaluation.{s}" for s in ("json", "csv", "html")}
    found = json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    low, high = found["measures"]["top-1 accuracy"]["interval"]
    assert low <= result.top1 <= high
    assert len((tmp_path / "scores" / "evaluation.csv").read_text().splitlines()) == 10


def test_a_resumed_training_ends_with_the_same_weights(run: Path, photos: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    from fewer.tasks.classify import training

    before, calls, network = training.scores_of, [], f"{photos.parent}/net.py:net"

    def stop(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 2:  # at the second validation, after a point to resume from was left
            raise Stop
        return before(model, batch)

    training.scores_of = stop
    try:
        with pytest.raises(Stop):
            fewer.train(photos, out=tmp_path / "run", network=network, **STEPS)
    finally:
        training.scores_of = before
    fewer.train(photos, out=tmp_path / "run", resume=True, network=network, **STEPS)
    assert (tmp_path / "run/model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()


def test_pictures_of_kinds_that_are_not_read_are_told(run: Path, photos: Path, tmp_path: Path) -> None:
    """They were passed over in silence wherever there were others beside them."""
    shutil.copytree(photos, tmp_path / "set")
    (tmp_path / "set" / "disc" / "moving.gif").write_bytes(b"GIF89a")
    (tmp_path / "set" / "disc" / "notes.txt").write_text("no picture")
    data = open_data(tmp_path / "set")
    assert [name for name, _ in data.skipped] == ["disc/moving.gif"] and len(data) == len(open_data(photos))
    told = prepare(data, TrainSettings(network="resnet8")).lines()
    assert sum("moving.gif" in line and ".gif are not read" in line for line in told) == 1
    assert any("moving.gif" in line for line in fewer.evaluate(run, tmp_path / "set").lines())
    found = fewer.predict(run, tmp_path / "set" / "disc", out=tmp_path / "out")
    assert any("moving.gif" in line for line in found.lines()) and found.to_dict()["skipped"]
    assert any("moving.gif" in str(one) for one in fewer.doctor(tmp_path / "set").findings)


def test_predictions_have_names_and_probabilities(run: Path, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    shutil.copy(photos / "disc" / "disc000.png", tmp_path / "new")
    (tmp_path / "new" / "broken.png").write_bytes(b"no image")
    for name in ("phone.HEIC", "film.mp4"):
        (tmp_path / "new" / name).write_bytes(b"x")
    done = fewer.predict(run, tmp_path / "new", out=tmp_path / "out", top=2)
    assert [name for name, _ in done.skipped] == ["broken.png", "film.mp4", "phone.HEIC"]
    assert "skipped film.mp4: videos (.mp4) are not read; save frames of it as PNG or JPEG" in done.lines()
    (first, sure), (_, second) = done.guesses["disc000.png"]
    assert first in CLASSES and sure >= second and sure + second <= 1.000001
    with pytest.raises(FewerError, match="exists already"):
        fewer.predict(run, tmp_path / "new", out=tmp_path / "out")
    assert fewer.predict(run, tmp_path / "new", out=tmp_path / "out", resume=True).guesses.keys() == done.guesses.keys()


def test_compression_shows_accuracy_before_after_and_of_baselines(run: Path, photos: Path, tmp_path: Path) -> None:
    done = fewer.compress(str(run), photos, "weights=60%", settings=QUICK, quality=photos, out=tmp_path / "small")
    shown = next(quality for quality in done.report.verdict.quality if quality.name == "top-1 accuracy")
    assert shown.labelled and shown.interval is not None and shown.note == "on 9 labelled images"
    assert shown.dense == pytest.approx(fewer.evaluate(run, photos).top1)
    assert shown.value == pytest.approx(fewer.evaluate(tmp_path / "small", photos).top1)
    for row in done.report.baselines:
        low, high = row.intervals["top-1 accuracy"]
        assert low <= row.quality["top-1 accuracy"] <= high
    assert "95 %" in (tmp_path / "small" / "report.html").read_text()


def test_any_classifier_can_be_judged(run: Path, photos: Path) -> None:
    done = fewer.compress(f"{photos.parent}/net.py:net", photos, "weights=60%", settings=QUICK, quality=photos)
    assert [q.name for q in done.report.verdict.quality if q.labelled] == ["top-1 accuracy", "calibration error"]
    maps = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    with pytest.raises(FewerError, match="no task can judge Sequential"):
        fewer.compress(maps, torch.rand(8, 3, 16, 16), "weights=60%", settings=QUICK, quality=photos)


def test_classes_are_matched_by_name_number_or_order(photos: Path, tmp_path: Path) -> None:
    def model(outputs: int, names: tuple[str, ...] = ()) -> LoadedModel:
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, outputs))
        return LoadedModel(net, "toy", {}, Preprocess((3, 2, 2)), None, {"classify": {"classes": list(names)}})

    data = open_data(photos)
    by_name = map_classes(data, open_classifier(model(4, ("Disc", "cat", "across", "upright"))))
    assert (by_name.outputs.tolist(), by_name.how) == ([2, 0, 3], "by name")
    assert map_classes(data, open_classifier(model(3))).how == "in order"
    with pytest.raises(FewerError, match=r"'upright'.*is no output"):
        map_classes(data, open_classifier(model(3, ("disc", "across", "up"))))
    with pytest.raises(FewerError, match=r"put a classes\.txt"):
        map_classes(data, open_classifier(model(5)))
    for name in ("3", "11"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "a.png")
    assert map_classes(open_data(tmp_path), open_classifier(model(20))).outputs.tolist() == [3, 11]


def test_a_permuted_mapping_is_told(run: Path, photos: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("disc\nupright\nacross\n")
    result = fewer.evaluate(run, photos, part="all", class_names=str(names))
    assert "in another order" in result.doubt and "check the classes" in "\n".join(result.lines())
    assert not fewer.evaluate(run, photos, part="all").doubt


def test_doctor_names_what_is_wrong(photos: Path, tmp_path: Path) -> None:
    assert checkup(photos).lines()[-1] == "nothing is wrong"
    ill = Path(shutil.copytree(photos, tmp_path / "ill"))
    (ill / "disc" / "disc000.png").write_bytes(b"no image")
    shutil.copy(ill / "disc" / "disc001.png", ill / "across" / "other.png")
    shutil.copy(ill / "disc" / "disc002.png", ill / "disc" / "again.png")
    Image.new("L", (32, 32), 7).save(ill / "upright" / "grey.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (3, 3, 3), dtype=np.uint8)).save(
        ill / "disc" / "tiny.png"
    )
    (ill / "few").mkdir()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(ill / "few" / "a.png")
    found = checkup(ill)
    assert {finding.check for finding in found.findings} == {
        "unreadable", "contradiction", "duplicate", "tiny-class", "mode", "size", "constant",
    }  # fmt: skip
    assert not found.healthy
    for part in ("train", "test"):
        shutil.copytree(photos / "disc", tmp_path / "parts" / part / "disc")
    write_folders(tmp_path / "parts" / "test", each=2, seed=4)
    assert {finding.check for finding in checkup(tmp_path / "parts").findings} >= {"leak", "unseen-class"}


def test_a_training_ends_after_its_time(photos: Path) -> None:
    how = {"network": f"{photos.parent}/net.py:net", **STEPS, "steps": 100_000, "every": 100_000}
    (photos.parent / "net.py").write_text(NET)
    done = fewer.train(photos, time=0.3, out=photos.parent / "timed", **how)
    steps = int(done.history[-1]["step"])
    assert 0 < steps < 100_000
    assert f"{steps} steps, " in (photos.parent / "timed" / "report.html").read_text("utf-8")
