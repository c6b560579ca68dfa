"""One layer's curve: errors, nesting, scores and bias correction against direct computation."""

from itertools import pairwise

import pytest
import torch

from fewer.compensate import moments as moments_room
from fewer.compensate.moments import Moments
from fewer.compensate.sweep import COMPENSATIONS, SCORES, Repair, Sweep
from fewer.core.errors import FewerError
from fewer.core.option import Option
from fewer.formats.integers import BITS, rounded
from fewer.formats.ranges import row_scales
from fewer.patterns import Pattern, families, option_grid, tile_sums

LADDER = (0.2, 0.4, 0.6, 0.8, 0.95)


def layer(groups: int = 1, rows: int = 6, d: int = 12, seed: int = 0) -> tuple[torch.Tensor, Moments, torch.Tensor]:
    """Weight, moments and the rows they come from: correlated inputs with a mean."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(400, groups, d, generator=g) @ torch.randn(d, d, generator=g) + torch.randn(d, generator=g)
    moments = Moments(groups, d)
    moments.add(x)
    return torch.randn(groups * rows, d, generator=g), moments, x


def outputs(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.einsum("ngd,grd->ngr", x, weight.view(x.shape[1], -1, x.shape[2])).flatten(1)


def error(weight: torch.Tensor, dense: torch.Tensor, x: torch.Tensor) -> float:
    """What a weight does to the outputs, about their means, as a share of the dense ones' energy."""
    change, y = outputs(weight - dense, x), outputs(dense, x)
    return float((change - change.mean(0)).square().sum() / (y - y.mean(0)).square().sum())


@pytest.mark.parametrize("score", ["obs", "magnitude", "wanda"])
@pytest.mark.parametrize("pattern", ["unstructured", "block:2x3", "block:4x5", "nm:*:4"])
@pytest.mark.parametrize("groups", [1, 2])
def test_repaired_errors_rise_along_the_ladder_and_stay_below_the_bare_cut(pattern, score, groups):
    weight, moments, x = layer(groups)
    sweep = Sweep(weight, moments, Repair(score=score, iterations=200, damping=1e-4))
    fits = list(sweep.run(option_grid(pattern, LADDER)))
    errors = [error(f.weight, weight, x) for f in fits]
    assert errors[0] == 0 and errors[-1] > 0
    for earlier, later in pairwise(errors):
        assert later >= earlier * (1 - 1e-3) - 1e-6
    for fit, found in zip(fits, errors, strict=True):
        assert found <= error(weight * fit.mask, weight, x) * (1 + 1e-4) + 1e-6
        assert bool((fit.weight[~fit.mask] == 0).all())
    for outer, inner in pairwise(fits):
        assert not bool((inner.mask & ~outer.mask).any())


def test_the_few_default_steps_are_nearly_as_good_as_many():
    weight, moments, x = layer(d=24, rows=16)
    options = option_grid("unstructured", LADDER)
    quick = [error(f.weight, weight, x) for f in Sweep(weight, moments, Repair()).run(options)]
    cut = [error(f.weight, weight, x) for f in Sweep(weight, moments, Repair(compensation="none")).run(options)]
    assert all(a <= b for a, b in zip(quick, cut, strict=True))
    assert quick == sorted(quick)


@pytest.mark.parametrize("compensation", COMPENSATIONS)
@pytest.mark.parametrize("score", SCORES)
def test_the_dense_option_is_bit_exact(compensation, score):
    weight, moments, _ = layer()
    sweep = Sweep(weight, moments, Repair(compensation, score), gradient=torch.ones_like(weight))
    first = next(iter(sweep.run([Option(), Option("unstructured", 0.5)])))
    assert torch.equal(first.weight, weight) and bool(first.mask.all()) and not first.shift.any()
    assert first.spread is None


@pytest.mark.parametrize("compensation", ["obs", "bias"])
def test_the_shift_keeps_the_mean(compensation):
    weight, moments, x = layer(groups=3)
    for fit in Sweep(weight, moments, Repair(compensation)).run(option_grid("unstructured", LADDER)):
        y, z = outputs(weight, x).mean(0), (outputs(fit.weight, x) + fit.shift).mean(0)
        torch.testing.assert_close(z, y, rtol=1e-3, atol=2e-3)


def test_without_a_place_for_it_nothing_is_shifted():
    weight, moments, _ = layer()
    for fit in Sweep(weight, moments, Repair(), centred=False).run(option_grid("unstructured", LADDER)):
        assert not fit.shift.any()


def test_the_spread_is_the_ratio_of_variances():
    weight, moments, x = layer(groups=2)
    fit = list(Sweep(weight, moments, Repair("bias")).run([Option(), Option("unstructured", 0.6)]))[-1]
    ratio = outputs(fit.weight, x).var(0) / outputs(weight, x).var(0)
    torch.testing.assert_close(fit.spread, ratio.clamp(0.01, 100), rtol=1e-3, atol=1e-4)


def test_no_compensation_only_cuts():
    weight, moments, _ = layer()
    for fit in Sweep(weight, moments, Repair("none", "magnitude")).run(option_grid("unstructured", LADDER)):
        assert torch.equal(fit.weight, weight * fit.mask) and not fit.shift.any() and fit.spread is None


@pytest.mark.parametrize("limit", [100, 5])
@pytest.mark.parametrize("pattern", ["block:2x3", "block:1x4", "block:3x1", "unstructured"])
def test_obs_scores_are_the_distortion_of_the_best_removal(pattern, limit, monkeypatch):
    """w_b^T (H^-1_bb)^-1 w_b, computed tile by tile; column blocks make the Hessian block-diagonal."""
    blocks = moments_room.column_blocks
    monkeypatch.setattr(moments_room, "column_blocks", lambda n: blocks(n, limit))
    weight, moments, _ = layer(groups=2, rows=4, d=11)
    sweep = Sweep(weight, moments, Repair(unseen=0.0))
    full = torch.zeros(2, 11, 11)
    for b, h in zip(moments.blocks, sweep.hessians, strict=True):
        full[:, b, b] = h
    inverse = torch.linalg.inv(full.double())
    parsed = Pattern.parse(pattern)
    wanted = torch.zeros(8, -(-11 // parsed.width), dtype=torch.float64)
    for r in range(8):
        for j in range(wanted.shape[1]):
            s = slice(j * parsed.width, min(11, (j + 1) * parsed.width))
            w = weight[r, s].double()
            wanted[r, j] = w @ torch.linalg.inv(inverse[r // 4][s, s]) @ w
    found = sweep.score(weight, parsed)
    if parsed.width == 1:  # left per weight; the mask sums them over the tile
        found = tile_sums(found, parsed.height, 1)
    torch.testing.assert_close(found.double(), tile_sums(wanted, parsed.height, 1), rtol=2e-3, atol=1e-4)


def test_one_removal_costs_its_score():
    """The OBS score of a weight is the rise of the damped objective when it goes and the others are refitted."""
    weight, moments, _ = layer(rows=1, d=6)
    sweep = Sweep(weight, moments, Repair(iterations=300, unseen=0.0))
    score = sweep.score(weight, Pattern.parse("unstructured"))
    for j in range(6):
        alive = torch.ones(1, 6, dtype=torch.bool)
        alive[0, j] = False
        change = sweep._refit(weight * alive, alive) - weight
        assert float((change @ sweep.hessians[0][0] * change).sum()) == pytest.approx(float(score[0, j]), rel=1e-3)


def test_block_diagonal_moments_repair_each_block_on_its_own(monkeypatch):
    weight, _, x = layer(d=12)
    blocks = moments_room.column_blocks
    monkeypatch.setattr(moments_room, "column_blocks", lambda n: blocks(n, 4))
    moments = Moments(1, 12)
    moments.add(x)
    repair = Repair(score="magnitude", iterations=300)
    fit = list(Sweep(weight, moments, repair).run([Option(), Option("unstructured", 0.5)]))[-1]
    sweep = Sweep(weight, moments, repair)
    for b, h, t in zip(moments.blocks, sweep.hessians, sweep.targets, strict=True):
        for r in range(len(weight)):
            s = fit.mask[r, b].nonzero().flatten()
            best = torch.linalg.solve(h[0][s][:, s], t[0, r, s])
            torch.testing.assert_close(fit.weight[r, b][s], best, rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize("shape", [(1, 12), (6, 1), (1, 1)])
@pytest.mark.parametrize("pattern", ["unstructured", "block:4x4", "2:4"])
def test_single_rows_and_columns(shape, pattern):
    rows, d = shape
    weight, moments, _ = layer(rows=rows, d=d)
    fits = list(Sweep(weight, moments, Repair()).run(option_grid(pattern, (0.5, 1.0))))
    assert all(bool(torch.isfinite(f.weight).all()) for f in fits)
    if pattern != "2:4":
        assert not fits[-1].mask.any() and not fits[-1].weight.any()


def test_an_earlier_rounds_mask_only_shrinks_and_lower_options_leave_it_alone():
    weight, moments, _ = layer()
    first = list(Sweep(weight, moments, Repair()).run([Option(), Option("unstructured", 0.5)]))[-1]
    sweep = Sweep(first.weight, moments, Repair(), alive=first.mask)
    low, same, high = sweep.run([Option("unstructured", s) for s in (0.3, 0.5, 0.8)])
    for fit in (low, same):
        assert torch.equal(fit.mask, first.mask) and torch.equal(fit.weight, first.weight)
    assert not bool((high.mask & ~first.mask).any()) and int(high.mask.sum()) == 14  # a fifth of 72 weights


def test_inputs_that_never_vary_do_not_break_the_repair():
    moments = Moments(1, 4)
    moments.add(torch.zeros(10, 1, 4))
    fits = list(Sweep(torch.randn(3, 4), moments, Repair()).run(option_grid("unstructured", (0.5,))))
    assert bool(torch.isfinite(fits[-1].weight).all())


def test_unknown_names_and_missing_gradients_are_refused():
    with pytest.raises(FewerError, match="did you mean 'obs'"):
        Repair(compensation="ob")
    with pytest.raises(FewerError, match="magnitude"):
        Repair(score="magnitud")
    weight, moments, _ = layer()
    with pytest.raises(FewerError, match="needs gradients"):
        list(Sweep(weight, moments, Repair(score="taylor")).run([Option("unstructured", 0.5)]))


def test_rows_that_count_more_keep_more_weights():
    weight, moments, x = layer()
    felt = torch.tensor([100.0, 1, 1, 1, 1, 1])
    for pattern in ("unstructured", "block:2x3"):
        option = [Option(pattern, 0.5)]
        plain = list(Sweep(weight, moments, Repair()).run(option))[-1]
        weighed = list(Sweep(weight, moments, Repair(), sensitivity=felt).run(option))[-1]
        errors = [
            float(((outputs(f.weight, x) + f.shift - outputs(weight, x)).square().mean(0) * felt).sum())
            for f in (plain, weighed)
        ]
        assert weighed.mask[0].sum() > plain.mask[0].sum() and weighed.mask.sum() == plain.mask.sum()
        assert errors[1] < errors[0]
        same = list(Sweep(weight, moments, Repair(), sensitivity=torch.full((6,), 3.0)).run(option))[-1]
        assert torch.equal(same.mask, plain.mask)


def test_another_damping_is_that_of_a_sweep_made_with_it():
    weight, moments, _ = layer()
    made = Sweep(weight, moments, Repair(damping=0.5)).damped(0.02)
    fresh = Sweep(weight, moments, Repair(damping=0.02, few_rows=0.0))
    mask = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) > 0.5
    torch.testing.assert_close(made.repaired(weight * mask, mask, 30), fresh.repaired(weight * mask, mask, 30))
    torch.testing.assert_close(made.targets[0], fresh.targets[0])


@pytest.mark.parametrize("compensation", ["obs", "bias", "none"])
def test_precisions_share_a_cut_and_are_rounded_after_the_repair(compensation):
    torch.manual_seed(0)
    weight, moments = torch.randn(32, 16), Moments(1, 16)
    x = torch.randn(400, 1, 16) + 1
    moments.add(x)
    options = option_grid("block:16x4", (0.25, 0.5), ("fp32", "bf16", "int8", "int4"))
    sweep = Sweep(weight, moments, Repair(compensation, descents=2))
    fits = {str(f.option): f for run in families(options) for f in sweep.run(run)}
    assert list(fits) == [str(o) for o in options]
    single = list(Sweep(weight, moments, Repair(compensation, descents=2)).run(option_grid("block:16x4", (0.25, 0.5))))
    for base in single[1:]:
        exact = fits[str(base.option)]
        torch.testing.assert_close(exact.weight, base.weight)
        for precision in ("bf16", "int8", "int4"):
            fit = fits[f"{base.option}/{precision}"]
            assert torch.equal(fit.mask, base.mask)
            estimator = "mse" if precision == "int4" else "min-max"
            again = rounded(fit.weight, precision)  # it is on the grid of its precision already
            torch.testing.assert_close(again, fit.weight, rtol=1e-5, atol=1e-6)
            importance = moments.diagonal()[0]
            nearest = rounded(base.weight, precision, estimator, importance)
            if compensation == "obs" and precision != "bf16":  # later weights make up for the rounding of earlier ones
                steps = row_scales(base.weight, BITS[precision], estimator, importance)
                torch.testing.assert_close(fit.weight / steps[:, None], (fit.weight / steps[:, None]).round())
                assert not fit.weight[~fit.mask].any()
                hessian = sweep.hessians[0][0]
                distortion = [(((w - base.weight) @ hessian) * (w - base.weight)).sum() for w in (fit.weight, nearest)]
                assert float(distortion[0]) < float(distortion[1])
            else:
                torch.testing.assert_close(fit.weight, nearest)
            if compensation != "none":  # the mean output stays, rounding included
                mean = moments.mean()[0]
                torch.testing.assert_close(fit.weight @ mean + fit.shift, weight @ mean, rtol=1e-4, atol=1e-4)
    assert torch.equal(fits["dense"].weight, weight) and not torch.equal(fits["dense/int8"].weight, weight)
    errors = [error(fits[f"dense/{p}"].weight, weight, x) for p in ("bf16", "int8", "int4")]
    assert 0 < errors[0] < errors[1] < errors[2] < 0.1


def test_the_weights_of_a_silent_input_are_not_free():
    """Input 0 was silent; its weight is the largest, and the smallest weight of the others goes before it."""
    torch.manual_seed(0)
    x = torch.randn(400, 1, 6)
    x[:, :, 0] *= 1e-4
    moments = Moments(1, 6)
    moments.add(x)
    weight = torch.tensor([[3.0, 1.0, 1.2, 0.9, 1.1, 0.3]])
    for unseen, gone in ((0.0, 0), (0.3, 5)):
        sweep = Sweep(weight, moments, Repair(damping=1e-6, few_rows=0.0, unseen=unseen))
        assert int(sweep.score(weight, Pattern.parse("unstructured")).argmin()) == gone
