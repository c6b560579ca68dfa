"""Tile arithmetic against plain loops, on shapes that the tile does not divide."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewer.patterns import expand_tiles, tile_counts, tile_sums

sizes = st.integers(1, 9)


@settings(max_examples=40, deadline=None)
@given(rows=sizes, cols=sizes, height=sizes, width=sizes, seed=st.integers(0, 99))
def test_sums_counts_and_expansion_equal_loops(rows, cols, height, width, seed):
    matrix = torch.randn(rows, cols, generator=torch.Generator().manual_seed(seed))
    sums, counts = tile_sums(matrix, height, width), tile_counts(rows, cols, height, width)
    spread = expand_tiles(sums, rows, cols, height, width)
    assert sums.shape == counts.shape == (-(-rows // height), -(-cols // width))
    for i in range(sums.shape[0]):
        for j in range(sums.shape[1]):
            part = matrix[i * height : (i + 1) * height, j * width : (j + 1) * width]
            torch.testing.assert_close(sums[i, j], part.sum(), rtol=1e-5, atol=1e-6)
            assert counts[i, j] == part.numel()
            block = spread[i * height : (i + 1) * height, j * width : (j + 1) * width]
            assert block.shape == part.shape and bool((block == sums[i, j]).all())
