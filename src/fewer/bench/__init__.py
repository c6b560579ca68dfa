"""The bench: one model, the runtimes a user could take instead, the same input, the same machine, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fewer.bench.layers import LayersResult as LayersResult
    from fewer.bench.layers import bench_layers as bench_layers
    from fewer.bench.peers import PEERS as PEERS
    from fewer.bench.result import BenchResult as BenchResult
    from fewer.bench.run import Extra as Extra
    from fewer.bench.run import bench as bench

_HOMES = {
    "bench": "run",
    "Extra": "run",
    "BenchResult": "result",
    "PEERS": "peers",
    "bench_layers": "layers",
    "LayersResult": "layers",
}

__all__ = ["PEERS", "BenchResult", "Extra", "LayersResult", "bench", "bench_layers"]


def __getattr__(name: str) -> Any:
    # lazy, because the timing processes import this package and must stay free of torch
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"fewer.bench.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'fewer.bench' has no attribute {name!r}")
