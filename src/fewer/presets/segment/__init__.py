"""Presets of the task ``segment``, for `fewer train --preset`."""
