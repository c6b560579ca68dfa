"""Embeddings are compared with each other: what moves all of them alike counts little."""

from __future__ import annotations

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.distortion.distance import Distance, probe_directions
from fewer.distortion.embedding import EmbeddingDistance
from fewer.distortion.outputs import Reference


def outputs(seed: int = 0, batches: int = 3, count: int = 4) -> list[torch.Tensor]:
    """Embeddings (sequences, channels, parts) most of which is the same for all."""
    rng = torch.Generator().manual_seed(seed)
    common = 10 * torch.randn(5, 3, generator=rng)
    return [common + torch.randn(count, 5, 3, generator=rng) for _ in range(batches)]


def test_what_all_share_counts_little_and_what_differs_counts_in_full() -> None:
    dense = outputs()
    ours, plain = EmbeddingDistance(dense), Reference(dense)
    assert isinstance(ours, Distance) and ours.samples == 12
    shift = [t + 3 * torch.ones(5, 3) for t in dense]
    mixed = [t.mean(0, keepdim=True).expand_as(t) for t in dense]  # everybody looks the same

    def total(of: Distance, other: list[torch.Tensor]) -> float:
        return sum(float(of.change(i, t).sum()) for i, t in enumerate(other)) / of.samples

    assert total(plain, shift) > 3 * total(plain, mixed)
    assert total(ours, shift) == pytest.approx(total(plain, shift) / 2, rel=1e-6) and total(ours, shift) < 0.1
    assert total(ours, mixed) > 0.4
    assert total(ours, [0 * t for t in dense]) == pytest.approx(1, rel=0.3) and total(ours, dense) == 0


def test_it_is_the_distance_of_pairs() -> None:
    dense = outputs(batches=1)
    moved = dense[0] + torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(1))
    ours, d = EmbeddingDistance(dense), moved - dense[0]
    pairs = sum(float((d[i] - d[j]).square().sum()) for i in range(4) for j in range(4) if i != j) / 2 / 12
    rows = dense[0].flatten(1)
    differ = sum(float((rows[i] - rows[j]).square().sum()) for i in range(4) for j in range(4) if i != j) / 2 / 12
    plain = float(Reference(dense).change(0, moved).mean())
    assert float(ours.change(0, moved).mean()) == pytest.approx((pairs / differ + plain) / 2, rel=1e-5)


def test_a_sample_alone_has_the_plain_change() -> None:
    dense = [t[:1] for t in outputs()]
    moved = dense[1] + 0.5
    ours = EmbeddingDistance(dense)
    assert torch.allclose(ours.change(1, moved), Reference(dense).change(1, moved))
    assert torch.allclose(ours.part(1, 2).change(0, moved), ours.change(1, moved)) and ours.part(1, 2).samples == 1
    alone = EmbeddingDistance([torch.ones(1, 4)])  # nothing differs from it
    assert float(alone.change(0, torch.zeros(1, 4))) == 1


@pytest.mark.parametrize("count", [1, 4])
def test_directions_and_errors_are_those_of_the_change(count: int) -> None:
    dense = outputs(count=count)
    ours = EmbeddingDistance(dense)
    small = 1e-2 * torch.randn(count, 5, 3, generator=torch.Generator().manual_seed(2)) + 1e-2
    expected = float(ours.change(0, dense[0] + small).sum())
    rng = torch.Generator().manual_seed(3)
    drawn = [float((probe_directions(ours, 0, [dense[0]], rng)[0] * small).sum()) ** 2 for _ in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(expected, rel=0.1)
    moved = (dense[0] + small).requires_grad_()
    error = ours.error(dense[0], moved)
    error.backward()
    assert float(error.detach()) == pytest.approx(expected / count, rel=1e-4) and bool(moved.grad.abs().sum() > 0)


def test_the_plain_form_and_what_is_no_embedding() -> None:
    dense = outputs()
    assert isinstance(EmbeddingDistance.plain_form(dense), Reference)
    with pytest.raises(FewerError, match="no embeddings"):
        EmbeddingDistance([(torch.randn(4, 2), torch.randn(3))])
    with pytest.raises(FewerError, match="depends on its weights"):
        EmbeddingDistance(dense).change(0, dense[0][:, :2])
