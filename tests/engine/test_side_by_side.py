"""Networks whose layers stand side by side lose channels for real, and the budget is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import fewer
from tests.models.test_coupling_parts import Squeezed


@pytest.mark.parametrize(("budget", "precisions"), [("weights=60%", ("fp32",)), ("flops=0.6x", ("fp32", "int8"))])
def test_expansions_side_by_side_lose_channels(budget: str, precisions: tuple[str, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Squeezed().eval()
    images = torch.randn(32, 3, 15, 15, generator=torch.Generator().manual_seed(0)).cumsum(-1) / 3
    settings = fewer.Settings(
        pattern="columns", precisions=precisions, calibration=24, heldout=8, baselines=(), additivity=0
    )
    run = fewer.compress(net, images, budget, settings=settings, out=tmp_path / "run")
    assert run.report.verdict.met
    cut = [name for name, option in run.plan.options().items() if option.removes == "columns"]
    assert {"b.squeeze", "head"} & {*cut}
    for name, fire in (("b.squeeze", "a"), ("head", "b")):
        if name in cut:
            block = run.model.get_submodule(fire)
            one, three = (block.get_submodule(part).weight.shape[0] for part in ("one", "three"))
            before = getattr(net, fire)
            assert one / before.one.out_channels == three / before.three.out_channels < 1  # the same share of both
            assert run.model.get_submodule(name).weight.shape[1] == one + three
    again = fewer.load(tmp_path / "run", Squeezed)
    with torch.no_grad():
        torch.testing.assert_close(again(images[:4]), run.model(images[:4]))
