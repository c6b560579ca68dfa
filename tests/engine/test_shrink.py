"""Removed channels from the pattern to the saved model: what is sensed, planned, cut, verified and loaded."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from markupsafe import Markup
from torch import Tensor, nn

import fewer
from fewer.compensate import moments as moments_room
from fewer.compensate.moments import Moments, add_input
from fewer.compensate.sweep import Repair, Sweep
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.cost import profile as profile_module
from fewer.distortion.outputs import output_tensors
from fewer.engine import deploy as deploying
from fewer.engine import runtimes
from fewer.engine import shrink as shrinking
from fewer.kernels import native
from fewer.models.artefact import load_recipe
from fewer.models.macs import model_macs
from fewer.models.mobilenet import InvertedResidual
from fewer.patterns import Pattern, option_thresholds, select_mask, to_matrix, to_weight
from fewer.reports.compression import layer_plots, plots
from tests.fake_device import FakeWatch
from tests.support.nets import quick
from tests.tiny import TINY, TinyViT, tiny


class Mobile(nn.Module):
    """Two inverted residuals; it stands in a module, so that it can be loaded again."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(InvertedResidual(8, 8, 1, 4), InvertedResidual(8, 16, 2, 4))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def mobile() -> Mobile:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Mobile()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.3)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
        return net.eval()


def chain() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 5),
        ).eval()  # fmt: skip


def lively_vit() -> nn.Module:
    net = TinyViT().eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return net


X = torch.randn(28, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LONG = torch.randn(72, 3, 16, 16, generator=torch.Generator().manual_seed(1))
NETS = {"vit": (lively_vit, TinyViT), "mobile": (mobile, Mobile)}


@pytest.fixture(autouse=True, scope="module")
def _no_pictures():
    """Plots are most of the time that a run of a tiny net takes, and none of what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "plot", lambda *_, **__: Markup())
        patch.setattr(layer_plots, "plot", lambda *_, **__: Markup())
        yield


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run at 60 % in a folder that nobody writes to, its folder, and its images."""
    folder = tmp_path_factory.mktemp("columns") / "run"
    run = fewer.compress(mobile(), LONG, "weights=60%", settings=quick(pattern="columns"), out=folder)
    return run, folder


def weights_of(model: nn.Module, names) -> int:
    return sum(model.get_submodule(n).weight.numel() for n in names)


@pytest.mark.parametrize(
    ("name", "schedule", "estimator"),
    [("vit", "one-shot", "taylor"), ("vit", "iterative", "taylor"), ("mobile", "one-shot", "measured")],
)
def test_channels_are_really_gone_and_the_model_is_loaded_small(name, schedule, estimator, tmp_path):
    make, architecture = NETS[name]
    net = make()
    settings = quick(pattern="columns", schedule=schedule, estimator=estimator)
    run = fewer.compress(net, X, "weights=80%", settings=settings, out=tmp_path / "run")
    assert run.shrunk is not None and run.shrunk.removals and not run.shrunk.refused
    options = run.plan.options()
    dense = weights_of(net, options)
    # not zeros: parameters that there are no more
    assert weights_of(run.model, options) == sum(int(m.sum()) for m in run.masks.values()) <= 0.8 * dense
    assert run.plan.cost["weights"] == weights_of(run.model, options)
    for removal in run.shrunk.removals:
        shares = {options[u].sparsity for u in removal.link.units}
        assert len(shares) == 1 and options[removal.link.consumer].removes == "columns"
        gone = 1 - len(removal.kept) / removal.link.count
        assert gone == pytest.approx(shares.pop(), abs=1e-4)
    # the report says what was reached, and that a channel removed distorts where it is read
    assert run.report.verdict.met and 0 < run.report.verdict.distortion < 1
    for curve in run.curves.curves:
        rows = [k for k, o in enumerate(curve.options) if o.removes == "rows"]
        assert all(curve.distortion[k] == 0 for k in rows)
    loaded = fewer.load(tmp_path / "run", architecture)
    with torch.no_grad():
        assert torch.equal(loaded(X), run.model(X))
    assert weights_of(loaded, options) == weights_of(run.model, options)
    size = (tmp_path / "run" / "model.safetensors").stat().st_size
    assert size <= run.plan.cost["size"]  # biases and BatchNorm are smaller too


@pytest.mark.parametrize("name", ["conv", "tied", "dict-output", "called-twice", "in-place", "conv3d"])
def test_columns_beside_another_pattern_on_every_tiny_model(name, tmp_path):
    net, x = tiny(name)
    images = torch.cat([x, 0.5 * x + 0.1, -x])[:6]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    settings = quick(pattern="columns,unstructured", sparsities=(0.3, 0.6, 0.9), calibration=4, sensing=2, heldout=2)
    run = fewer.compress(net, images, "weights=50%", settings=settings, out=tmp_path / "run")
    left = sum(int((run.model.get_submodule(n).weight != 0).sum()) for n in run.masks)
    assert left <= run.plan.cost["weights"] <= 0.5 * run.plan.dense["weights"]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    loaded = fewer.load(tmp_path / "run", TINY[name][0])
    with torch.no_grad():
        for a, b in zip(output_tensors(loaded(images)), output_tensors(run.model(images)), strict=True):
            assert torch.equal(a, b)


def test_a_groups_score_is_the_distortion_of_removing_its_columns_from_every_row():
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(400, 12, generator=generator), torch.randn(5, 12, generator=generator)
    x[:, 3] += 0.9 * x[:, 8]  # what others can make up for distorts less
    felt = torch.tensor([1.0, 0.1, 4.0, 1.0, 2.0])
    moments = Moments(1, 12)
    moments.add(x[:, None])
    sweep = Sweep(weight, moments, Repair(iterations=300, unseen=0), sensitivity=felt)
    score = sweep.score(weight, Pattern.parse("columns:4").fitted(5, 12))
    assert score.shape == (1, 3)
    for j in range(3):
        alive = torch.ones(5, 12, dtype=torch.bool)
        alive[:, 4 * j : 4 * j + 4] = False
        change = sweep._refit(weight * alive, alive) - weight
        distortion = ((change @ sweep.hessians[0][0]) * change).sum(1) @ felt
        assert float(distortion) == pytest.approx(float(score[0, j]), rel=1e-3)
    fits = list(sweep.run([Option("columns:4", 0.3333), Option("columns:4", 0.6666)]))
    for gone, fit in enumerate(fits, 1):
        assert fit.mask.all(0).sum() == 12 - 4 * gone and (fit.mask.all(0) == fit.mask.any(0)).all()
    assert bool((fits[0].mask | ~fits[1].mask).all())  # nested


@pytest.mark.parametrize("limit", [4096, 7])
def test_a_channel_of_a_kernel_is_a_column_at_every_tap(limit, monkeypatch):
    blocks = moments_room.column_blocks
    monkeypatch.setattr(moments_room, "column_blocks", lambda n: blocks(n, limit))
    generator = torch.Generator().manual_seed(0)
    conv = nn.Conv2d(4, 3, (2, 2), bias=False)
    conv.weight.data = torch.randn(conv.weight.shape, generator=generator)
    moments = Moments(1, 16)
    add_input(moments, conv, torch.randn(40, 4, 5, 5, generator=generator))
    matrix = to_matrix(conv.weight.detach())
    sweep = Sweep(matrix, moments, Repair(iterations=300, unseen=0), centred=False)
    pattern = Pattern.parse("columns:2x4")
    score = sweep.score(matrix, pattern)
    for j in range(2):
        alive = torch.ones_like(conv.weight, dtype=torch.bool)
        alive[:, 2 * j : 2 * j + 2] = False
        change = sweep._refit(matrix * to_matrix(alive), to_matrix(alive)) - matrix
        distortion = sum(
            float(((change[:, b] @ h[0]) * change[:, b]).sum())
            for b, h in zip(moments.blocks, sweep.hessians, strict=True)
        )
        assert distortion == pytest.approx(float(score[0, j]), rel=1e-3)
    fit = list(sweep.run([Option("columns:2x4", 0.5)]))[-1]
    kept = to_weight(fit.mask, conv.weight.shape).flatten(2).all(2).all(0)
    assert kept.tolist() == [bool(score[0, 0] > score[0, 1])] * 2 + [bool(score[0, 1] > score[0, 0])] * 2
    assert int(fit.mask.sum()) == 3 * 2 * 4
    magnitude = select_mask(matrix.square(), pattern, 0.5)
    assert to_weight(magnitude, conv.weight.shape).flatten(2).any(2).any(0).sum() == 2
    assert option_thresholds(matrix, [Option("columns:2x4", 0.5)])["magnitude"][0] == pytest.approx(
        max(float(conv.weight[:, :2].square().mean()), float(conv.weight[:, 2:].square().mean())) ** 0.5, rel=1e-5
    )


def test_a_chain_of_wide_kernels_and_a_flattened_image(tmp_path):
    run = fewer.compress(chain(), X, "weights=50%", settings=quick(pattern="columns"), out=tmp_path / "run")
    assert run.shrunk is not None and len(run.shrunk.removals) == 2 and not run.shrunk.refused
    assert {o.pattern for o in run.plan.options().values() if o.removes == "columns"} == {"columns:2x9", "columns:32"}
    loaded = fewer.load(tmp_path / "run", chain)
    with torch.no_grad():
        assert torch.equal(loaded(X), run.model(X))


def test_rows_of_weights_can_be_selected_as_one():
    mask = select_mask(torch.arange(12.0).view(4, 3), Pattern.parse("rows:2"), 0.5)
    assert mask.tolist() == [[False] * 3] * 2 + [[True] * 3] * 2


def test_a_model_of_which_nothing_can_be_removed_says_why():
    with pytest.raises(FewerError, match="has channels that can be removed; of 1 layers, no layer before"):
        fewer.compress(nn.Linear(3, 4), torch.randn(24, 3), "weights=50%", settings=quick(pattern="columns"))
    with pytest.raises(FewerError, match="write 'columns' instead of 'columns:16'"):
        quick(pattern="columns:16")


def test_a_cut_that_changes_the_output_is_not_made(monkeypatch, tmp_path):
    real = shrinking.operate

    def clumsy(model, removals):
        """Breaks whatever is cut in the first block."""
        real(model, removals)
        for removal in removals:
            if removal.link.consumer.startswith("blocks.0"):
                model.get_submodule(removal.link.consumer).weight.data += 0.1
        return model

    monkeypatch.setattr(shrinking, "operate", clumsy)
    run = fewer.compress(mobile(), X, "weights=40%", settings=quick(pattern="columns"), out=tmp_path / "run")
    assert run.shrunk is not None
    refused = dict(run.shrunk.refused)
    assert list(refused) == ["blocks.0.conv.2"] and "another output" in refused["blocks.0.conv.2"]
    assert [r.link.consumer for r in run.shrunk.removals] == ["blocks.1.conv.2"]
    assert any("stay as zeros" in line for line in run.report.limits)
    assert run.model.blocks[0].conv[2].weight.shape[1] == 32  # masked only, and saved so
    monkeypatch.undo()
    loaded = fewer.load(tmp_path / "run", Mobile)
    with torch.no_grad():
        assert torch.equal(loaded(X), run.model(X))
    assert not loaded.blocks[0].conv[2].weight[:, ~run.masks["blocks.0.conv.2"].flatten(1).any(0)].any()


def test_another_budget_and_a_plan_edited_by_hand(saved, tmp_path):
    net, folder = mobile(), tmp_path / "run"
    shutil.copytree(saved[1], folder)
    plan = fewer.plan(folder, "weights=70%")
    again = fewer.apply(folder, plan, model=net, images=LONG)
    assert weights_of(again.model, plan.units) <= 0.7 * weights_of(net, plan.units)
    entry = next(n for n, o in plan.options().items() if o.removes == "rows")
    broken = json.loads(plan.to_json())
    broken["units"][entry]["option"] = "dense"
    (tmp_path / "plan.json").write_text(json.dumps(broken))
    with pytest.raises(FewerError, match="coupled: all of them remove the same share"):
        fewer.apply(folder, tmp_path / "plan.json", model=net, images=LONG)


def test_a_compressed_run_can_be_compressed_again(tmp_path, monkeypatch):
    """The second run remembers the first one's surgery."""
    (tmp_path / "net.py").write_text(
        "from tests.engine.test_shrink import mobile\n\ndef make():\n    return mobile()\n"
    )
    monkeypatch.chdir(tmp_path)
    settings = quick(pattern="columns")
    first = fewer.compress("net.py:make", X, "weights=80%", settings=settings, out="one")
    second = fewer.compress("one", X, "weights=80%", settings=settings, out="two")
    surgery = load_recipe("two").source["surgery"]
    assert first.shrunk is not None and second.shrunk is not None
    assert len(surgery) == len(first.shrunk.removals) + len(second.shrunk.removals)
    loaded = fewer.load("two")
    with torch.no_grad():
        assert torch.equal(loaded(X), second.model(X))
    assert weights_of(loaded, second.plan.units) <= 0.81 * weights_of(first.model, first.plan.units)


def test_a_smaller_model_is_trained_on_without_growing_again(saved, tmp_path):
    run, folder = saved
    shutil.copytree(folder, tmp_path / "run")
    better = fewer.recover(tmp_path / "run", None, steps=6, model=mobile(), images=LONG)
    assert weights_of(better.model, run.plan.units) == weights_of(run.model, run.plan.units)
    loaded = fewer.load(tmp_path / "run", Mobile)
    with torch.no_grad():
        assert torch.equal(loaded(X), better.model(X))


def test_heads_are_removed_where_tokens_are_merged(tmp_path):
    settings = quick(pattern="columns", tokens=True)
    run = fewer.compress(lively_vit(), X, "flops=0.42x", settings=settings, out=tmp_path / "run")
    assert run.shrunk is not None and not run.shrunk.refused
    assert any(removal.link.attention for removal in run.shrunk.removals)
    loaded = fewer.load(tmp_path / "run", TinyViT)
    with torch.no_grad():
        assert torch.equal(loaded(X), run.model(X))


def test_the_table_tells_which_channels_can_go():
    rows = fewer.match_table(mobile(), torch.zeros(1, 3, 16, 16), pattern="columns")
    told = {row["layer"]: row["channels"] for row in rows}
    assert told["blocks.0.conv.2"] == "8 groups of 4, with blocks.0.conv.0.0, blocks.0.conv.1.0"
    assert told["stem"].startswith("none: no layer before")
    assert told["blocks.0.conv.1.0"].startswith("none: its input channels are in groups; its outputs can go with")
    assert "channels" not in fewer.match_table(mobile(), torch.zeros(1, 3, 16, 16))[0]


@pytest.mark.skipif(not native.available(), reason="the native library is not built")
def test_a_budget_in_time_uses_smaller_dense_layers(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(profile_module, "Stopwatch", FakeWatch)
    monkeypatch.setattr(deploying, "Stopwatch", FakeWatch)
    monkeypatch.setattr(runtimes, "missing", lambda name: "left out here")  # the fake device has kernels only
    monkeypatch.setattr(FakeWatch, "fast", 7.4)  # as predicted, so that nothing is corrected
    settings = quick(pattern="columns", precisions=("fp32", "int8"))
    run = fewer.compress(lively_vit(), X, "latency=0.25x", settings=settings, out=tmp_path / "run")
    assert run.plan.cost["latency"] <= 0.25 * run.plan.dense["latency"]
    assert run.shrunk is not None and run.shrunk.removals
    for curve in run.curves.curves:
        for precision in ("fp32", "int8"):
            removing = [k for k, o in enumerate(curve.options) if o.removes and o.precision == precision]
            times = curve.cost["latency"][removing]
            assert (times[1:] <= times[:-1]).all() and (not len(times) or times[-1] < curve.cost["latency"][0])
    fast = fewer.load(tmp_path / "run", TinyViT, accelerated=True, example=X[:1])
    with torch.no_grad():
        exact = run.model(X[:2])
    assert float((fast(X[:2]) - exact).norm() / exact.norm()) < 0.1


def test_the_exported_file_is_small(saved):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    run, folder = saved
    done = fewer.export(folder, "onnx", architecture=Mobile, example=X[:1])
    import onnx

    stored = {tuple(t.dims) for t in onnx.load(str(done.path)).graph.initializer}
    assert tuple(run.model.blocks[1].conv[2].weight.shape) in stored
    assert done.difference is None or done.difference < 1e-4


@pytest.mark.parametrize("name", NETS)
def test_predicted_arithmetic_is_that_of_the_smaller_model(name):
    """Attention's own products included: heads that are gone are not multiplied."""
    make, _ = NETS[name]
    run = fewer.compress(make(), X, "flops=0.6x", settings=quick(pattern="columns"))
    assert run.shrunk is not None and run.shrunk.removals
    assert run.plan.dense["macs"] == pytest.approx(model_macs(make(), X[:1]), rel=1e-9)
    counted = model_macs(run.model, X[:1])
    # the shares are told with four digits
    assert run.plan.cost["macs"] == pytest.approx(counted, rel=2e-4)
    assert run.report.verdict.budgets[0].reached == pytest.approx(2 * counted, rel=1e-9)
    assert run.report.verdict.met
