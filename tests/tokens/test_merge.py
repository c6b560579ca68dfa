"""Matching and merging of tokens against their definition, written out with loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.tokens.merge import TokenState, match_tokens, merge_tokens, most_merges
from fewer.tokens.schedule import present_tokens, schedules


def random_tokens(batch: int, tokens: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, tokens, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(x: torch.Tensor, count: int, protected: int) -> list[set[int]]:
    """Sets of tokens of one sample that are one token afterwards."""
    first, second = range(protected, len(x), 2), range(protected + 1, len(x), 2)
    pairs = []
    for i in first:
        likeness = {j: float(torch.cosine_similarity(x[i], x[j], dim=0)) for j in second}
        if likeness:
            j = max(likeness, key=likeness.__getitem__)
            pairs.append((likeness[j], i, j))
    groups = {j: {j} for j in range(len(x))}
    for _, i, j in sorted(pairs, reverse=True)[: min(count, most_merges(len(x), protected))]:
        groups[j] |= groups.pop(i)
    return list(groups.values())


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 14), st.integers(0, 8), st.integers(0, 3), st.integers(0, 10_000))
def test_the_most_alike_pairs_become_their_mean(tokens, count, protected, seed):
    x = random_tokens(2, tokens + protected, 5, seed)
    merged, state = merge_tokens(x, TokenState.fresh(x), count, protected)
    for sample in range(2):
        groups = by_hand(x[sample], count, protected)
        assert merged.shape[1] == len(groups) == state.sizes.shape[1]
        for group in groups:
            where = {int(state.origin[sample, i]) for i in group}
            assert len(where) == 1  # all of them are in the same place
            at = where.pop()
            torch.testing.assert_close(merged[sample, at], x[sample, sorted(group)].mean(0))
            assert int(state.sizes[sample, at]) == len(group)
    assert torch.equal(merged[:, :protected], x[:, :protected])  # and the ones in front are where they were


def test_means_stay_means_of_the_image_when_merged_again():
    x = random_tokens(1, 17, 4)
    merged, state = x, TokenState.fresh(x)
    for count in (5, 3, 2):
        merged, state = merge_tokens(merged, state, count, 1)
    assert merged.shape[1] == 7 and float(state.sizes.sum()) == 17
    for at in range(7):
        members = state.origin[0] == at
        assert int(members.sum()) == int(state.sizes[0, at])
        torch.testing.assert_close(merged[0, at], x[0, members].mean(0))
    torch.testing.assert_close(state.restore(merged)[0, 4], merged[0, state.origin[0, 4]])
    # nothing is lost: the mean over the restored tokens is the mean over the image's
    torch.testing.assert_close(state.restore(merged).mean(1), x.mean(1))


def test_equal_tokens_merge_without_any_change():
    x = random_tokens(1, 5, 6)
    twice = torch.cat([x[:, :1], x[:, 1:].repeat_interleave(2, 1)], 1)
    merged, state = merge_tokens(twice, TokenState.fresh(twice), 4, 1)
    torch.testing.assert_close(state.restore(merged), twice)


def test_never_more_than_half_and_never_a_protected_one():
    x = torch.ones(1, 9, 3)
    assert merge_tokens(x, TokenState.fresh(x), 100, 1)[0].shape[1] == 5
    found = match_tokens(x, 4, protected=1)
    assert found.gone.shape[1] == 4 and found.kept.shape[1] == 0
    assert merge_tokens(x, TokenState.fresh(x), 100, 9)[0].shape == x.shape


@pytest.mark.parametrize("tokens, blocks", [(257, 12), (17, 2), (5, 4), (197, 24)])
def test_schedules_can_be_carried_out(tokens, blocks):
    found = schedules(tokens, blocks)
    assert found or tokens < 6
    for amounts in found.values():
        assert len(amounts) == blocks and amounts[-1] == 0 and min(amounts) >= 0
        for present, amount in zip(present_tokens(tokens, amounts), amounts, strict=True):
            assert amount <= most_merges(present, 1)
