"""``fewer bench RUN`` adds its rows to the report of the run; errors are of images that the run held out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import fewer
from fewer.cli.bench import bench
from fewer.cli.flags import Shared
from fewer.core.errors import FewerError
from fewer.data.images import split_files
from fewer.reports import RunReport
from fewer.timing.inputs import make_inputs
from fewer.timing.sources import open_subject
from tests.support.nets import quick

NET = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 32))
    return net, {"input_size": (3, 16, 16)}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("beside")
    (folder / "net.py").write_text(NET)
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    files = [folder / "photos" / f"{number}.png" for number in range(24)]
    apart = split_files(files, [path.name for path in files], "heldout")
    for path in files:  # what is held out is bright, everything else dark
        pixels = rng.integers(0, 120, (20, 20, 3), dtype=np.uint8) + (130 if path in apart else 0)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    settings = quick(calibration=12, heldout=4)
    fewer.compress(f"{folder / 'net.py'}:make", folder / "photos", "weights=50%", settings=settings, out=folder / "run")
    return folder


def report(place: Path) -> RunReport:
    return RunReport.from_json((place / "run" / "report.json").read_text())


def test_what_is_judged_was_held_out_by_the_run(place):
    inputs = make_inputs(open_subject(place / "run"), batch=2)
    assert inputs.origin == "held-out images of the run" and len(inputs.judged) == 8
    assert torch.equal(inputs.arguments[0], inputs.judged[0]) and len(inputs.arguments[0]) == 2
    darkest = min(float(image.mean()) for batch in inputs.judged for image in batch)
    assert darkest > max(float(image.mean()) for image in inputs.calibration) and len(inputs.calibration) == 32


def test_a_folder_that_is_gone_leaves_other_photos(place, monkeypatch):
    monkeypatch.setattr("fewer.core.run.RunFolder.read_config", lambda self: {"images": str(place / "gone")})
    assert make_inputs(open_subject(place / "run")).origin != "held-out images of the run"


def test_the_report_holds_the_rivals_until_the_model_changes(place, capsys):
    assert bench(str(place / "run"), vs=["torch-fp32"], threads="1", rounds=3, shared=Shared(json=True)) == 0
    printed = json.loads(capsys.readouterr().out)
    found = report(place).runtimes
    assert found is not None and found.threads == 1 and found.images == printed["judged"] == 16
    labels = {row.label: row for row in found.rows}
    assert set(labels) == {"torch eager fp32", "fewer, in plain torch", "fewer, on its kernels"}
    eager, plain = labels["torch eager fp32"], labels["fewer, in plain torch"]
    assert eager.distortion == 0 and eager.times_faster == 1 and not eager.ours and plain.ours
    # the same measure as the rest of the report, over a few other images
    assert plain.distortion == pytest.approx(report(place).verdict.distortion, rel=0.7)
    assert "beside other runtimes" in (place / "run" / "report.html").read_text()
    fewer.recover(place / "run", None, steps=1)
    assert report(place).runtimes is None


def test_a_trained_run_has_no_report_to_add_to(place, capsys):
    """A training's page is no report of a compression: minutes of timing ended in a validation error."""
    path = place / "run" / "report.json"
    path.write_text('{"kind": "page", "title": "a training"}')
    assert bench(str(place / "run"), vs=["torch-fp32"], threads="1", rounds=3, shared=Shared(json=True)) == 0
    assert json.loads(capsys.readouterr().out)["rows"]
    assert json.loads(path.read_text())["kind"] == "page"


def test_what_was_timed_is_shown_where_the_report_is_spoilt(place, capsys):
    (place / "run" / "report.json").write_text("{}")
    with pytest.raises(FewerError, match="verdict"):
        bench(str(place / "run"), vs=["torch-fp32"], threads="1", rounds=3, shared=Shared(json=True))
    assert json.loads(capsys.readouterr().out)["rows"]


def test_the_report_can_be_left_alone(place):
    before = (place / "run" / "report.html").read_bytes()
    assert (
        bench(str(place / "run"), vs=["torch-fp32"], threads="1", rounds=3, keep_report=True, shared=Shared(json=True))
        == 0
    )
    assert (place / "run" / "report.html").read_bytes() == before
