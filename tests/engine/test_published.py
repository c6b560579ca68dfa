"""Methods of the literature as rows of a report, on the images of the run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fewer
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.engine.prepare import prepare
from fewer.engine.published import prune_as_published
from fewer.engine.settings import Settings
from fewer.engine.work import Work

FEW = {"calibration": 24, "sensing": 4, "heldout": 8, "backend": "serial", "additivity": 0, "probes": 2}


@pytest.fixture(scope="module", name="net")
def _net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 8)).eval()


@pytest.fixture(scope="module", name="images")
def _images() -> torch.Tensor:
    make = torch.Generator().manual_seed(1)
    return torch.randn(64, 16, generator=make) @ torch.randn(16, 16, generator=make)


def test_rows_of_published_methods_stand_beside_ours(net, images) -> None:
    settings = Settings(**FEW, baselines=("uniform", "sparsegpt", "wanda"))
    run = fewer.compress(net, images, "weights=50%", settings=settings)
    rows = {row.name: row for row in run.report.baselines}
    assert rows["sparsegpt"].published and rows["wanda"].published and not rows["uniform"].published
    assert rows["wanda"].compensated is False and rows["sparsegpt"].compensated is True
    assert rows["sparsegpt"].label == "SparseGPT, uniform" and rows["uniform"].label == "Uniform with our repair"
    assert run.report.verdict.distortion < rows["sparsegpt"].distortion < rows["wanda"].distortion


def test_each_layer_sees_what_earlier_cuts_leave(net, images) -> None:
    """The second layer's Wanda mask is that of the inputs behind the pruned first layer, not of the dense one."""
    prepared = prepare(net, images, Settings(**FEW))
    names = [unit.name for unit in prepared.matched.units]
    chosen = {name: Option("unstructured", 0.5) for name in names}
    model = prune_as_published(Work(prepared, Settings(**FEW)), "wanda", chosen)
    first, second = model.get_submodule(names[0]), model.get_submodule(names[1])
    hidden = torch.relu(first(prepared.calibration.batch()))
    score = net.get_submodule(names[1]).weight.abs() * hidden.square().mean(0).sqrt()
    for row, kept in zip(score, second.weight != 0, strict=True):
        assert row[kept].min() >= row[~kept].max()
    assert torch.equal(net[0].weight, prepared.model.get_submodule(names[0]).weight)  # the original stays


def test_what_is_no_mask_of_weights_is_refused(net, images) -> None:
    work = Work(prepare(net, images, Settings(**FEW)), Settings(**FEW))
    for option in (Option("unstructured", 0.5, "int8"), Option("columns:1", 0.5)):
        with pytest.raises(FewerError, match="it removes weights"):
            prune_as_published(work, "sparsegpt", dict.fromkeys(("0", "2", "4"), option))


def test_a_budget_that_such_a_method_has_no_answer_to_gives_no_row(net, images) -> None:
    settings = Settings(**FEW, baselines=("wanda",), precisions=("int8",))
    run = fewer.compress(net, images, "size=3kB", settings=settings)
    assert "wanda" not in [row.name for row in run.report.baselines]
    assert "it removes weights" in run.report.missing["Wanda, uniform"]
    assert any(sentence.startswith("Wanda, uniform is missing") for sentence in run.report.limits)
