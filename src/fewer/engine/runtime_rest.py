"""What a runtime computes in beside integers."""

from __future__ import annotations

from collections.abc import Mapping

from fewer.engine.work import Work
from fewer.runtimes.session import runs_bf16

__all__ = ["rest_precision"]


def rest_precision(work: Work, runtime: str, precisions: Mapping[str, str]) -> str:
    """What the layers of a plan that are not integers run in: a runtime has one precision for all of them.

    Beside integers that is bf16 where the plan could choose it and it was found quicker than fp32: what all of these
    layers lose by it is far less than what one of them loses as integers.

    Parameters
    ----------
    work
        Its settings say which precisions a plan may choose; it may know a choice of runtimes.
    runtime
        Where the plan runs.
    precisions
        Of each layer.
    """
    used = set(precisions.values())
    if not runs_bf16(runtime) or not used & {"bf16", "int8"}:
        return "fp32"
    if "bf16" in used:
        return "bf16"
    chosen = work.prepared.shared.get("runtime")
    rows = chosen.rows if chosen is not None else []
    ms = {row["precision"]: row["ms"] for row in rows if row["runtime"] == runtime and row["ms"] is not None}
    quicker = ms.get("bf16", 0.0) < ms.get("fp32", 1.0)
    return "bf16" if quicker and "bf16" in work.settings.precisions else "fp32"
