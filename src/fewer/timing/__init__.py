"""The bench: one model, the runtimes a user could take instead, the same input, the same machine, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewer.timing.layers import LayersResult as LayersResult
    from fewer.timing.layers import bench_layers as bench_layers
    from fewer.timing.peers import PEERS as PEERS
    from fewer.timing.result import BenchResult as BenchResult
    from fewer.timing.run import Extra as Extra

_HOMES = {
    "Extra": "run",
    "BenchResult": "result",
    "PEERS": "peers",
    "bench_layers": "layers",
    "LayersResult": "layers",
}

__all__ = ["PEERS", "BenchResult", "Extra", "LayersResult", "bench_layers"]


def __getattr__(name: str) -> Any:
    # lazy, because the timing processes import this package and must stay free of torch
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"fewer.timing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fewer.timing' has no attribute {name!r}")
