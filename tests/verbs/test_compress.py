"""Compress: budgets are met by the real thing, images come in any form, models in any precision."""

import copy
import json
import tempfile
from pathlib import Path

import pytest
import torch
from torch import nn

import fewer
from fewer.core.errors import FewerError
from fewer.engine.settings import Settings
from fewer.verbs.compress import compress
from tests.support.nets import Small, images, quick, small
from tests.tiny import tiny


def kept(run) -> int:
    return sum(int((run.model.get_submodule(name).weight != 0).sum()) for name in run.masks)


def total(run) -> int:
    return sum(m.numel() for m in run.masks.values())


def wide(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Large enough for its weights to outweigh the file's header."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(dtype)


@pytest.mark.parametrize("share", [0.3, 0.6])
@pytest.mark.parametrize("pattern", ["unstructured", "block:4x4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_size_budgets_hold_for_the_file_in_any_precision(tmp_path, share, pattern, dtype):
    # in int8 as well, a budget of 60 % would hardly be used: 27 % hold the whole model
    x, settings = torch.randn(16, 48), quick(pattern=pattern, precisions=("fp32",))
    dense = compress(wide(dtype), x, "weights=100%", settings=settings, out=tmp_path / "dense")
    assert all(bool(m.all()) for m in dense.masks.values())
    limit = int((tmp_path / "dense" / "model.safetensors").stat().st_size * share)
    run = compress(wide(dtype), x, f"size={limit}B", settings=settings, out=tmp_path / "run")
    size = (tmp_path / "run" / "model.safetensors").stat().st_size
    assert size <= limit and run.report.verdict.met
    assert run.report.verdict.budgets[0].reached == size
    assert size >= 0.7 * limit  # and the budget is used
    loaded = fewer.load(tmp_path / "run", lambda: wide(dtype))
    inputs = x[:3].to(dtype)
    assert torch.equal(loaded(inputs), run.model(inputs)) and run.model(inputs).dtype == dtype


def test_a_budget_in_bytes_rounds_before_it_cuts():
    """int8 holds three times as many weights in the same bytes; simpler rules may use it, too."""
    x = torch.randn(32, 48)
    run = compress(wide(), x, "size=40%", settings=quick(baselines=("uniform",)))
    cut = compress(wide(), x, "size=40%", settings=quick(baselines=(), precisions=("fp32",)))
    assert run.report.verdict.met and cut.report.verdict.met
    assert run.report.verdict.distortion < 0.1 * cut.report.verdict.distortion
    simple = next((b for b in run.report.baselines if b.name == "uniform"), None)
    assert simple is None or simple.distortion < 0.1 * cut.report.verdict.distortion


def test_cuts_so_deep_that_inputs_no_longer_vary():
    """The covariance of such inputs is all rounding; with blocks it has to be inverted all the same."""
    run = compress(small(), images(), "size=1622B", settings=quick(pattern="block:4x4", precisions=("fp32",)))
    assert all(bool(torch.isfinite(p).all()) for p in run.model.parameters())


def test_flops_budgets_and_two_at_once():
    run = compress(small(), images(), ["flops=0.4x", "weights=35%"], settings=quick())
    positions = {"conv": 64, "fc": 1, "head": 1}
    nonzero = {n: int((run.model.get_submodule(n).weight != 0).sum()) for n in positions}
    dense = {n: run.masks[n].numel() for n in positions}
    assert sum(nonzero.values()) <= 0.35 * sum(dense.values())
    flops = [sum(2 * c[n] * positions[n] for n in positions) for c in (nonzero, dense)]
    assert flops[0] <= 0.4 * flops[1]
    assert [b.metric for b in run.report.verdict.budgets] == ["flops", "weights"] and run.report.verdict.met


def test_a_budget_of_everything_leaves_the_model_bit_equal():
    net, x = small(), images(3, 9)
    run = compress(net, images(), "weights=100%", settings=quick())
    assert torch.equal(run.model(x), net(x))
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in run.model.state_dict().items())
    assert run.report.verdict.distortion == 0 and run.report.verdict.met


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_a_model_of_one_layer(pattern):
    torch.manual_seed(0)
    run = compress(nn.Linear(16, 8), torch.randn(24, 16), "weights=50%", settings=quick(pattern=pattern, search=4))
    assert kept(run) == 64 and run.report.verdict.met


@pytest.mark.parametrize("shape", [(1, 12), (12, 1), (1, 1)])
def test_layers_of_one_row_or_column(shape):
    out, inn = shape
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, inn), nn.Tanh(), nn.Linear(inn, out))
    run = compress(net, torch.randn(24, 6), "weights=60%", settings=quick())
    assert kept(run) <= 0.6 * total(run)


def test_a_model_without_any_bias():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 4, bias=False))
    for compensation in ("obs", "bias"):
        run = compress(net, torch.randn(24, 8), "weights=50%", settings=quick(compensation=compensation))
        assert kept(run) <= 48 and set(run.model.state_dict()) == {"0.weight", "2.weight"}


@pytest.mark.parametrize("reduction", ["max", "cvar:0.5"])
@pytest.mark.parametrize("estimator", ["taylor", "measured"])
def test_reductions(reduction, estimator):
    run = compress(small(), images(), "weights=50%", settings=quick(reduction=reduction, estimator=estimator))
    assert kept(run) <= 0.5 * total(run) and run.report.verdict.met


@pytest.mark.parametrize("score", ["obs", "magnitude", "wanda", "taylor"])
@pytest.mark.parametrize("compensation", ["obs", "bias", "none"])
def test_every_score_with_every_compensation(score, compensation):
    settings = quick(score=score, compensation=compensation, estimator="measured" if score == "taylor" else "taylor")
    run = compress(small(), images(), "weights=50%", settings=settings)
    assert kept(run) <= 0.5 * total(run)


def test_repair_helps_on_images_that_it_has_not_seen():
    by = {
        c: compress(small(), images(64), "weights=40%", settings=quick(compensation=c, calibration=48, heldout=16))
        for c in ("obs", "none")
    }
    assert by["obs"].report.verdict.distortion < by["none"].report.verdict.distortion


@pytest.mark.parametrize("data_free", ["noise", "bn"])
def test_without_images(data_free):
    class Sized(Small):
        input_size = (3, 8, 8)

    torch.manual_seed(0)
    net = Sized().eval()
    from fewer.models.spec import load_model

    loaded = load_model(net)
    if loaded.input_size != (3, 8, 8):
        from dataclasses import replace

        loaded = replace(loaded, preprocess=replace(loaded.preprocess, input_size=(3, 8, 8)))
    run = compress(loaded, None, "weights=50%", settings=quick(data_free=data_free))
    assert kept(run) <= 0.5 * total(run)
    assert data_free in run.report.data.source and any("without real images" in limit for limit in run.report.limits)


def test_images_as_tensor_loader_iterable_and_folder(tmp_path):
    x = images(16)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, torch.zeros(16)), batch_size=5)
    wanted = compress(small(), x, "weights=50%", settings=quick()).model.state_dict()
    for given in (loader, list(x.split(3)), iter(x.split(4)), x.numpy()):
        got = compress(small(), given, "weights=50%", settings=quick()).model.state_dict()
        assert all(torch.equal(v, wanted[k]) for k, v in got.items())
    from PIL import Image

    for i in range(8):
        values = torch.randint(0, 255, (20, 20, 3), generator=torch.Generator().manual_seed(i), dtype=torch.uint8)
        Image.fromarray(values.numpy()).save(tmp_path / f"{i}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    for given in (tmp_path, sorted(tmp_path.glob("*.png"))):
        run = compress(small(), given, "weights=50%", settings=quick(crops=1))
        assert kept(run) <= 0.5 * total(run)
        assert [Path(s.file).name for s in run.report.data.skipped] == ["broken.png"]


def test_nothing_is_left_behind_without_an_out_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    run = compress(small(), images(), "weights=50%", settings=quick(search=3, additivity=2))
    assert not list(tmp_path.iterdir()) and run.folder is None
    with pytest.raises(FewerError):
        compress(small(), images(), "weights=1%", settings=quick())
    assert not list(tmp_path.iterdir())


def test_the_original_its_hooks_and_flags_stay():
    net = small().train()
    net.fc.eval()
    net.fc.weight.requires_grad_(False)
    seen: list[int] = []
    net.fc.register_forward_hook(lambda *_: seen.append(1))
    before = copy.deepcopy(net.state_dict())
    flags = [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()]
    fast, threads = torch.backends.mha.get_fastpath_enabled(), torch.get_num_threads()
    generator = torch.random.get_rng_state()
    run = compress(net, images(), "weights=50%", settings=quick(backend="thread", workers=2, baselines=("uniform",)))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert [(m.training, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in net.modules()] == flags
    assert [p.requires_grad for p in net.parameters()].count(False) == 1
    assert all(p.grad is None for p in net.parameters()) and not any("forward" in m.__dict__ for m in net.modules())
    assert (torch.backends.mha.get_fastpath_enabled(), torch.get_num_threads()) == (fast, threads)
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert not run.model.training


@pytest.mark.parametrize("where", ["weight", "buffer", "image"])
def test_nan_is_told_in_one_sentence(where):
    net, x = small(), images()
    if where == "weight":
        net.fc.weight.data[0, 0] = float("nan")
    elif where == "buffer":
        net.norm.running_var[0] = float("nan")
    else:
        x[3, 0, 0, 0] = float("nan")
    with pytest.raises(FewerError, match="NaN"):
        compress(net, x, "weights=50%", settings=quick())


def test_baselines_that_cannot_go_as_low_are_left_out():
    """uniform_plus keeps the first convolution whole; the report copes."""
    settings = quick(baselines=("uniform_plus", "lamp", "global_magnitude", "erk"))
    run = compress(small(), images(), "weights=50%", settings=settings)
    names = [row.name.removeprefix("auto:") for row in run.report.baselines]  # one of them may have been taken
    assert run.report.baselines[0].ours and {"lamp", "global_magnitude", "erk"} <= set(names)
    with pytest.raises(FewerError, match="cannot"):
        compress(small(), images(), "weights=2%", settings=quick())


@pytest.mark.parametrize("allocator", ["uniform", "uniform_plus", "erk", "global_magnitude", "lamp"])
def test_every_allocator_meets_the_budget(allocator):
    run = compress(small(), images(), "weights=70%", settings=quick(allocator=allocator))
    assert kept(run) <= 0.7 * total(run) and run.plan.method == allocator


def test_the_search_never_leaves_the_budget_and_is_told():
    run = compress(small(), images(), "weights=45%", settings=quick(allocator="dp", search=6, additivity=4))
    assert kept(run) <= 0.45 * total(run)
    assert run.report.search is not None and run.report.search.evaluations <= 7
    assert json.loads(run.report.to_json())["search"]["kept"] in (True, False)


@pytest.mark.parametrize("schedule", ["one-shot", "iterative"])
def test_fp64_and_tuple_models_and_own_forward(schedule):
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, left, *, scale):
            return self.b(input=self.a(input=left).relu() * scale)

    torch.manual_seed(0)
    net = TwoInputs().double()
    run = compress(
        net,
        torch.randn(20, 6),
        "weights=50%",
        settings=quick(schedule=schedule),
        forward=lambda m, x: m(x, scale=2.0),
    )
    assert kept(run) <= 36 and next(run.model.parameters()).dtype == torch.float64


def test_without_sparsities_only_precisions_change():
    run = compress(small(), images(), "size=75%", settings=quick(sparsities=(), precisions=("fp32", "int8")))
    assert all(mask.all() for mask in run.masks.values())
    assert {unit.option for unit in run.plan.units.values()} <= {"dense", "dense/int8"}
    assert run.plan.cost["size"] <= 0.75 * run.plan.dense["size"]
    with pytest.raises(FewerError, match="cannot be met"):
        compress(small(), images(), "weights=50%", settings=quick(sparsities=()))


def test_settings_are_refused_with_the_nearest_name():
    with pytest.raises(FewerError, match="did you mean 'pattern'"):
        Settings.of({"patern": "2:4"})
    with pytest.raises(FewerError, match="sparsities"):
        Settings.of({"sparsities": [0.0]})
    with pytest.raises(FewerError, match="cuda"):
        compress(small(), images(), "weights=50%", settings=quick(device="cuda"))
    with pytest.raises(FewerError, match="did you mean 'latency'"):
        compress(small(), images(), "latancy=0.5x", settings=quick())


def test_a_tied_weight_is_counted_once_and_stays_tied(tmp_path):
    model, x = tiny("tied")
    run = compress(model, torch.cat([x] * 4), "weights=50%", settings=quick(), out=tmp_path / "run")
    assert run.model.second.weight is run.model.first.weight
    assert total(run) == 16 * 16 + 4 * 16 and kept(run) <= total(run) / 2


def test_values_of_another_type_are_told_in_a_sentence():
    calls = {
        "is given by its path": lambda: fewer.load(3),
        "a budget is text": lambda: fewer.compress(nn.Linear(2, 2), torch.zeros(4, 2), 3),
        "a time is text": lambda: fewer.recover("run", time=[]),
        "given by its name": lambda: fewer.bench(nn.Linear(2, 2), torch.zeros(1, 2), vs=3),
        "is none": lambda: fewer.load("run", trust=3),
    }
    for reason, call in calls.items():
        with pytest.raises(FewerError, match=reason):
            call()
