"""Networks with squeeze and excitation lose channels for real, and their gates are refitted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import fewer
from tests.models.test_coupling import Excited


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = (
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.Sequential(Excited(False), Excited(True)),
            nn.Linear(8, 5),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


@pytest.fixture
def images() -> Tensor:
    return torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(0)).cumsum(-1) / 3


@pytest.mark.parametrize(("budget", "precisions"), [("weights=60%", ("fp32",)), ("flops=0.5x", ("fp32", "int8"))])
def test_channels_behind_gates_go_and_the_budget_is_kept(
    budget: str, precisions: tuple[str, ...], images: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    settings = fewer.Settings(
        pattern="columns", precisions=precisions, calibration=24, heldout=8, baselines=(), additivity=0
    )
    run = fewer.compress(net, images, budget, settings=settings, out=tmp_path / "run")
    cut = [name for name, option in run.plan.options().items() if option.removes == "columns"]
    assert run.report.verdict.met and set(cut) & {"body.0.project", "body.1.project"}
    for name in cut:
        if name.startswith("body"):
            block = run.model.get_submodule(name.rpartition(".")[0])
            width = block.get_submodule("project").weight.shape[1]
            assert width < 32 and block.get_submodule("reduce").weight.shape[1] == width
            assert block.get_submodule("gate").weight.shape[0] == width
    again = fewer.load(tmp_path / "run", Net)
    with torch.no_grad():
        torch.testing.assert_close(again(images[:4]), run.model(images[:4]))


def test_a_refitted_gate_is_better_than_one_that_lost_its_inputs(
    images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    for block in net.body:  # gates that matter
        block.get_submodule("reduce").weight.data.mul_(6)
        block.get_submodule("gate").weight.data.mul_(6)
    settings = fewer.Settings(
        pattern="columns", precisions=("fp32",), calibration=24, heldout=8, baselines=(), additivity=0, allocator="dp"
    )
    found = fewer.compress(net, images, "flops=0.7x", settings=settings).report.verdict.distortion
    monkeypatch.setattr("fewer.engine.apply._read_by_others", lambda *_: {})
    left = fewer.compress(net, images, "flops=0.7x", settings=settings).report.verdict.distortion
    assert found < left


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gates_of_other_numbers_and_without_a_bias(biased: bool, dtype: torch.dtype, images: Tensor) -> None:
    torch.manual_seed(0)
    net = Net().eval()
    if not biased:
        for block in net.body:
            block.get_submodule("reduce").register_parameter("bias", None)
    settings = fewer.Settings(
        pattern="columns", precisions=("fp32",), calibration=24, heldout=8, baselines=(), additivity=0
    )
    run = fewer.compress(net.to(dtype), images.to(dtype), "weights=60%", settings=settings)
    assert run.report.verdict.met and run.report.verdict.distortion < 0.05
    assert any(option.pattern.startswith("reads") for option in run.plan.options().values())
