"""Masks have exactly the sparsity asked for, keep the best, and shrink only."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.core.errors import FewerError
from fewer.patterns import Pattern, families, kept_bound, option_grid, select_mask, tile_counts, tile_sums
from fewer.patterns.grid import default_sparsities
from fewer.patterns.select import drop_count

sizes = st.integers(1, 12)
shares = st.integers(1, 100).map(lambda n: n / 100)


def scores(rows: int, cols: int, seed: int) -> torch.Tensor:
    return torch.rand(rows, cols, generator=torch.Generator().manual_seed(seed))


@given(total=st.integers(1, 5000), hundredths=st.integers(0, 100))
def test_drop_count_is_the_exact_ceiling(total, hundredths):
    assert drop_count(total, hundredths / 100) == math.ceil(Fraction(total * hundredths, 100))


@settings(max_examples=60, deadline=None)
@given(rows=sizes, cols=sizes, sparsity=shares, seed=st.integers(0, 99))
def test_unstructured_drops_exactly_the_lowest(rows, cols, sparsity, seed):
    score, pattern = scores(rows, cols, seed), Pattern.parse("unstructured")
    mask = select_mask(score, pattern, sparsity)
    dropped = drop_count(rows * cols, sparsity)
    assert int((~mask).sum()) == dropped
    assert int(mask.sum()) == kept_bound(rows, cols, pattern, sparsity)
    if 0 < dropped < rows * cols:
        assert score[~mask].max() <= score[mask].min()


@settings(max_examples=100, deadline=None)
@given(rows=sizes, cols=sizes, height=sizes, width=sizes, sparsity=shares, seed=st.integers(0, 99))
def test_blocks_drop_whole_tiles_in_order_and_no_more_than_needed(rows, cols, height, width, sparsity, seed):
    score, pattern = scores(rows, cols, seed), Pattern("block", height, width)
    mask = select_mask(score, pattern, sparsity)
    counts = tile_counts(rows, cols, height, width)
    kept = tile_sums(mask.float(), height, width)
    assert bool(((kept == 0) | (kept == counts)).all())  # whole tiles
    wanted, gone = drop_count(rows * cols, sparsity), int((~mask).sum())
    distortion = tile_sums(score, height, width) / counts
    last = counts[kept == 0][distortion[kept == 0].argmax()]
    assert wanted <= gone < wanted + int(last)  # without the last tile it would have been too few
    if bool((kept > 0).any()):
        assert distortion[kept == 0].max() <= distortion[kept > 0].min()
    bound = kept_bound(rows, cols, pattern, sparsity)
    assert int(mask.sum()) <= bound
    if rows % height == 0 and cols % width == 0:
        assert int(mask.sum()) == bound
    # scores that are already per tile give the same mask
    assert torch.equal(mask, select_mask(tile_sums(score, height, width), pattern, sparsity, torch.ones_like(mask)))


@settings(max_examples=60, deadline=None)
@given(rows=sizes, cols=st.integers(1, 20), m=st.integers(1, 8), data=st.data(), seed=st.integers(0, 99))
def test_nm_keeps_the_n_best_of_every_group_and_the_share_of_the_tail(rows, cols, m, data, seed):
    n = data.draw(st.integers(1, m))
    score, pattern = scores(rows, cols, seed), Pattern("nm", n=n, m=m)
    mask = select_mask(score, pattern, 0.0)
    assert int(mask.sum()) == kept_bound(rows, cols, pattern, 1 - n / m)
    for start in range(0, cols, m):
        part, kept = score[:, start : start + m], mask[:, start : start + m]
        size = part.shape[1]
        want = n if size == m else math.ceil(size * n / m)
        for r in range(rows):
            assert set(part[r].topk(want).indices.tolist()) == set(kept[r].nonzero().flatten().tolist())


@settings(max_examples=60, deadline=None)
@given(
    rows=sizes,
    cols=sizes,
    kind=st.sampled_from(["unstructured", "block:2x3", "block:4x4", "block:1x5"]),
    first=st.integers(1, 60),
    more=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_masks_nest_whatever_the_later_scores(rows, cols, kind, first, more, seed):
    pattern = Pattern.parse(kind)
    outer = select_mask(scores(rows, cols, seed), pattern, first / 100)
    inner = select_mask(scores(rows, cols, seed + 1000), pattern, (first + more) / 100, outer)
    assert not bool((inner & ~outer).any())
    assert int((~inner).sum()) >= drop_count(rows * cols, (first + more) / 100)
    if kind == "unstructured":
        assert int((~inner).sum()) == drop_count(rows * cols, (first + more) / 100)


def test_nm_masks_nest():
    score = scores(6, 19, 0)
    outer = select_mask(score, Pattern("nm", n=3, m=4), 0)
    inner = select_mask(1 - score, Pattern("nm", n=1, m=4), 0, outer)
    assert not bool((inner & ~outer).any())
    assert int(inner.sum()) == kept_bound(6, 19, Pattern("nm", n=1, m=4), 0.75)


def test_dense_and_zero_sparsity_keep_everything_that_is_alive():
    score, alive = scores(3, 4, 0), scores(3, 4, 1) > 0.5
    assert bool(select_mask(score, Pattern.parse("dense"), 0.0).all())
    assert torch.equal(select_mask(score, Pattern.parse("unstructured"), 0.0, alive), alive)


def test_grids_rise_from_dense():
    for pattern in ("unstructured", "block:16x4", "2:4", "nm:*:8"):
        options = option_grid(pattern)
        assert options[0].is_dense
        assert [o.sparsity for o in options] == sorted({o.sparsity for o in options})
    assert [str(o) for o in option_grid("unstructured", [0.5, 0.5, 0.2, 0.0])] == [
        "dense",
        "unstructured@0.2",
        "unstructured@0.5",
    ]
    assert len(option_grid("nm:*:8")) == 8
    assert all(0 < s < 1 for units in (1, 10, 100) for s in default_sparsities(units))


@pytest.mark.parametrize("text", ["block:0x4", "3:2", "0:4", "banana", "block:4", "nm:*:0", ""])
def test_bad_patterns_are_refused(text):
    with pytest.raises(FewerError):
        option_grid(text)


@pytest.mark.parametrize(("text", "same"), [("2:4", "nm:2:4"), ("16x4", "block:16x4"), (" Block:8X8 ", "block:8x8")])
def test_short_forms(text, same):
    assert str(Pattern.parse(text)) == same


def test_options_of_several_patterns_and_precisions():
    options = option_grid("block:16x4, 2:4,unstructured", [0.5, 0.9], ("bf16", "int8"))
    assert [str(o) for o in options] == [
        "dense",
        "dense/bf16",
        "dense/int8",
        "block:16x4@0.5/bf16",
        "block:16x4@0.5/int8",
        "block:16x4@0.9/bf16",
        "block:16x4@0.9/int8",
        "nm:2:4/bf16",
        "nm:2:4/int8",
        "unstructured@0.5/bf16",
        "unstructured@0.5/int8",
        "unstructured@0.9/bf16",
        "unstructured@0.9/int8",
    ]
    runs = families(options)
    assert [run[0].family for run in runs] == ["dense", "block:16x4", "nm:*:4", "unstructured"]
    # one n:m family whatever the n, so that one sweep nests its masks
    assert len(families(option_grid("nm:*:8"))) == 2


@pytest.mark.parametrize("by_weight", [True, False])
@pytest.mark.parametrize("taps", [1, 9])
def test_every_part_loses_the_same_share(by_weight: bool, taps: int) -> None:
    """Two layers make 4 and 8 runs of 2 channels: a quarter is 1 run of the first and 2 of the second."""
    pattern = Pattern.parse("columns:2x9:4+8" if taps > 1 else "columns:2:4+8")
    rows, channels = 3, 24
    run = torch.arange(12.0)  # the first part is worth least as a whole, yet keeps its share
    score = run.repeat_interleave(2).repeat(taps).expand(rows, -1) if by_weight else run[None]
    alive = None if by_weight else torch.ones(rows, channels * taps, dtype=torch.bool)
    mask = select_mask(score, pattern, 0.25, alive)
    gone = (~mask).view(rows, taps, 12, 2)
    assert gone.all(3).equal(gone.any(3)) and bool((gone == gone[:1, :1]).all())
    assert gone[0, 0].all(1).nonzero().flatten().tolist() == [0, 4, 5]
    more = select_mask(score, pattern, 0.5, mask)
    assert not bool((more & ~mask).any()) and float(more.float().mean()) == 0.5
    assert kept_bound(rows, channels * taps, pattern, 0.5) == int(more.sum())
    assert str(pattern) == ("columns:2x9:4+8" if taps > 1 else "columns:2:4+8")
