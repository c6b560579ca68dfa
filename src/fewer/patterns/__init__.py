"""Which weights may go together: unstructured, n:m, block, row and column patterns. Only the mathematics of masks."""

from fewer.core.pattern import Pattern
from fewer.patterns.grid import column_ladder, families, option_grid, with_columns
from fewer.patterns.layout import to_matrix, to_weight
from fewer.patterns.select import kept_bound, select_mask
from fewer.patterns.thresholds import option_thresholds
from fewer.patterns.tiles import expand_tiles, tile_counts, tile_sums

__all__ = [
    "Pattern",
    "column_ladder",
    "expand_tiles",
    "families",
    "kept_bound",
    "option_grid",
    "option_thresholds",
    "select_mask",
    "tile_counts",
    "tile_sums",
    "to_matrix",
    "to_weight",
    "with_columns",
]
