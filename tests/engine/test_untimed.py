"""What cannot be timed is refused in a sentence, whichever runtime is asked for, and before anything is run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import fewer
from fewer.core.errors import FewerError

X = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 10))


@pytest.mark.parametrize("runtime", ["auto", "native", "onnxruntime"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_that_no_kernel_takes(runtime: Any, dtype: torch.dtype) -> None:
    with pytest.raises(FewerError, match=r"only models in fp32 can be timed; .* model\.float\(\)"):
        fewer.compress(net().to(dtype), X, "latency=0.5x", calibration=8, runtime=runtime)


def test_a_profile_of_half_precision() -> None:
    with pytest.raises(FewerError, match="only models in fp32 can be timed"):
        fewer.profile(net().half(), example=X[:1])


@pytest.mark.parametrize("runtime", ["auto", "onnxruntime"])
def test_a_forward_of_ones_own(runtime: str) -> None:
    given: dict[str, Any] = {"calibration": 8, "runtime": runtime, "forward": lambda model, batch: model(batch)}
    with pytest.raises(FewerError, match="its own forward= cannot be timed"):
        fewer.compress(net(), X, "latency=0.5x", **given)
