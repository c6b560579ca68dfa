"""Write a compressed model as an artefact, and read it back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fewer.core.errors import FewerError
from fewer.core.plan import Plan
from fewer.models.artefact import Saved, load_artefact, load_masks, load_recipe, save_artefact
from fewer.models.recipe import Recipe
from fewer.models.surgery import Removal
from fewer.verbs.prepare import Prepared


def save_model(
    folder: str | Path,
    prepared: Prepared,
    model: nn.Module,
    plan: Plan,
    masks: Mapping[str, Tensor],
    removals: Sequence[Removal] = (),
) -> Saved:
    """Write ``model.safetensors`` and ``recipe.json``: packed weights, masks, patterns, precisions and surgery.

    ``masks`` are those of the model as it is now, after the removals.
    """
    units: list[dict[str, Any]] = []
    for name, option in plan.options().items():
        mask = masks[name]
        dense = bool(mask.all())
        pattern = "unstructured" if option.removes else option.pattern  # what is left of a cut layer is dense
        units.append(
            {
                "name": name,
                "pattern": "dense" if dense else pattern,
                "sparsity": 0.0 if dense else 1 - float(mask.double().mean()),
                "precision": option.precision,
                "mask": None if dense else mask,
            }
        )
    source = prepared.loaded.source
    if removals:
        source = {**source, "surgery": [*source.get("surgery", []), *(r.to_dict() for r in removals)]}
    return save_artefact(
        folder,
        model,
        units,
        source,
        {**prepared.loaded.meta, "model": prepared.loaded.name},
        preprocess=prepared.loaded.preprocess,
        provenance=plan.curves,
    )


def load(
    run: str | Path,
    architecture: Callable[[], nn.Module] | None = None,
    *,
    accelerated: bool = False,
    example: Any = None,
) -> nn.Module:
    """Load the compressed model of a run folder, in evaluation mode, without any pickle.

    Parameters
    ----------
    run
        Run folder.
    architecture
        Function that builds the bare architecture; needed only for a model that was given as a Python object.
    accelerated
        Swap in the kernels that run the plan's masks and precisions fastest on this machine, each layer only where a
        measurement of some tenths of a second says so (:func:`fewer.kernels.accelerate.accelerate`). The model is then
        for inference on this CPU, in this process. Otherwise it is bit-equal to what was saved, in plain torch.
    example
        An input of the size that will be used, for these measurements; by default one image of the model's own size.

    Raises
    ------
    FewerError
        When the folder holds no model, files are damaged or do not belong together, or the input size is not known.

    Examples
    --------
    >>> import fewer
    >>> model = fewer.load("run/", accelerated=True)  # doctest: +SKIP
    """
    model = load_artefact(run, architecture)
    if not accelerated:
        return model
    from fewer.kernels.accelerate import accelerate

    recipe = load_recipe(run)
    if example is None:
        if recipe.preprocess is None:
            raise FewerError(f"{run} does not say what its model's input is; give example=, a tensor of its shape")
        example = torch.zeros(1, *recipe.preprocess["input_size"])
    return accelerate(model, load_masks(run), example=example, precision=precisions_of(recipe))[0]


def precisions_of(recipe: Recipe) -> dict[str, str]:
    """The precision of every unit of a saved model that a kernel can run at: ``fp32``, ``bf16`` or ``int8``."""
    runs_as = {"fp16": "bf16", "int4": "int8"}
    return {unit.name: runs_as.get(unit.precision, unit.precision) for unit in recipe.units}
