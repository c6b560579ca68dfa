"""What a step needs of memory, counted before it is taken."""

from __future__ import annotations

import pytest
import torch

from fewer.core.errors import FewerError
from fewer.tasks.segment.memory import Memory, check_memory, estimate_memory, saved_bytes
from fewer.tasks.segment.networks import build_network
from fewer.tasks.segment.settings import TrainSettings

pytest.importorskip("monai", reason="needs the [medical] extra")


def test_memory_is_counted_on_meta_tensors_as_it_is_for_real() -> None:
    net = build_network(TrainSettings(width=4, levels=3), 2, 1, 2).model.train()
    x = torch.zeros(3, 1, 16, 16)
    import copy

    ghost = saved_bytes(copy.deepcopy(net).to("meta"), x.to("meta"))
    real = saved_bytes(net, x)
    assert ghost == pytest.approx(real, rel=0.02)
    found = estimate_memory(net, (6, 1, 16, 16), 2)
    twice = estimate_memory(net, (12, 1, 16, 16), 2)
    assert twice.activations == pytest.approx(2 * found.activations, rel=0.05)
    assert found.weights == sum(p.numel() for p in net.parameters()) * 16


def test_too_little_memory_is_told_before_training() -> None:
    with pytest.raises(FewerError, match=r"only 1.00 GB is free; give a smaller --batch"):
        check_memory(Memory(10**9, 10**9, 0), free=10**9)
