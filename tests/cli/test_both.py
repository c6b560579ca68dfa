"""One network for two targets: an accelerator and encrypted inference, with one page of what each step does."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fewer.cli.main import main

NET = """
import torch
from torch import nn


def make():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.GELU(), nn.Flatten(),
        nn.Linear(128, 16), nn.GELU(), nn.Linear(16, 4),
    )
    return net.eval(), {"input_size": (1, 8, 8), "mean": (0.5,), "std": (0.25,)}


def norm():
    net = nn.Sequential(nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 4))
    return net.eval(), {"input_size": (1, 8, 8), "mean": (0.5,), "std": (0.25,)}
"""
FAST = [
    "--calibration",
    "12",
    "--heldout",
    "6",
    "--sparsities",
    "0.5",
    "--allocator",
    "dp",
    "--additivity",
    "0",
    "--baselines",
    "none",
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "photos").mkdir(exist_ok=True)
    for old in (tmp_path / "photos").iterdir():
        old.unlink()
    for i in range(40):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8), dtype=np.uint8)).save(f"photos/{i}.png")
    for room in ("price", "trial"):
        monkeypatch.setattr(f"fewer.private.{room}.has_seal", lambda: False)
    monkeypatch.setattr("fewer.presets.preset_values", _quick(monkeypatch))
    return tmp_path


def _quick(monkeypatch):
    from fewer.presets import preset_values

    def values(name: str, folder: str = ""):
        found = preset_values(name, folder)
        return found | {"steps": 2} if folder == "private" else found

    return values


WORDS = ["compress", "net.py:make", "--images", "photos", "--budget", "cycles=0.4x,he=0.7x", "--device", "edge-npu"]


def test_one_page_tells_what_each_step_does_under_both_targets(place, capsys) -> None:
    code = main([*WORDS, "--preset", "joint", *FAST, "--out", "both", "--json"])
    said = capsys.readouterr()
    assert code == 0, said.err
    told = json.loads(said.out)
    page = json.loads((place / "both" / "report.json").read_text())
    run = json.loads((place / "both" / "accelerator" / "report.json").read_text())
    circuit = json.loads((place / "both" / "encrypted" / "circuit.json").read_text())["data"]
    ours, theirs = page["data"]["steps"]
    # the same images judge both parts, and none of them fitted anything
    assert page["data"]["images"] == [6, 6] == [run["data"]["heldout"], circuit["images"]] and circuit["apart"]
    assert ours["whole"] == {"step": "whole", "share": 1.0, "distance": 0.0, "note": ""}
    assert ours["together"]["share"] == pytest.approx(
        run["verdict"]["budgets"][0]["reached"] / run["verdict"]["budgets"][0]["dense"]
    )
    assert 0 < ours["functions"]["share"] <= 1 and ours["functions"]["distance"] > 0
    assert {"cut", "bits", "functions", "together"} <= ours.keys()
    assert {"whole", "cut", "bits", "functions", "runs"} <= theirs.keys() and theirs["runs"]["share"] <= 0.7
    assert sorted(page["data"]["order"][1]) == sorted(s for s in ("cut", "bits", "functions") if theirs[s]["share"])
    assert told["report"]["steps"] == run["steps"] and told["circuit"]["images"] == 6
    text = (place / "both" / "report.html").read_text()
    assert "What each step does under both targets" in text and "the same held-out images" in text
    assert main(["report", "both"]) == 0 and "encrypted, he=0.7x is met" in capsys.readouterr().out
    # nothing is done twice, nothing is lost
    assert main([*WORDS, *FAST, "--out", "both"]) == 2
    assert "--resume to go on" in capsys.readouterr().err
    before = (place / "both" / "encrypted" / "circuit.npz").stat().st_mtime_ns
    assert main([*WORDS, *FAST, "--out", "both", "--resume"]) == 0
    assert (place / "both" / "encrypted" / "circuit.npz").stat().st_mtime_ns == before
    assert "Encrypted: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--recover", "10s"], "--recover has no meaning"),
        (["--preset", "lpvit"], "--preset joint, not 'lpvit'"),
        (["--out", "net.py"], "is a file"),
        (["--out", "."], "holds no plans for two targets"),
        (["--data-free", "noise"], "--data-free has no meaning"),
    ],
)
def test_what_two_targets_have_no_use_for_is_told(place, capsys, more, said) -> None:
    assert main([*WORDS, *more]) == 2
    assert said in capsys.readouterr().err


def test_a_network_that_no_circuit_is_made_of_is_told_before_the_long_work(place, capsys) -> None:
    assert main([WORDS[0], "net.py:norm", *WORDS[2:]]) == 2
    assert "divides by numbers that depend on the image" in capsys.readouterr().err
    assert not (place / "both").exists()


def test_a_dry_run_for_two_targets_writes_nothing(place, capsys) -> None:
    assert main([*WORDS, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "within cycles=0.4x and write both/accelerator" in out and "within he=0.7x" in out
    assert not (place / "both").exists()


def test_images_that_judge_and_others_of_their_files_fit_nothing() -> None:
    from pathlib import Path

    from fewer.core.errors import FewerError
    from fewer.data.samples import TensorSamples
    from fewer.verbs.private import _without

    images = torch.arange(12.0).reshape(6, 2)
    known, judging = _without(images, [], images[[1, 4]])
    assert known[:, 0].tolist() == [0, 4, 6, 10] and judging[:, 0].tolist() == [2, 8]
    files = [Path(f"{i // 2}.png") for i in range(6)]
    known, _ = _without(images, files, TensorSamples(images[:1] + 0.5, [Path("1.png")], []))
    assert known[:, 0].tolist() == [0, 2, 8, 10]
    with pytest.raises(FewerError, match="none is left"):
        _without(images, [], images)


def test_distances_are_over_how_far_results_lie_apart() -> None:
    from fewer.engine.judge import Judge

    net = nn.Linear(3, 2).eval()
    x = torch.randn(10, 3)
    judge = Judge(net, x)
    other = nn.Linear(3, 2).eval()
    want, got = net(x).detach(), other(x).detach()
    scale = judge.over_spread()
    assert scale is not None
    found = judge.judge(other).distortion * scale
    assert found == pytest.approx(float(((got - want) ** 2).sum() / ((want - want.mean(0)) ** 2).sum()), rel=1e-5)
