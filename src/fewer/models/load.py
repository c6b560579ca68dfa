"""Load the model of a run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fewer.core.errors import FewerError
from fewer.models.artefact import load_artefact, load_masks, load_recipe
from fewer.models.functional import leave_linear_layers
from fewer.models.recipe import precisions_of, refuse_integers
from fewer.models.running import input_dtype
from fewer.models.trust import Trust, trusting

__all__ = ["load"]


def load(
    run: str | Path,
    architecture: Callable[[], nn.Module] | None = None,
    *,
    accelerated: bool = False,
    example: Any = None,
    trust: Trust = False,
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
        An input of the size that will be used, for these measurements; by default one input of the model's own size.

    trust
        Run the Python file that the run names, if it was made from one: True, or the file. A run that someone else
        made can name any code, so nothing is run without it.

    Raises
    ------
    FewerError
        When the folder holds no model, files are damaged or do not belong together, or the input size is not known.

    Examples
    --------
    >>> import fewer
    >>> model = fewer.load("run/", accelerated=True)  # doctest: +SKIP
    """
    with trusting(trust):
        model = load_artefact(run, architecture)
    if not accelerated:
        return leave_linear_layers(model)
    from fewer.kernels.accelerate import accelerate

    recipe = load_recipe(run)
    refuse_integers(recipe, run, 'load it with runtime="torch"')
    if example is None:
        if recipe.input_size is None:
            raise FewerError(f"{run} does not say what its model's input is; give example=, a tensor of its shape")
        example = torch.zeros(1, *recipe.input_size)
        example = _runs(model, example.to(input_dtype(model, example)), run)
    if isinstance(example, torch.Tensor) and example.is_floating_point():
        example = example.to(input_dtype(model, example))
    return accelerate(model, load_masks(run), example=example, precision=precisions_of(recipe))[0]


def _runs(model: nn.Module, example: torch.Tensor, run: str | Path) -> torch.Tensor:
    """The example, if the model takes one of the size that its recipe tells."""
    try:
        with torch.no_grad():
            model(example.clone())
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        shape = tuple(example.shape[1:])
        raise FewerError(
            f"the model of {run} does not take the images that its recipe tells, {shape}: {reason}"
        ) from None
    return example
