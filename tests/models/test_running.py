"""Running a model leaves no trace, also when threads do it at once."""

from __future__ import annotations

import torch
from torch import nn

from fewer.models.running import _SLOW_PATH, evaluating


def test_the_fused_attention_switch_comes_back_whatever_the_order_of_threads() -> None:
    assert torch.backends.mha.get_fastpath_enabled()
    first = second = _SLOW_PATH  # not evaluating() twice: out of order in one thread, its no_grad would stay on
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.mha.get_fastpath_enabled()
    second.__exit__(None, None, None)
    assert torch.backends.mha.get_fastpath_enabled()


def test_training_flags_come_back_one_by_one() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Dropout())
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [model.training, model[0].training, model[1].training] == [True, True, False]
