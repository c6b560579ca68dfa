"""What the layers of a run take on an accelerator on paper, in words."""

from __future__ import annotations

from collections.abc import Sequence

from fewer.reports.compression.data import RunReport, UnitResult
from fewer.reports.numbers import percent, significant

__all__ = ["MODELLED", "modelled_names", "modelled_sentence"]

MODELLED = {"cycles": "cycles", "energy": "joules"}
"""What an accelerator on paper takes, as it is called on the page."""


def modelled_names(units: Sequence[UnitResult]) -> list[str]:
    """Which of :data:`MODELLED` the layers have."""
    return [name for name in MODELLED if any(name in unit.modelled for unit in units)]


def modelled_sentence(report: RunReport) -> str:
    """Where cycles and joules of an accelerator on paper go, before and after.

    Examples
    --------
    >>> unit = {"name": "fc", "kind": "linear", "shape": [2, 2], "option": "dense/int8", "pattern": "dense",
    ...         "sparsity": 0.0, "kept_weights": 4, "weights": 4, "modelled": {"cycles": [100.0, 25.0]}}
    >>> report = RunReport.from_dict({"verdict": {"met": True}, "model": {"name": "toy"}, "units": [unit]})
    >>> modelled_sentence(report)
    'Modelled, not measured: the layers take 25.0 of 100 cycles; most of them fc before (100%) and fc after (100%).'
    """
    parts = []
    for name in modelled_names(report.units):
        found = {unit.name: unit.modelled[name] for unit in report.units if name in unit.modelled}
        sums = [sum(pair[i] for pair in found.values()) for i in (0, 1)]
        most = [max(found, key=lambda layer, i=i: found[layer][i]) for i in (0, 1)]
        shares = [percent(found[layer][i] / sums[i]) if sums[i] else "-" for i, layer in enumerate(most)]
        parts.append(
            f"the layers take {significant(sums[1])} of {significant(sums[0])} {MODELLED[name]}; most of them "
            f"{most[0]} before ({shares[0]}) and {most[1]} after ({shares[1]})"
        )
    return f"Modelled, not measured: {'. '.join(parts)}."
