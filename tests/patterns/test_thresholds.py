"""Thresholds against LAMP and magnitude computed by brute force."""

import math

import pytest
import torch

from fewer.core.option import Option
from fewer.patterns import Pattern, option_thresholds, select_mask, tile_counts, tile_sums


def brute_force(matrix: torch.Tensor, option: Option) -> tuple[float, float]:
    """Score of every tile by its definition, then the least one among those that the option keeps."""
    pattern = Pattern.parse(option.pattern)
    size = (pattern.height, pattern.width)
    energies = tile_sums(matrix.double() ** 2, *size).flatten().tolist()
    counts = tile_counts(*matrix.shape, *size).flatten().tolist()
    means = [e / c for e, c in zip(energies, counts, strict=True)]
    lamp = [
        e / sum(other for other, its in zip(energies, means, strict=True) if its >= mean)
        for e, mean in zip(energies, means, strict=True)
    ]
    mask = select_mask(matrix.double() ** 2, pattern, option.sparsity) if option.sparsity else torch.ones_like(matrix)
    kept = (tile_sums(mask.double(), *size).flatten() > 0).tolist()
    if not any(kept):
        return math.inf, math.inf
    return (
        min(math.sqrt(m) for m, k in zip(means, kept, strict=True) if k),
        min(s for s, k in zip(lamp, kept, strict=True) if k),
    )


@pytest.mark.parametrize("pattern", ["unstructured", "block:2x3", "block:4x4"])
@pytest.mark.parametrize("shape", [(4, 6), (7, 5), (1, 9), (9, 1)])
def test_thresholds_equal_brute_force(pattern, shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(3))
    options = [Option(), *(Option(pattern, s) for s in (0.1, 0.3, 0.5, 0.9, 1.0))]
    found = option_thresholds(matrix, options)
    for k, option in enumerate(options[1:], 1):
        magnitude, lamp = brute_force(matrix, option)
        assert found["magnitude"][k] == pytest.approx(magnitude)
        assert found["lamp"][k] == pytest.approx(lamp)
    assert found["magnitude"][0] == pytest.approx(float(matrix.abs().min()))
    assert found["magnitude"][1:] == sorted(found["magnitude"][1:])


def test_zero_weights_have_no_score_to_divide_by():
    found = option_thresholds(torch.zeros(3, 3), [Option(), Option("unstructured", 0.5)])
    assert found == {"magnitude": [0.0, 0.0], "lamp": [0.0, 0.0]}
