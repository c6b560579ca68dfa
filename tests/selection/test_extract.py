"""From a model's output to one vector per image."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.selection.extract import extractor, pooled


@pytest.mark.parametrize(
    ("shape", "wanted"), [((2, 5), (2, 5)), ((2, 17, 3), "first"), ((2, 7, 3), "mean"), ((2, 3, 4, 4), "map")]
)
def test_pooling(shape, wanted):
    values = torch.randn(*shape)
    got = pooled(values)
    if wanted == "first":
        assert torch.equal(got, values[:, 0])
    elif wanted == "mean":
        assert torch.allclose(got, values.mean(1))
    elif wanted == "map":
        assert torch.allclose(got, values.mean((2, 3)))
    else:
        assert torch.equal(got, values)


def test_a_shape_that_is_no_feature_and_a_layer_that_is_not_there():
    with pytest.raises(FewerError, match="neither vectors, tokens nor maps"):
        pooled(torch.zeros(3))
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    with pytest.raises(FewerError, match="no layer '2'"):
        extractor(net, torch.zeros(1, 3, 2, 2), "2")
