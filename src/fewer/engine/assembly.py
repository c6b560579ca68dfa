"""A model put together from options that were made one by one: how a plan is judged before it is applied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fewer.core.curve import CurveSet
from fewer.core.option import Option
from fewer.core.unit import Unit
from fewer.cost.subjects import runs_as
from fewer.formats.integers import rounded
from fewer.kernels.copies import copied_module
from fewer.models.layers import Layer, find_layers
from fewer.models.running import Forward

if TYPE_CHECKING:
    from fewer.engine.as_used import InputRounding

__all__ = ["Assembly", "install_choice", "stored_as"]


def stored_as(options: Sequence[Option], index: int) -> int | None:
    """Which option's stored weights stand for an option: its own pattern and sparsity in the first precision offered.

    None for the dense options, which need no storage, and for rows, whose weights are those of the dense layer.

    Examples
    --------
    >>> options = [Option(), Option("block:16x4", 0.5), Option("block:16x4", 0.5, "int8")]
    >>> [stored_as(options, i) for i in range(3)]
    [None, 1, 1]
    """
    wanted = options[index]
    if wanted.is_dense or wanted.removes == "rows":
        return None
    return next(i for i, o in enumerate(options) if (o.pattern, o.sparsity) == (wanted.pattern, wanted.sparsity))


def install_choice(
    layers: dict[str, Layer],
    units: Sequence[Unit],
    options: Sequence[Sequence[Option]],
    choice: Sequence[int] | np.ndarray,
    store: Path,
    handles: dict[int, Any],
) -> None:
    """Write the stored weights of a choice of options into a model; option 0 leaves the dense weight in place.

    Weights are stored once for all precisions, and rounded to that of the choice here.

    Parameters
    ----------
    layers
        Of the model to write to, all dense now.
    units, options, choice
        Units in order, the options of each, and the index of each one's choice.
    store
        Folder that the tasks stored to.
    handles
        Open files, kept between calls; give an empty dict at first.
    """
    from safetensors import safe_open

    for index, (unit, offered, chosen) in enumerate(zip(units, options, choice, strict=True)):
        if chosen == 0:
            continue
        layer, precision, at = layers[unit.name], offered[chosen].precision, stored_as(offered, int(chosen))
        if at is None:
            layer.install(rounded(layer.matrix.float(), precision))
            continue
        if index not in handles:
            handles[index] = safe_open(store / f"{index}.safetensors", "pt")
        file = handles[index]
        spread = file.get_tensor(f"{at}.spread") if f"{at}.spread" in file.keys() else None  # noqa: SIM118
        weight = rounded(file.get_tensor(f"{at}.weight").float(), precision)
        layer.install(weight, file.get_tensor(f"{at}.shift"), spread)


@dataclass(eq=False)
class Assembly:
    """Models put together from the stored, repaired weights of every option: quick, for comparing plans.

    The final model is better than its assembly, because it is repaired in execution order. With ``rounding``, layers
    round their inputs as they will where the plan is used; otherwise int8 would look as exact as its weights.
    """

    model: Any
    layers: dict[str, Layer]
    curves: CurveSet
    store: Path
    forward: Forward | None
    handles: dict[int, Any]
    rounding: InputRounding | None = None

    @classmethod
    def of(
        cls,
        model: Any,
        curves: CurveSet,
        store: Path,
        example: Any,
        forward: Forward | None,
        rounding: InputRounding | None = None,
    ) -> Assembly:
        """Copy the dense model."""
        from fewer.engine.outer import outer_of, with_outer

        twin = with_outer(copied_module(model), outer_of(curves))
        return cls(twin, find_layers(twin, curves.units, example, forward), curves, store, forward, {}, rounding)

    def evaluate(self, choice: np.ndarray, measure: Callable[[Any], float]) -> float:
        """``measure(model)`` for a choice of options."""
        from contextlib import ExitStack

        from fewer.engine.assembly import install_choice

        with ExitStack() as stack:
            for unit, k in zip(self.curves.units, choice, strict=True):
                if k:
                    stack.enter_context(self.layers[unit.name].borrowed())
            options = [curve.options for curve in self.curves.curves]
            install_choice(self.layers, self.curves.units, options, choice.tolist(), self.store, self.handles)
            if self.rounding is not None:
                chosen = zip(self.curves.units, options, choice, strict=True)
                precisions = {unit.name: runs_as(offered[k].precision) for unit, offered, k in chosen}
                stack.enter_context(self.rounding.on(self.layers, precisions))
            return measure(self.model)

    def distortion(self, choice: np.ndarray, batches: Sequence[Any], reference: Any) -> float:
        """Mean output distortion of a choice on batches."""

        from fewer.models.running import call, evaluating

        def measure(model: Any) -> float:
            total = 0.0
            with evaluating(model):
                for i, batch in enumerate(batches):
                    total += float(reference.change(i, call(model, batch, self.forward)).sum())
            return total / reference.samples

        return self.evaluate(choice, measure)
