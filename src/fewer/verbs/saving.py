"""Write a compressed model as an artefact, and read it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fewer.core.plan import Plan
from fewer.models.artefact import Saved, load_artefact, save_artefact
from fewer.verbs.prepare import Prepared


def save_model(
    folder: str | Path, prepared: Prepared, model: nn.Module, plan: Plan, masks: Mapping[str, Tensor]
) -> Saved:
    """Write ``model.safetensors`` and ``recipe.json``: packed weights, masks, patterns and precisions."""
    units: list[dict[str, Any]] = []
    for name, option in plan.options().items():
        mask = masks[name]
        dense = bool(mask.all())
        units.append(
            {
                "name": name,
                "pattern": "dense" if dense else option.pattern,
                "sparsity": 0.0 if dense else 1 - float(mask.double().mean()),
                "precision": option.precision,
                "mask": None if dense else mask,
            }
        )
    return save_artefact(
        folder,
        model,
        units,
        prepared.loaded.source,
        {**prepared.loaded.meta, "model": prepared.loaded.name},
        preprocess=prepared.loaded.preprocess,
        provenance=plan.curves,
    )


def load(run: str | Path, architecture: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Load the compressed model of a run folder: bit-equal to what was saved, in evaluation mode, without any pickle.

    Parameters
    ----------
    run
        Run folder.
    architecture
        Function that builds the bare architecture; needed only for a model that was given as a Python object.

    Raises
    ------
    FewerError
        When the folder holds no model, or files are damaged or do not belong together.

    Examples
    --------
    >>> import fewer
    >>> model = fewer.load("run/")  # doctest: +SKIP
    """
    return load_artefact(run, architecture)
