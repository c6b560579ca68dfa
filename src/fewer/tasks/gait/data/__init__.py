"""Silhouettes of walks: reading and writing folders, making them from masks and videos, and splitting them."""

from fewer.tasks.gait.data.dataset import GaitData, as_input, open_data, write_sequence

__all__ = ["GaitData", "as_input", "open_data", "write_sequence"]
