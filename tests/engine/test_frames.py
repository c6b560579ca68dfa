"""Fewer frames as an outer choice: costs, refusals, and runs that leave out frames."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fewer
from fewer.core.budget import Budget
from fewer.core.errors import FewerError
from fewer.engine.frames import leaves_out_frames, offered_steps
from fewer.engine.pixels import choose_less, offers_pixels
from fewer.engine.prepare import prepare
from fewer.engine.sense import sense_curves
from fewer.engine.settings import Settings
from fewer.engine.work import Work
from fewer.kernels.frames import fewer_frames, frames_of
from fewer.models.macs import model_macs
from fewer.tasks.gait.networks import NETWORKS, build_network

FEW = {"calibration": 12, "sensing": 4, "heldout": 4, "baselines": (), "additivity": 0, "batch": 4}


class Walks(nn.Module):
    """Features of frames, and their maximum over time: (sequences, frames, height, width) to (sequences, 5)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        frames = self.body(x.flatten(0, 1)[:, None]).mean((2, 3)).unflatten(0, x.shape[:2])
        return self.head(frames.amax(1))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Walks().eval()


@pytest.fixture(scope="module")
def walks() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(24, 1, 4, 4, 4, generator=generator)
    return nn.functional.interpolate(coarse, (13, 16, 12), mode="trilinear", align_corners=False)[:, 0]


def test_costs_are_those_of_the_model_on_fewer_frames(net: nn.Module, walks: Tensor, tmp_path: Path) -> None:
    settings = Settings(**FEW, pattern="unstructured", precisions=("fp32",))
    prepared = prepare(net, walks, settings)
    work = Work(prepared, settings)
    sensed = sense_curves(work, store=tmp_path)
    assert offered_steps(prepared) == (13, 1, [2, 3, 4])
    found = choose_less(work, sensed, [Budget("flops", 0.3, True)], tmp_path)
    frames = found.curves.meta["frames"]
    assert found.plain is sensed.curves and [row["left"] for row in frames["tried"]] == [13, 7, 5, 4]
    dense = [0] * len(found.curves)
    sparser = fewer_frames(Walks(), frames["every"])
    assert found.curves.total("macs", dense) == pytest.approx(model_macs(sparser, prepared.calibration[:1]))
    assert choose_less(work, sensed, [Budget("weights", 0.5, True)], tmp_path) is sensed


def test_a_run_leaves_out_frames_and_its_folder_gives_the_same_model(
    net: nn.Module, walks: Tensor, tmp_path: Path
) -> None:
    run = fewer.compress(net, walks, "flops=0.3x", precisions=("fp32",), out=tmp_path / "run", **FEW)
    assert run.report.verdict.met and frames_of(run.model) is not None
    told = next(row for row in run.report.verdict.quality if row.name == "frames of a sequence")
    assert told.value < told.dense == 13
    assert any(row.label == "fewer, all frames" for row in run.report.baselines)
    again = fewer.load(tmp_path / "run", Walks)
    assert frames_of(again) == frames_of(run.model)
    with torch.no_grad():
        torch.testing.assert_close(again(walks[:4]), run.model(walks[:4]))
        assert again(walks[:2, :1]).shape == (2, 5)  # one frame is enough
    assert fewer.export(tmp_path / "run", "onnx", out=tmp_path / "net.onnx", architecture=Walks) is not None
    more = fewer.recover(tmp_path / "run", time=None, steps=2, images=walks, model=net, out=tmp_path / "more")
    assert frames_of(more.model) == frames_of(run.model)
    whole = fewer.compress(net, walks, "flops=0.5x", precisions=("fp32",), pixels="off", **FEW)
    assert frames_of(whole.model) is None


class Framed(nn.Module):
    """A weight for each frame."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(13, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3)))


def _pooled(channels: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (_pooled(32), (32, 16, 12)),  # channels
        (_pooled(3), (3, 16, 12)),
        (Framed(), (13, 16, 12)),
        (fewer_frames(Walks(), 2), (13, 16, 12)),
        (Walks(), (4, 16, 12)),  # none to spare
    ],
)
def test_what_takes_no_sequences_keeps_all_frames(model: nn.Module, shape: tuple[int, ...]) -> None:
    prepared = prepare(model.eval(), torch.rand(20, *shape), Settings(**FEW))
    assert not leaves_out_frames(prepared)


def test_colours_may_stand_before_or_behind_the_frames() -> None:
    class Video(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Conv3d(3, 4, 3, padding=1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x).mean((2, 3, 4)))

    prepared = prepare(Video().eval(), torch.rand(20, 3, 9, 8, 8), Settings(**FEW))
    assert offered_steps(prepared)[:2] == (9, 2)
    assert offers_pixels(prepared, Settings(**FEW), [Budget("flops", 0.5, True)])
    assert not offers_pixels(prepared, Settings(**FEW), [Budget("size", 0.5, True)])


def test_lengths_beside_sequences_are_refused(net: nn.Module) -> None:
    sparser = fewer_frames(nn.Bilinear(2, 2, 1), 2)
    with pytest.raises(FewerError, match="without their lengths"):
        sparser(torch.zeros(1, 4), torch.zeros(1, 4))


@pytest.mark.parametrize("name", list(NETWORKS))
def test_every_gait_network_offers_fewer_frames(name: str) -> None:
    network = build_network({"network": name, "size": "tiny"}).eval()
    walks = torch.rand(18, 24, 64, 44, generator=torch.Generator().manual_seed(0)).round()
    assert leaves_out_frames(prepare(network, walks, Settings(**FEW)))
    with torch.no_grad():
        wanted = network(walks[:2, ::2])
        torch.testing.assert_close(fewer_frames(network, 2)(walks[:2]), wanted)
