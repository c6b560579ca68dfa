"""Token schedules as an outer choice: their costs, their distortion, and runs that merge tokens from end to end."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fewer
from fewer.core.budget import Budget
from fewer.core.curve import CurveSet
from fewer.core.errors import FewerError
from fewer.data.samples import as_samples
from fewer.engine.assembly import Assembly
from fewer.engine.offers import change_distortion, repriced
from fewer.engine.plan import choose
from fewer.engine.prepare import prepare
from fewer.engine.refit import refit
from fewer.engine.sense import sense_curves
from fewer.engine.settings import Settings
from fewer.engine.tokens import choose_tokens
from fewer.engine.work import Work
from fewer.models.macs import model_macs
from fewer.models.vit import VisionTransformer
from fewer.tokens.blocks import merge_after, merges_of
from tests.support.nets import images as pictures
from tests.support.nets import small

FEW = {
    "calibration": 12,
    "sensing": 4,
    "heldout": 4,
    "backend": "serial",
    "additivity": 0,
    "baselines": (),
    "probes": 2,
    "sparsities": (0.25, 0.5, 0.75),
    "allocator": "dp",
}


def architecture() -> VisionTransformer:
    return VisionTransformer(32, 4, width=32, depth=3, heads=2)


@pytest.fixture(scope="module")
def net() -> VisionTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = architecture()
        for parameter in net.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.15)
        # neighbours are alike, as they are in photos
        net.pos_embed.data.mul_(0.1)
    return net.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    coarse = torch.randn(20, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    return F.interpolate(coarse, 32, mode="bilinear", align_corners=False)


@pytest.fixture(scope="module")
def sensed(net, images):
    settings = Settings(**FEW, measure=("energy",), pattern="block:16x16", precisions=("fp32",))
    prepared = prepare(net, images, settings)
    return prepared, settings, sense_curves(Work(prepared, settings))


AMOUNTS = (20, 10, 0)


@pytest.fixture(scope="module")
def merged(sensed):
    prepared, settings, made = sensed
    amounts = {f"blocks.{i}": amount for i, amount in enumerate(AMOUNTS)}
    model = merge_after(copy.deepcopy(prepared.model), amounts)
    distortion = change_distortion(model, settings, made)
    return model, distortion, repriced(Work(prepared, settings), made.curves, model, 1.0, 0.0, distortion)


def test_costs_are_those_of_the_model_that_merges(sensed, merged):
    prepared, _, made = sensed
    model, distortion, curves = merged
    dense = [0] * len(curves)
    assert curves.total("macs", dense) == pytest.approx(model_macs(model, prepared.calibration[:1]))
    assert curves.dense("macs") == pytest.approx(model_macs(prepared.model, prepared.calibration[:1]))
    tokens = {u.name: u.positions for u in curves.units}
    assert [tokens[f"blocks.{i}.mlp.fc1"] for i in range(3)] == [65, 45, 35]
    assert curves.total("size", dense) == made.curves.dense("size")  # weights weigh what they weighed
    assert curves.total("energy", dense) < made.curves.dense("energy")
    assert curves.distortion(dense) == distortion > 0


def test_budgets_refer_to_the_model_as_it_came(sensed, merged, tmp_path):
    made, curves = sensed[2].curves, merged[2]
    assert Budget("flops", 0.5, True).limit(curves) == Budget("flops", 0.5, True).limit(made)
    back = CurveSet.load(curves.save(tmp_path / "curves.npz"))
    assert back.hash() == curves.hash() != made.hash()
    assert back.dense("flops") == curves.dense("flops") and back.spent == curves.spent
    plan = choose(curves, [Budget("flops", 0.6, True)], "dp", power=0.5)
    assert plan.distortion == pytest.approx(curves.distortion(plan.choice))


def test_the_best_schedule_is_the_one_whose_plan_distorts_least(sensed):
    prepared, settings, made = sensed
    budget = [Budget("flops", 0.6, True)]
    found = choose_tokens(Work(prepared, settings), made, budget)
    tokens = found.curves.meta["tokens"]
    planned = {row["schedule"]: row["planned"] for row in tokens["tried"]}
    assert planned[tokens["name"]] == min(p for p in planned.values() if p is not None) < planned["none"]
    assert choose(found.curves, budget, "dp").distortion == pytest.approx(planned[tokens["name"]])
    assert found.plain is made.curves
    # distortion grows with what is merged
    constant = [row for row in tokens["tried"] if row["schedule"].startswith("constant")]
    assert np.corrcoef([row["left"] for row in constant], [row["distortion"] for row in constant])[0, 1] < -0.5


def test_schedules_that_look_alike_are_put_together_and_measured(sensed, tmp_path):
    prepared, settings, _ = sensed
    made = sense_curves(Work(prepared, settings), store=tmp_path)
    budget = [Budget("flops", 0.6, True)]
    by_prediction = choose_tokens(Work(prepared, settings), made, budget).curves.meta["tokens"]
    found = choose_tokens(Work(prepared, settings), made, budget, tmp_path)
    tokens = found.curves.meta["tokens"]
    measured = {row["schedule"]: row["measured"] for row in tokens["tried"] if "measured" in row}
    planned = {row["schedule"]: row["planned"] for row in tokens["tried"] if row["planned"] is not None}
    assert 2 <= len(measured) <= 6 and {by_prediction["name"], "none"} <= set(measured)  # weights alone in any case
    assert max(planned[name] for name in measured if name != "none") <= 2 * min(planned.values())
    assert measured[tokens["name"]] == min(measured.values())
    # what is measured is the whole: merges and stored weights
    plan = choose(found.curves, budget, "dp")
    assembly = Assembly.of(prepared.model, found.curves, tmp_path, prepared.calibration[:1], None)
    again = assembly.distortion(plan.choice, made.batches, made.reference)
    assert again == pytest.approx(measured[tokens["name"]])


def test_nothing_is_merged_for_a_budget_that_merges_cannot_help(sensed):
    prepared, settings, made = sensed
    assert choose_tokens(Work(prepared, settings), made, [Budget("weights", 0.5, True)]) is made
    with pytest.raises(FewerError, match="cannot be met"):
        choose_tokens(Work(prepared, settings), made, [Budget("weights", 0.001, True)])


def test_a_budget_out_of_reach_of_weights_alone_is_met_with_merges(sensed):
    prepared, settings, made = sensed
    curves = made.curves
    least = curves.total("flops", [int(np.argmin(c.cost["flops"])) for c in curves.curves]) / curves.dense("flops")
    budget = [Budget("flops", 0.8 * least, True)]
    with pytest.raises(FewerError, match="cannot be met"):
        choose(curves, budget, "dp")
    found = choose_tokens(Work(prepared, settings), made, budget)
    assert choose(found.curves, budget, "dp").cost["flops"] <= budget[0].limit(curves)
    # out of reach of both: what is said to be reachable is so with merges only
    with pytest.raises(FewerError, match="smallest reachable flops is") as refusal:
        choose_tokens(Work(prepared, settings), made, [Budget("flops", 0.01, True)])
    told = float(str(refusal.value).split("flops is ")[1].split(" %")[0]) / 100
    assert told < 0.9 * least
    choose_tokens(Work(prepared, settings), made, [Budget("flops", told, True)])


def test_a_run_merges_and_its_folder_gives_the_same_model(net, images, tmp_path):
    settings = Settings(**{**FEW, "additivity": 3, "baselines": ("uniform",)}, tokens=True)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    run = fewer.compress(net, images, "flops=0.5x", settings=settings, out=tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert merges_of(net) is None and merges_of(run.model) is not None
    assert run.report.verdict.met
    macs = model_macs(run.model, images[:1])  # zeros count there, merged tokens do not
    assert macs < 0.99 * model_macs(net, images[:1])
    rows = {row.name: row.label for row in run.report.baselines}
    uniform = rows.pop("uniform")
    assert uniform == "Uniform with our repair"
    assert rows == {"dp": "fewer (exact DP)", "no-merging": "fewer, no token merged"}
    told = next(q for q in run.report.verdict.quality if q.name == "tokens in the last block")
    assert told.value < told.dense == 65
    additivity = run.report.additivity
    assert additivity is not None and additivity.sum == pytest.approx(run.plan.distortion)
    back = fewer.load(tmp_path / "run", architecture)
    with torch.no_grad():
        assert torch.equal(back(images[:2]), run.model(images[:2]))
    # another budget from the same curves, and applied again
    plan = fewer.plan(tmp_path / "run", "flops=0.45x")
    again = fewer.apply(tmp_path / "run", plan, model=net, images=images)
    assert merges_of(again.model) == merges_of(run.model)
    assert again.report.verdict.met
    # and recovered
    fewer.recover(tmp_path / "run", None, steps=2, model=net, images=images)
    assert merges_of(fewer.load(tmp_path / "run", architecture)) == merges_of(run.model)


def test_layers_are_fitted_again_as_if_nothing_were_merged(net, images):
    settings = Settings(**FEW)
    prepared = prepare(net, images, settings)
    masks = {u.name: torch.rand(u.shape, generator=torch.Generator().manual_seed(2)) > 0.4 for u in
             prepared.matched.units}  # fmt: skip
    plain = copy.deepcopy(net)
    with torch.no_grad():
        for name, mask in masks.items():
            plain.get_submodule(name).weight.mul_(mask)
    names = [f"blocks.{i}" for i in range(3)]
    merged = merge_after(copy.deepcopy(plain), dict.fromkeys(names, 9))
    before = prepared.model(images[:4]).sub(plain(images[:4])).square().mean()
    for student in (plain, merged):
        refit(prepared, settings, student, masks, dict.fromkeys(masks, "fp32"), as_samples(images[:12]))
    assert prepared.model(images[:4]).sub(plain(images[:4])).square().mean() < 0.8 * before
    assert merges_of(merged) == {"amounts": dict.fromkeys(names, 9), "protected": 1}
    for name in masks:
        torch.testing.assert_close(merged.get_submodule(name).weight, plain.get_submodule(name).weight,
                                   rtol=1e-3, atol=1e-5)  # fmt: skip


def test_heads_are_removed_from_a_model_that_merges(net, images, tmp_path):
    settings = Settings(**FEW, tokens=True, pattern="columns")
    run = fewer.compress(net, images, "flops=0.45x", settings=settings, out=tmp_path / "run")
    assert run.report.verdict.met and merges_of(run.model) is not None
    assert sum(p.numel() for p in run.model.parameters()) < 0.9 * sum(p.numel() for p in net.parameters())
    with torch.no_grad():
        assert torch.equal(fewer.load(tmp_path / "run", architecture)(images[:2]), run.model(images[:2]))


def test_what_cannot_merge_says_so(images):
    with pytest.raises(FewerError, match="no transformer block"):
        fewer.compress(small(), pictures(), "flops=0.5x", settings=Settings(**FEW, tokens=True))
    with pytest.raises(FewerError, match="one-shot"):
        Settings.of({"tokens": True, "schedule": "iterative"})
    with pytest.raises(FewerError, match="forward="):
        fewer.compress(
            architecture().eval(), images, "flops=0.5x", settings=Settings(**FEW, tokens=True),
            forward=lambda model, batch: model(batch),
        )  # fmt: skip
